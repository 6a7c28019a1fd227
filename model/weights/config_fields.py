"""The fields of a config.json, by family: which are used, which must have one value, and which change nothing."""

from collections.abc import Mapping

# Sizes: the name of the field in the file, and its name in Config.
SIZES: Mapping[str, Mapping[str, str]] = {
    "gpt2": {
        "n_layer": "n_layers",
        "n_head": "n_heads",
        "n_embd": "d_model",
        "n_inner": "d_mlp",
        "vocab_size": "n_vocab",
        "n_positions": "n_context",
    },
    "llama": {
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "hidden_size": "d_model",
        "head_dim": "d_head",
        "intermediate_size": "d_mlp",
        "vocab_size": "n_vocab",
        "max_position_embeddings": "n_context",
    },
}
OPTIONAL_SIZES = ("n_inner", "num_key_value_heads", "head_dim")
SWITCHES: Mapping[str, Mapping[str, bool]] = {  # with the default of `transformers`
    "gpt2": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
}
OTHER_FIELDS = {
    "gpt2": ("layer_norm_epsilon",),
    "llama": ("rms_norm_eps", "rope_theta", "rope_parameters", "rope_scaling", "layer_types"),
}

# Fields that change the computation, with the values that gpt.py implements.
FIXED: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {
        "hidden_act": ("silu",),
        "rope_interleaved": (False,),
        "partial_rotary_factor": (1.0, None),
        "sliding_window": (None,),
        "use_sliding_window": (False, None),
    },
}
FIXED_IN_BOTH: Mapping[str, tuple[object, ...]] = {
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": (None,),  # code that came with the checkpoint
}

# Fields that do not change what a model computes: names, training, generation, and what `transformers` returns.
HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures
    attn_implementation bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward cls_token_id
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label initializer_range is_decoder label2id length_penalty
    max_length max_new_tokens min_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams
    num_labels num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix
    problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p
    torch_dtype torchscript transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version
    unk_token_id use_bfloat16 use_cache

    attn_pdrop embd_pdrop n_ctx n_special predict_special_tokens reorder_and_upcast_attn resid_pdrop
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj

    attention_dropout is_llama_config pretraining_tp
    """.split()  # noqa: SIM905
)

ROTARY_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
