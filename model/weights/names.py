"""Tables from the names in a checkpoint to the names in gpt.py. A tensor that no table knows stops the load.

`*` is the number of a block. A tensor that holds several of ours, side by side, names them all.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import Config


class WeightsError(ValueError):
    """A checkpoint that does not fit: a file, a setting or a tensor that is missing, strange or of another shape."""


@dataclass(frozen=True)
class Place:
    """Where a tensor of the file goes: one name of ours, or several that share it along its output dimension."""

    ours: tuple[str, ...]
    transposed: bool = False  # GPT-2 stores its projections (in, out); nn.Linear wants (out, in)


IGNORED = Place(())  # knowingly left out

GPT2 = {
    "wte.weight": Place(("embed.weight",)),
    "wpe.weight": Place(("positions.table.weight",)),
    "h.*.ln_1.weight": Place(("blocks.*.norm_1.gain",)),
    "h.*.ln_1.bias": Place(("blocks.*.norm_1.bias",)),
    "h.*.attn.c_attn.weight": Place(
        ("blocks.*.attention.query.weight", "blocks.*.attention.key.weight", "blocks.*.attention.value.weight"),
        transposed=True,
    ),
    "h.*.attn.c_attn.bias": Place(
        ("blocks.*.attention.query.bias", "blocks.*.attention.key.bias", "blocks.*.attention.value.bias")
    ),
    "h.*.attn.c_proj.weight": Place(("blocks.*.attention.output.weight",), transposed=True),
    "h.*.attn.c_proj.bias": Place(("blocks.*.attention.output.bias",)),
    "h.*.attn.bias": IGNORED,  # the causal mask; ours is computed
    "h.*.attn.masked_bias": IGNORED,  # the number that stood for -inf in old files
    "h.*.ln_2.weight": Place(("blocks.*.norm_2.gain",)),
    "h.*.ln_2.bias": Place(("blocks.*.norm_2.bias",)),
    "h.*.mlp.c_fc.weight": Place(("blocks.*.mlp.up.weight",), transposed=True),
    "h.*.mlp.c_fc.bias": Place(("blocks.*.mlp.up.bias",)),
    "h.*.mlp.c_proj.weight": Place(("blocks.*.mlp.down.weight",), transposed=True),
    "h.*.mlp.c_proj.bias": Place(("blocks.*.mlp.down.bias",)),
    "ln_f.weight": Place(("norm_final.gain",)),
    "ln_f.bias": Place(("norm_final.bias",)),
    "lm_head.weight": Place(("unembed.weight",)),
}

LLAMA = {
    "embed_tokens.weight": Place(("embed.weight",)),
    "layers.*.input_layernorm.weight": Place(("blocks.*.norm_1.gain",)),
    "layers.*.self_attn.q_proj.weight": Place(("blocks.*.attention.query.weight",)),
    "layers.*.self_attn.q_proj.bias": Place(("blocks.*.attention.query.bias",)),
    "layers.*.self_attn.k_proj.weight": Place(("blocks.*.attention.key.weight",)),
    "layers.*.self_attn.k_proj.bias": Place(("blocks.*.attention.key.bias",)),
    "layers.*.self_attn.v_proj.weight": Place(("blocks.*.attention.value.weight",)),
    "layers.*.self_attn.v_proj.bias": Place(("blocks.*.attention.value.bias",)),
    "layers.*.self_attn.o_proj.weight": Place(("blocks.*.attention.output.weight",)),
    "layers.*.self_attn.o_proj.bias": Place(("blocks.*.attention.output.bias",)),
    "layers.*.self_attn.rotary_emb.inv_freq": IGNORED,  # the rotary frequencies; ours are computed
    "layers.*.post_attention_layernorm.weight": Place(("blocks.*.norm_2.gain",)),
    "layers.*.mlp.gate_proj.weight": Place(("blocks.*.mlp.gate.weight",)),
    "layers.*.mlp.gate_proj.bias": Place(("blocks.*.mlp.gate.bias",)),
    "layers.*.mlp.up_proj.weight": Place(("blocks.*.mlp.up.weight",)),
    "layers.*.mlp.up_proj.bias": Place(("blocks.*.mlp.up.bias",)),
    "layers.*.mlp.down_proj.weight": Place(("blocks.*.mlp.down.weight",)),
    "layers.*.mlp.down_proj.bias": Place(("blocks.*.mlp.down.bias",)),
    "norm.weight": Place(("norm_final.gain",)),
    "lm_head.weight": Place(("unembed.weight",)),
}

TABLES = {"gpt2": GPT2, "llama": LLAMA}

# llama.cpp's names for a Llama, and Hugging Face's
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


def template(name: str) -> tuple[str, str]:
    """A name without its block's number, and that number.

    >>> template("h.11.ln_1.weight"), template("ln_f.bias")
    (('h.*.ln_1.weight', '11'), ('ln_f.bias', ''))
    """
    number = re.search(r"\.(\d+)\.", name)
    return (name.replace(number[0], ".*.", 1), number[1]) if number else (name, "")


def refuse_strangers(names: Iterable[str], known: Iterable[str]) -> None:
    """Stop when a file holds a tensor that we have no place for.

    Raises:
        WeightsError: naming every stranger.
    """
    strangers = {template(name)[0] for name in names} - set(known)
    if strangers:
        raise WeightsError(f"This model has no place for these tensors of the file: {', '.join(sorted(strangers))}.")


def theirs(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Our tensors under the names of a checkpoint, in its shapes: what `ours` undoes.

    A tied unembedding is left out; its embedding is there.
    """
    tensors = {}
    for general, place in TABLES[config.family].items():
        if not place.ours or (config.tied and place.ours == ("unembed.weight",)):
            continue
        numbers = map(str, range(config.n_layers)) if "*" in general else [""]
        for number in numbers:
            parts = [state[name] for one in place.ours if (name := one.replace("*", number)) in state]
            if parts:
                tensor = torch.cat(parts)
                tensors[general.replace("*", number)] = tensor.T.contiguous() if place.transposed else tensor
    return tensors


def ours(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names, each in the shape that gpt.py wants.

    Raises:
        WeightsError: when the file holds a tensor that no table knows.
    """
    table = TABLES[config.family]
    tensors = {re.sub(r"^(transformer|model)\.", "", name): tensor for name, tensor in tensors.items()}
    refuse_strangers(tensors, table)
    d_keys = config.n_kv_heads * config.d_head
    state = {}
    for name, tensor in tensors.items():
        general, number = template(name)
        place = table[general]
        if not place.ours:
            continue
        tensor = tensor.T if place.transposed else tensor
        sizes = [tensor.shape[0]] if len(place.ours) == 1 else [config.n_heads * config.d_head, d_keys, d_keys]
        if sum(sizes) != tensor.shape[0]:
            raise WeightsError(
                f"{name} has {tensor.shape[0]} outputs; query, key and value together need {sum(sizes)}."
            )
        for target, part in zip(place.ours, torch.split(tensor, sizes), strict=True):
            state[target.replace("*", number)] = part.contiguous()
    if config.tied:
        state["unembed.weight"] = state["embed.weight"] if "embed.weight" in state else state["unembed.weight"]
    return state
