"""A Llama in a GGUF file -> a folder in Hugging Face's layout, dequantised to float32.

llama.cpp's format packs weights in blocks of a few bits and needs seconds to parse; the folder maps into memory at
once, is what folder.py reads, and can be opened with `transformers`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

from model.weights.checks import refuse_unknown_tensors
from model.weights.names import GGUF_LLAMA, WeightsError, split_layer

CONTROL_TOKEN = 3  # GGUF's token type of names such as <|im_start|>


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and tokenizer.json of a GGUF file into a new folder.

    Raises:
        WeightsError: when the file is no Llama, or holds a tensor that has no place.
    """
    reader = GGUFReader(gguf)
    about = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    if about["general.architecture"] != "llama":
        raise WeightsError(f"{gguf.name} holds a {about['general.architecture']}; only a llama can be converted.")
    tensors = _tensors(reader, about)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private; a container may serve as another user
    (folder / "config.json").write_text(json.dumps(_config(about, tensors), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(about)))


def _tensors(reader: GGUFReader, about: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    refuse_unknown_tensors((tensor.name for tensor in reader.tensors), GGUF_LLAMA)
    n_heads = {
        "blk.*.attn_q.weight": about["llama.attention.head_count"],
        "blk.*.attn_k.weight": about["llama.attention.head_count_kv"],
    }
    tensors = {}
    for tensor in reader.tensors:
        general, number = split_layer(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type)
        if general in n_heads:
            values = _half_split(values, n_heads[general])
        tensors[GGUF_LLAMA[general].replace("*", number)] = np.ascontiguousarray(values, dtype=np.float32)
    return tensors


def _half_split(weight: np.ndarray[Any, Any], n_heads: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's order of query and key rows.

    It interleaves the two features of each rotary pair; Hugging Face's layout keeps all first ones, then all second
    ones. Row 2f + s of a head there is row s·D/2 + f here.

    >>> _half_split(np.arange(4)[:, None], n_heads=1).ravel().tolist()
    [0, 2, 1, 3]
    """
    n_rows, n_columns = weight.shape
    return weight.reshape(n_heads, -1, 2, n_columns).swapaxes(1, 2).reshape(n_rows, n_columns)


def _config(about: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": about["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": about["llama.rope.freq_base"],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }


def _tokenizer(about: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json: byte-level BPE, every digit on its own."""
    if about.get("tokenizer.ggml.pre") != "smollm":
        raise WeightsError(f"The pre-tokenizer {about.get('tokenizer.ggml.pre')!r} of this GGUF file is not known.")
    pieces, types = about["tokenizer.ggml.tokens"], about["tokenizer.ggml.token_type"]
    control = {piece: id for id, piece in enumerate(pieces) if types[id] == CONTROL_TOKEN}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": id,
                "content": name,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for name, id in control.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
            "merges": about["tokenizer.ggml.merges"],
        },
    }
