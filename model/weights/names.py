"""Tables from the names of tensors in a checkpoint to the names of our parameters in gpt.py.

`*` stands for the number of a layer. A tensor in no table is an error (checks.py).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import Config


class WeightsError(ValueError):
    """A checkpoint that cannot be used: a file, a setting or a tensor is missing, unknown or of another shape."""


@dataclass(frozen=True)
class Target:
    """Where a tensor of a checkpoint goes: to one parameter, or to several, concatenated along the output dimension."""

    parameters: tuple[str, ...]
    transposed: bool = False  # GPT-2 stores its projections as (in, out), nn.Linear as (out, in)


IGNORED = Target(())  # tensors that hold no parameter

GPT2 = {
    "wte.weight": Target(("embed.weight",)),
    "wpe.weight": Target(("positions.table.weight",)),
    "h.*.ln_1.weight": Target(("blocks.*.norm_1.gain",)),
    "h.*.ln_1.bias": Target(("blocks.*.norm_1.bias",)),
    "h.*.attn.c_attn.weight": Target(
        ("blocks.*.attention.query.weight", "blocks.*.attention.key.weight", "blocks.*.attention.value.weight"),
        transposed=True,
    ),
    "h.*.attn.c_attn.bias": Target(
        ("blocks.*.attention.query.bias", "blocks.*.attention.key.bias", "blocks.*.attention.value.bias")
    ),
    "h.*.attn.c_proj.weight": Target(("blocks.*.attention.output.weight",), transposed=True),
    "h.*.attn.c_proj.bias": Target(("blocks.*.attention.output.bias",)),
    "h.*.attn.bias": IGNORED,  # the causal mask, which we compute
    "h.*.attn.masked_bias": IGNORED,  # the number that old files used for -inf
    "h.*.ln_2.weight": Target(("blocks.*.norm_2.gain",)),
    "h.*.ln_2.bias": Target(("blocks.*.norm_2.bias",)),
    "h.*.mlp.c_fc.weight": Target(("blocks.*.mlp.up.weight",), transposed=True),
    "h.*.mlp.c_fc.bias": Target(("blocks.*.mlp.up.bias",)),
    "h.*.mlp.c_proj.weight": Target(("blocks.*.mlp.down.weight",), transposed=True),
    "h.*.mlp.c_proj.bias": Target(("blocks.*.mlp.down.bias",)),
    "ln_f.weight": Target(("norm_final.gain",)),
    "ln_f.bias": Target(("norm_final.bias",)),
    "lm_head.weight": Target(("unembed.weight",)),
}

LLAMA = {
    "embed_tokens.weight": Target(("embed.weight",)),
    "layers.*.input_layernorm.weight": Target(("blocks.*.norm_1.gain",)),
    "layers.*.self_attn.q_proj.weight": Target(("blocks.*.attention.query.weight",)),
    "layers.*.self_attn.q_proj.bias": Target(("blocks.*.attention.query.bias",)),
    "layers.*.self_attn.k_proj.weight": Target(("blocks.*.attention.key.weight",)),
    "layers.*.self_attn.k_proj.bias": Target(("blocks.*.attention.key.bias",)),
    "layers.*.self_attn.v_proj.weight": Target(("blocks.*.attention.value.weight",)),
    "layers.*.self_attn.v_proj.bias": Target(("blocks.*.attention.value.bias",)),
    "layers.*.self_attn.o_proj.weight": Target(("blocks.*.attention.output.weight",)),
    "layers.*.self_attn.o_proj.bias": Target(("blocks.*.attention.output.bias",)),
    "layers.*.self_attn.rotary_emb.inv_freq": IGNORED,  # the rotary frequencies, which we compute
    "layers.*.post_attention_layernorm.weight": Target(("blocks.*.norm_2.gain",)),
    "layers.*.mlp.gate_proj.weight": Target(("blocks.*.mlp.gate.weight",)),
    "layers.*.mlp.gate_proj.bias": Target(("blocks.*.mlp.gate.bias",)),
    "layers.*.mlp.up_proj.weight": Target(("blocks.*.mlp.up.weight",)),
    "layers.*.mlp.up_proj.bias": Target(("blocks.*.mlp.up.bias",)),
    "layers.*.mlp.down_proj.weight": Target(("blocks.*.mlp.down.weight",)),
    "layers.*.mlp.down_proj.bias": Target(("blocks.*.mlp.down.bias",)),
    "norm.weight": Target(("norm_final.gain",)),
    "lm_head.weight": Target(("unembed.weight",)),
}

TABLES = {"gpt2": GPT2, "llama": LLAMA}
PREFIXES = {"gpt2": "transformer.", "llama": "model."}  # optional, of every tensor except lm_head.weight

UNEMBEDDING = "lm_head.weight"
EMBEDDING = {"gpt2": "wte.weight", "llama": "embed_tokens.weight"}

# from llama.cpp's names of a Llama's tensors to Hugging Face's
GGUF_LLAMA = {
    "token_embd.weight": "model.embed_tokens.weight",
    "blk.*.attn_norm.weight": "model.layers.*.input_layernorm.weight",
    "blk.*.attn_q.weight": "model.layers.*.self_attn.q_proj.weight",
    "blk.*.attn_k.weight": "model.layers.*.self_attn.k_proj.weight",
    "blk.*.attn_v.weight": "model.layers.*.self_attn.v_proj.weight",
    "blk.*.attn_output.weight": "model.layers.*.self_attn.o_proj.weight",
    "blk.*.ffn_norm.weight": "model.layers.*.post_attention_layernorm.weight",
    "blk.*.ffn_gate.weight": "model.layers.*.mlp.gate_proj.weight",
    "blk.*.ffn_up.weight": "model.layers.*.mlp.up_proj.weight",
    "blk.*.ffn_down.weight": "model.layers.*.mlp.down_proj.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def embedding_name(config: Config) -> str:
    """The name in a checkpoint of the token embedding, which has one row per token."""
    return PREFIXES[config.family] + EMBEDDING[config.family]


def split_layer(name: str) -> tuple[str, str]:
    """A name with `*` in place of its layer's number, and that number as text ("" if the name has none).

    >>> split_layer("h.11.ln_1.weight"), split_layer("ln_f.bias")
    (('h.*.ln_1.weight', '11'), ('ln_f.bias', ''))
    """
    number = re.search(r"\.(\d+)\.", name)
    return (name.replace(number[0], ".*.", 1), number[1]) if number else (name, "")


def entries(config: Config) -> Iterator[tuple[str, Target, tuple[str, ...]]]:
    """The table of a family with every layer written out: name in the checkpoint, target, names of parameters."""
    for pattern, target in TABLES[config.family].items():
        for number in map(str, range(config.n_layers)) if "*" in pattern else [""]:
            parameters = tuple(name.replace("*", number) for name in target.parameters)
            yield pattern.replace("*", number), target, parameters


def without_prefix(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names without the family's prefix, as the tables have them.

    Raises:
        WeightsError: when a name is there twice, with the prefix and without.
    """
    prefix = PREFIXES[config.family]
    bare_names = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(bare_names) < len(tensors):
        name = next(name for name in tensors if name.startswith(prefix) and name.removeprefix(prefix) in tensors)
        raise WeightsError(f"The file holds both {name} and {name.removeprefix(prefix)}, which are the same tensor.")
    return bare_names


