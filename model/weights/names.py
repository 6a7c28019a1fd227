"""Tables from the names in a checkpoint to the names in gpt.py. A tensor that no table knows stops the load.

`*` is the number of a block. A tensor that holds several of ours, side by side, names them all.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
PREFIXES = {"gpt2": "transformer.", "llama": "model."}  # of every tensor but lm_head.weight, where the file has it

UNEMBEDDING = "lm_head.weight"
_EMBEDDING = {"gpt2": "wte.weight", "llama": "embed_tokens.weight"}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

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


def embedding_name(config: Config) -> str:
    """The tensor with a row for every token, as files name it."""
    return PREFIXES[config.family] + _EMBEDDING[config.family]


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


def resolve_tying(tensors: Mapping[str, Tensor], config: Config) -> Config:
    """The Config with `tied` as the file has it.

    A file may bring an unembedding of its own although config.json says, or takes for granted, that there is none.
    `transformers` 5 then compares the two, and ties them only if they are equal; so do we.
    """
    by_name = _without_prefix(tensors, config)
    embedding, unembedding = by_name.get(_EMBEDDING[config.family]), by_name.get(UNEMBEDDING)
    if not config.tied or embedding is None or unembedding is None:
        return config
    return config if torch.equal(embedding, unembedding) else replace(config, tied=False)


def check_layers(tensors: Mapping[str, Tensor], config: Config) -> None:
    """Stop where config.json promises more layers than the file has, before a network of that many is made.

    Raises:
        WeightsError: with both numbers.
    """
    numbers = [number for _, number in map(template, tensors) if number]
    n_layers = 1 + max(map(int, numbers), default=-1)
    if config.n_layers > n_layers:
        field = {"gpt2": "n_layer", "llama": "num_hidden_layers"}[config.family]
        raise WeightsError(
            f"config.json says {field} {config.n_layers:,}; the file has tensors of {n_layers:,} layers."
        )


def check_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], config: Config, dtype: torch.dtype
) -> None:
    """Stop at a tensor that is missing, unknown, of another shape, quantized, or not finite in `dtype`.

    `shapes` are those of our parameters, by our names; messages name tensors and shapes as the file has them.

    Raises:
        WeightsError: naming the tensors.
    """
    known, prefix = TABLES[config.family], PREFIXES[config.family]
    refuse_strangers(tensors, {*known, *(prefix + name for name in known if name != UNEMBEDDING)})
    found = _without_prefix(tensors, config)
    wanted = _shapes_in_file(shapes, config)
    shown = prefix if any(name.startswith(prefix) for name in tensors) or not tensors else ""
    missing = wanted.keys() - found.keys()
    if config.tied:  # one of the two is enough
        pair = {UNEMBEDDING, _EMBEDDING[config.family]}
        missing -= pair if pair & found.keys() else {UNEMBEDDING}
    if missing:
        names = sorted(name if name == UNEMBEDDING else shown + name for name in missing)
        raise WeightsError(f"The file lacks {len(names)} tensors that config.json promises: {_some(names)}.")
    named = {name.removeprefix(prefix): name for name in tensors}
    used = {name: tensor for name, tensor in found.items() if known[template(name)[0]].ours}
    if surplus := sorted(named[name] for name in used.keys() - wanted.keys()):
        raise WeightsError(f"The file holds {len(surplus)} tensors that config.json has no use for: {_some(surplus)}.")
    for name, tensor in used.items():
        if tuple(tensor.shape) != wanted[name]:
            raise WeightsError(f"{named[name]} has the shape {tuple(tensor.shape)}; config.json says {wanted[name]}.")
        if tensor.dtype not in DTYPES:
            raise WeightsError(
                f"{named[name]} holds numbers of the type {_dtype(tensor.dtype)}, so the model is quantized. Lookback "
                f"reads {', '.join(map(_dtype, DTYPES))}: dequantize the model and save it again."
            )
        _refuse_non_finite(named[name], tensor, dtype)


def _refuse_non_finite(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    low, high = (float(extreme) for extreme in torch.aminmax(tensor))  # NaN if there is one
    limit = torch.finfo(dtype).max
    if -limit <= low and high <= limit:
        return
    n_nan, n_inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    kinds = [f"{n} {kind}" for n, kind in ((n_nan, "NaN"), (n_inf, "infinite")) if n]
    kinds = kinds or [f"numbers too large for {_dtype(dtype)} ({max(-low, high):.3g})"]
    raise WeightsError(
        f"{name} holds {' and '.join(kinds)} among its {tensor.numel():,} numbers, with which every prediction would "
        "be wrong. Take an earlier checkpoint, or save this one again."
    )


def _shapes_in_file(shapes: Mapping[str, tuple[int, ...]], config: Config) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a file should have, by its name there without the prefix."""
    found = {}
    for general, place in TABLES[config.family].items():
        for number in map(str, range(config.n_layers)) if "*" in general else [""]:
            parts = [shapes[ours] for name in place.ours if (ours := name.replace("*", number)) in shapes]
            if parts:
                shape = (sum(n_outputs for n_outputs, *_ in parts), *parts[0][1:])
                found[general.replace("*", number)] = shape[::-1] if place.transposed else shape
    return found


def _without_prefix(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    prefix = PREFIXES[config.family]
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(bare) < len(tensors):
        twice = next(name for name in tensors if name.startswith(prefix) and name.removeprefix(prefix) in tensors)
        raise WeightsError(f"The file holds both {twice} and {twice.removeprefix(prefix)}, which are one tensor.")
    return bare


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


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
    """A checkpoint's tensors under our names, each in the shape that gpt.py wants; `check_tensors` has seen them."""
    d_keys = config.n_kv_heads * config.d_head
    state = {}
    for name, tensor in _without_prefix(tensors, config).items():
        general, number = template(name)
        place = TABLES[config.family][general]
        if not place.ours:
            continue
        tensor = tensor.T if place.transposed else tensor
        sizes = [tensor.shape[0]] if len(place.ours) == 1 else [config.n_heads * config.d_head, d_keys, d_keys]
        for target, part in zip(place.ours, torch.split(tensor, sizes), strict=True):
            state[target.replace("*", number)] = part.contiguous()
    if config.tied:
        shared = state["embed.weight"] if "embed.weight" in state else state["unembed.weight"]
        state["embed.weight"] = state["unembed.weight"] = shared
    return state
