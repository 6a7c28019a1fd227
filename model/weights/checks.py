"""Checks of a checkpoint's tensors before they become parameters: all there, none unknown, right shapes, finite."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from model.config import Config
from model.weights.names import (
    EMBEDDING,
    PREFIXES,
    TABLES,
    UNEMBEDDING,
    WeightsError,
    entries,
    split_layer,
    without_prefix,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def refuse_unknown_tensors(names: Iterable[str], known: Iterable[str]) -> None:
    """Stop at tensors that no table knows.

    Raises:
        WeightsError: naming all of them.
    """
    unknown_tensors = {split_layer(name)[0] for name in names} - set(known)
    if unknown_tensors:
        raise WeightsError(
            f"This model has no place for these tensors of the file: {', '.join(sorted(unknown_tensors))}."
        )


def resolve_tying(tensors: Mapping[str, Tensor], config: Config) -> Config:
    """The Config with `tied` as the file has it.

    A file may hold an unembedding of its own although config.json ties it to the embedding, or says nothing.
    `transformers` 5 then ties them only if they are equal; so do we.
    """
    bare_names = without_prefix(tensors, config)
    embedding, unembedding = bare_names.get(EMBEDDING[config.family]), bare_names.get(UNEMBEDDING)
    if not config.tied or embedding is None or unembedding is None:
        return config
    return config if torch.equal(embedding, unembedding) else replace(config, tied=False)


def check_layers(tensors: Mapping[str, Tensor], config: Config) -> None:
    """Stop if config.json claims more layers than the file has, before a network with that many is built.

    Raises:
        WeightsError: with both numbers.
    """
    numbers = [number for _, number in map(split_layer, tensors) if number]
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

    `shapes` are those of our parameters, by our names. Messages give names and shapes as the file has them.

    Raises:
        WeightsError: naming the tensors.
    """
    table, prefix = TABLES[config.family], PREFIXES[config.family]
    refuse_unknown_tensors(tensors, {*table, *(prefix + name for name in table if name != UNEMBEDDING)})
    file_names = {name.removeprefix(prefix): name for name in tensors}
    parameters = {
        name: tensor
        for name, tensor in without_prefix(tensors, config).items()
        if table[split_layer(name)[0]].parameters
    }
    expected_shapes = _checkpoint_shapes(shapes, config)
    _refuse_missing(tensors, expected_shapes, config)
    if surplus := sorted(file_names[name] for name in parameters.keys() - expected_shapes.keys()):
        raise WeightsError(
            f"The file holds {len(surplus)} tensors that config.json has no use for: {_first_five(surplus)}."
        )
    for name, tensor in parameters.items():
        _check_tensor(file_names[name], tensor, expected_shapes[name], dtype)


def _refuse_missing(tensors: Mapping[str, Tensor], expected: Iterable[str], config: Config) -> None:
    prefix = PREFIXES[config.family]
    present = {name.removeprefix(prefix) for name in tensors}
    missing = set(expected) - present
    if config.tied:  # one of the two is enough
        tied = {UNEMBEDDING, EMBEDDING[config.family]}
        missing -= tied if tied & present else {UNEMBEDDING}
    if missing:
        has_prefix = any(name.startswith(prefix) for name in tensors) or not tensors
        names = sorted(prefix + name if has_prefix and name != UNEMBEDDING else name for name in missing)
        raise WeightsError(f"The file lacks {len(names)} tensors that config.json promises: {_first_five(names)}.")


def _check_tensor(name: str, tensor: Tensor, expected_shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != expected_shape:
        raise WeightsError(f"{name} has the shape {tuple(tensor.shape)}; config.json says {expected_shape}.")
    if tensor.dtype not in DTYPES:
        raise WeightsError(
            f"{name} holds numbers of the type {_dtype_name(tensor.dtype)}, so the model is quantized. Lookback "
            f"reads {', '.join(map(_dtype_name, DTYPES))}: dequantize the model and save it again."
        )
    _refuse_non_finite(name, tensor, dtype)


def _refuse_non_finite(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    low, high = (float(extreme) for extreme in torch.aminmax(tensor))  # NaN if there is one
    limit = torch.finfo(dtype).max
    if -limit <= low and high <= limit:
        return
    n_nan, n_inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    kinds = [f"{n} {kind}" for n, kind in ((n_nan, "NaN"), (n_inf, "infinite")) if n]
    kinds = kinds or [f"numbers too large for {_dtype_name(dtype)} ({max(-low, high):.3g})"]
    raise WeightsError(
        f"{name} holds {' and '.join(kinds)} among its {tensor.numel():,} numbers, so every prediction would be "
        "wrong. Take an earlier checkpoint, or save this one again."
    )


def _checkpoint_shapes(shapes: Mapping[str, tuple[int, ...]], config: Config) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a checkpoint should have, by its name there without the prefix."""
    checkpoint_shapes = {}
    for name, target, parameters in entries(config):
        parts = [shapes[parameter] for parameter in parameters if parameter in shapes]
        if parts:
            shape = (sum(n_outputs for n_outputs, *_ in parts), *parts[0][1:])
            checkpoint_shapes[name] = shape[::-1] if target.transposed else shape
    return checkpoint_shapes


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
