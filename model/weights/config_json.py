"""config.json -> Config. A field that changes numbers is honoured, or refused by the name it has in the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import Config, ConfigError, RotaryScaling
from model.weights.files import ADAPTER, as_json, read_json
from model.weights.names import WeightsError

# Fields that gpt.py takes a number from, and the name that Config gives it. Those with None may be left out.
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
SWITCHES: Mapping[str, Mapping[str, bool]] = {  # with what `transformers` takes where the field is left out
    "gpt2": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False},
}
OTHERS = {
    "gpt2": ("layer_norm_epsilon",),
    "llama": ("rms_norm_eps", "rope_theta", "rope_parameters", "rope_scaling", "layer_types"),
}

# Fields that change numbers, with the values that gpt.py computes.
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
    "auto_map": (None,),  # code of the checkpoint's own
}

# Fields that change no number of a reading: names, training, generation, and what `transformers` is to return.
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


def read_config_file(folder: Path) -> Config:
    """The folder's Config.

    Raises:
        WeightsError: when there is no config.json, or it describes a network that gpt.py is not.
    """
    if not folder.is_dir():
        raise WeightsError(f"There is no folder {folder}. A checkpoint is a folder with config.json and its weights.")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise WeightsError(ADAPTER.format(folder=folder))
    try:
        return read_config(read_json(folder / "config.json"))
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{folder / 'config.json'} does not fit: {error}.") from error


def read_config(raw: Mapping[str, Any]) -> Config:
    """Our Config from a config.json.

    Raises:
        ConfigError: when it describes a network that gpt.py is not, or has a field that is not known.
    """
    readers = {"gpt2": _gpt2_config, "llama": _llama_config}
    family = raw.get("model_type")
    if family not in readers:
        raise ConfigError(f"its model_type is {family!r}; Lookback reads {' and '.join(readers)}")
    _refuse_other_numbers(raw, family)
    return readers[family](raw)


def _refuse_other_numbers(raw: Mapping[str, Any], family: str) -> None:
    """Stop at a field with which the network would compute something else than gpt.py does."""
    honoured = {*SIZES[family], *SWITCHES[family], *OTHERS[family]}
    fixed = {**FIXED_IN_BOTH, **FIXED[family]}
    for name, value in raw.items():
        if name in fixed and value not in fixed[name]:
            computed = " or ".join(as_json(known) for known in fixed[name])
            raise ConfigError(f"its {name} is {as_json(value)}; Lookback computes {computed}")
        if name not in honoured and name not in fixed and name not in HARMLESS:
            raise ConfigError(
                f"its field {name} ({as_json(value)}) is not known to Lookback, which would have to leave it out. "
                f"If it changes no number of this model, delete it from config.json"
            )
    for name in SWITCHES[family]:
        if not isinstance(raw.get(name, False), bool):
            raise ConfigError(f"its {name} is {as_json(raw[name])}; it must be true or false")
    for name in SIZES[family]:
        if raw.get(name) is None:
            if name not in OPTIONAL_SIZES:
                raise ConfigError(f"it has no {name}")
        elif type(raw[name]) is not int or raw[name] < 1:
            raise ConfigError(f"its {name} is {as_json(raw[name])}; it must be a whole number, at least 1")


def _gpt2_config(raw: Mapping[str, Any]) -> Config:
    d_model, n_heads = raw["n_embd"], raw["n_head"]
    if d_model % n_heads:
        raise ConfigError(f"its n_embd is {d_model}, which the {n_heads} heads of n_head cannot share evenly")
    return Config(
        family="gpt2",
        n_layers=raw["n_layer"],
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_model=d_model,
        d_head=d_model // n_heads,
        d_mlp=raw.get("n_inner") or 4 * d_model,
        n_vocab=raw["vocab_size"],
        n_context=raw["n_positions"],
        norm="layernorm",
        norm_eps=_positive(raw, "layer_norm_epsilon", 1e-5),
        positions="learned",
        mlp="gelu",
        tied=raw.get("tie_word_embeddings", True),
        attention_bias=True,
        mlp_bias=True,
    )


def _llama_config(raw: Mapping[str, Any]) -> Config:
    n_heads, d_model, n_kv_heads = raw["num_attention_heads"], raw["hidden_size"], raw.get("num_key_value_heads")
    d_head = raw.get("head_dim")
    if d_head is None and d_model % n_heads:
        raise ConfigError(
            f"its hidden_size is {d_model}, which the {n_heads} heads of num_attention_heads cannot share evenly"
        )
    if n_heads % (n_kv_heads or n_heads):
        raise ConfigError(
            f"its num_attention_heads is {n_heads} and its num_key_value_heads {n_kv_heads}: "
            f"{n_heads} query heads cannot share {n_kv_heads} key heads evenly"
        )
    if (d_head or d_model // n_heads) % 2:
        raise ConfigError(
            f"its head_dim (or hidden_size / num_attention_heads) is {d_head or d_model // n_heads}; "
            "rotary positions rotate pairs of features, so it must be even"
        )
    if kinds := set(raw.get("layer_types") or ()) - {"full_attention"}:
        raise ConfigError(f"its layer_types name {', '.join(sorted(map(str, kinds)))}; Lookback knows full_attention")
    base, scaling = _rotary(raw)
    return Config(
        family="llama",
        n_layers=raw["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=n_kv_heads or n_heads,
        d_model=d_model,
        d_head=d_head or d_model // n_heads,
        d_mlp=raw["intermediate_size"],
        n_vocab=raw["vocab_size"],
        n_context=raw["max_position_embeddings"],
        norm="rmsnorm",
        norm_eps=_positive(raw, "rms_norm_eps", 1e-6),
        positions="rotary",
        mlp="swiglu",
        tied=raw.get("tie_word_embeddings", False),
        attention_bias=raw.get("attention_bias", False),
        mlp_bias=raw.get("mlp_bias", False),
        rotary_base=base,
        rotary_scaling=scaling,
    )


def _rotary(raw: Mapping[str, Any]) -> tuple[float, RotaryScaling | None]:
    """Base and scaling of the rotary positions.

    `transformers` 5 gathers them in rope_parameters; before it they stood apart, as rope_theta and rope_scaling.
    """
    if raw.get("rope_parameters") and raw.get("rope_scaling") not in (None, {}, raw["rope_parameters"]):
        raise ConfigError("its rope_scaling and its rope_parameters differ; one of them has to go")
    where = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    rotary = raw.get(where) or {}
    if not isinstance(rotary, dict):
        raise ConfigError(f"its {where} is {as_json(rotary)}; it must be an object")
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    if kind not in ROTARY_FIELDS:
        raise ConfigError(f"its {where}.rope_type is {kind!r}; Lookback knows {', '.join(ROTARY_FIELDS)}")
    for name, value in rotary.items():
        known = name in ("rope_type", "type", "rope_theta", *ROTARY_FIELDS[kind])
        if not known and not (name == "partial_rotary_factor" and value in (1.0, None)):
            raise ConfigError(f"its {where}.{name} is {as_json(value)}, which Lookback does not compute for {kind!r}")
    base = _positive(rotary, "rope_theta", _positive(raw, "rope_theta", 10_000.0), where)
    if kind == "default":
        return base, None
    factor = _positive(rotary, "factor", None, where)
    if kind == "linear":
        return base, RotaryScaling(kind="linear", factor=factor)
    return base, RotaryScaling(
        kind="llama3",
        factor=factor,
        low_freq_factor=_positive(rotary, "low_freq_factor", None, where),
        high_freq_factor=_positive(rotary, "high_freq_factor", None, where),
        original_context=int(_positive(rotary, "original_max_position_embeddings", None, where)),
    )


def _positive(raw: Mapping[str, Any], name: str, default: float | None, where: str = "") -> float:
    """A number of the file, which must be positive; `default` where the field is left out, if it may be."""
    path = f"{where}.{name}" if where else name
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ConfigError(f"it has no {path}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"its {path} is {as_json(value)}; it must be a number, positive and finite")
    return value
