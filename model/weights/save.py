"""Writes a GPT-2 to a checkpoint folder in Hugging Face's layout, which folder.py and `transformers` both read.

Every file is written atomically: after a full disk or a kill the old file is still there.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from model.config import Config
from model.weights.names import PREFIXES, UNEMBEDDING, to_checkpoint


def write_config(folder: Path, config: Config) -> None:
    """Write the config.json of a GPT-2.

    Raises:
        OSError: if it cannot be written; the old file, if any, is unchanged.
    """
    if config.family != "gpt2":
        raise ValueError(f"only GPT-2s are written, not the family {config.family}")
    write_json(
        folder / "config.json",
        {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "vocab_size": config.n_vocab,
            "n_positions": config.n_context,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_mlp,
            "layer_norm_epsilon": config.norm_eps,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
            "tie_word_embeddings": config.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    )


def write_parameters(folder: Path, state: Mapping[str, Tensor], config: Config, dtype: torch.dtype) -> None:
    """Write model.safetensors in `dtype`.

    Raises:
        OSError: if it cannot be written; the old file, if any, is unchanged.
    """
    tensors = {
        name if name == UNEMBEDDING else PREFIXES["gpt2"] + name: tensor.to(dtype)
        for name, tensor in to_checkpoint(state, config).items()
    }
    write_atomic(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object that people can read: indented, with a newline at its end."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that, whatever happens meanwhile, has either the old content or the new one.

    Raises:
        OSError: if it cannot be written; the old file, if any, is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the content
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
