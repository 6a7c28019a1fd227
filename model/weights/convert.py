"""Converts a Llama in a GGUF file to a folder in Hugging Face's layout, dequantized to float32.

llama.cpp's format packs weights in blocks of a few bits each, and takes seconds to parse. The folder is
memory-mapped at once, and `transformers` can open it, too.
"""

import json
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

from model.weights.checks import refuse_unknown_tensors
from model.weights.names import GGUF_LLAMA, WeightsError, split_layer

CONTROL_TOKEN = 3  # GGUF's type of special tokens such as <|im_start|>

Tensors = dict[str, NDArray[np.float32]]
Metadata = TypedDict(  # the fields of a GGUF file that we read
    "Metadata",
    {
        "general.architecture": str,
        "llama.embedding_length": int,
        "llama.feed_forward_length": int,
        "llama.block_count": int,
        "llama.attention.head_count": int,
        "llama.attention.head_count_kv": int,
        "llama.attention.layer_norm_rms_epsilon": float,
        "llama.context_length": int,
        "llama.rope.freq_base": float,
        "tokenizer.ggml.pre": NotRequired[str],
        "tokenizer.ggml.tokens": list[str],
        "tokenizer.ggml.token_type": list[int],
        "tokenizer.ggml.merges": list[str],
    },
)


def convert(gguf: Path, folder: Path) -> None:
    """Write the config.json, model.safetensors and tokenizer.json of a GGUF file into a new folder.

    Raises:
        WeightsError: if the file is no Llama, or holds an unknown tensor or pre-tokenizer.
    """
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    metadata = cast(Metadata, fields)
    if metadata["general.architecture"] != "llama":
        raise WeightsError(f"{gguf.name} holds a {metadata['general.architecture']}; only a llama can be converted.")
    tensors = _tensors(reader, metadata)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it as 600, but a container may run as another user
    (folder / "config.json").write_text(json.dumps(_config(metadata, tensors), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(metadata)))


def _tensors(reader: GGUFReader, metadata: Metadata) -> Tensors:
    refuse_unknown_tensors((tensor.name for tensor in reader.tensors), GGUF_LLAMA)
    n_heads = {
        "blk.*.attn_q.weight": metadata["llama.attention.head_count"],
        "blk.*.attn_k.weight": metadata["llama.attention.head_count_kv"],
    }
    tensors: Tensors = {}
    for tensor in reader.tensors:
        pattern, number = split_layer(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type)
        if pattern in n_heads:
            values = _half_split(values, n_heads[pattern])
        tensors[GGUF_LLAMA[pattern].replace("*", number)] = np.ascontiguousarray(values, dtype=np.float32)
    return tensors


def _half_split(weight: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """The rows of a query or key projection in Hugging Face's order.

    llama.cpp interleaves the two features of each rotary pair; Hugging Face has first the first feature of all pairs,
    then the second. Row 2f + s of a head in llama.cpp is row s·D/2 + f in Hugging Face's order.

    >>> _half_split(np.arange(4, dtype=np.float32)[:, None], n_heads=1).ravel().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    n_rows, n_columns = weight.shape
    return weight.reshape(n_heads, -1, 2, n_columns).swapaxes(1, 2).reshape(n_rows, n_columns)


def _config(metadata: Metadata, tensors: Tensors) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }


def _tokenizer(metadata: Metadata) -> dict[str, object]:
    """The content of tokenizer.json: byte-level BPE in which every digit is a token of its own."""
    if metadata.get("tokenizer.ggml.pre") != "smollm":
        raise WeightsError(f"The pre-tokenizer {metadata.get('tokenizer.ggml.pre')!r} of this GGUF file is not known.")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    special = {token: id for id, token in enumerate(tokens) if types[id] == CONTROL_TOKEN}
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
            for name, id in special.items()
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
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": metadata["tokenizer.ggml.merges"],
        },
    }