def to_checkpoint(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Our parameters under the names, and in the shapes, that a checkpoint has; the inverse of `from_checkpoint`.

    A tied unembedding is left out, because it is the embedding.
    """
    tensors = {}
    for name, target, parameters in entries(config):
        if config.tied and parameters == ("unembed.weight",):
            continue
        parts = [state[parameter] for parameter in parameters if parameter in state]
        if parts:
            tensor = torch.cat(parts)
            tensors[name] = tensor.T.contiguous() if target.transposed else tensor
    return tensors


def from_checkpoint(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names, and in the shapes, of our parameters.

    The tensors must have passed `check_tensors`.
    """
    n_key_rows = config.n_kv_heads * config.d_head
    state = {}
    for name, tensor in without_prefix(tensors, config).items():
        pattern, number = split_layer(name)
        target = TABLES[config.family][pattern]
        if not target.parameters:
            continue
        tensor = tensor.T if target.transposed else tensor
        is_single = len(target.parameters) == 1
        sizes = [tensor.shape[0]] if is_single else [config.n_heads * config.d_head, n_key_rows, n_key_rows]
        for parameter, part in zip(target.parameters, torch.split(tensor, sizes), strict=True):
            state[parameter.replace("*", number)] = part.contiguous()
    if config.tied:
        shared = state["embed.weight"] if "embed.weight" in state else state["unembed.weight"]
        state["embed.weight"] = state["unembed.weight"] = shared
    return state
