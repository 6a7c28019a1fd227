"""What edits do to the numbers: hooks that change a pass, and the edited stages of a head.

A pass and the pictures of its trace use the same functions, so a picture shows what the pass computed with. Rows and
heads that no edit names keep their numbers bit for bit.
"""

# shapes: H query heads, G key heads, N rows of a pass, T queries, S keys, R chosen queries, D features of a head,
#         M features of a token; ... any leading dimensions

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from model import attention
from model.attention import AttentionFn, fused_attention
from model.edits import DROP_TARGETS, Drop, Edit, Edits, Temperature
from model.gpt import GPT, Block
from model.sites import Site, Stage

N_STAGED = 2_000_000  # weights of edited heads computed at a time: 8 MB
_GOLDEN = -7046029254386353131  # 2^64 divided by the golden ratio, as a signed number (Steele et al. 2014, SplitMix)
_MIXERS = ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1))


def edit_vectors(x_NM: Tensor, edits: Sequence[Edit], positions_N: Tensor) -> Tensor:
    """A copy of the vectors with the edits of one site put on; (…, N, M), or (…, H, N, D) at a site with heads.

    `positions_N` are the positions of the rows in their texts.
    """
    x_NM = x_NM.clone()
    for edit in edits:
        is_named_N = positions_N >= edit.first
        if edit.last is not None:
            is_named_N &= positions_N < edit.last
        rows_R = is_named_N.nonzero()[:, 0]
        # Edits has made one edit per head of it
        part_NM = x_NM if edit.heads is None else x_NM[..., edit.heads[0] : edit.heads[0] + 1, :, :]
        part_NM[..., rows_R, :] = _edited(part_NM[..., rows_R, :], edit, positions_N[rows_R] - edit.first)
    return x_NM


def _edited(x_RM: Tensor, edit: Edit, numbers_R: Tensor) -> Tensor:
    """scale·x + add; `numbers_R` are the rows of `add`. A factor of 0 gives 0 for every number."""
    new_RM = edit.scale * x_RM if edit.scale else torch.zeros_like(x_RM)
    if edit.add is None:
        return new_RM
    add_RM = edit.add.tensor.to(x_RM) * edit.add.strength
    if add_RM.dim() >= 2 and add_RM.shape[-2] > 1:
        add_RM = add_RM.index_select(-2, numbers_R)
    return new_RM + add_RM


def drop_vectors(x_NM: Tensor, drop: Drop, layer: int, positions_N: Tensor) -> Tensor:
    """The vectors after dropout whose mask depends only on seed, target, layer and position; (…, N, M)."""
    features_M = torch.arange(x_NM.shape[-1], device=x_NM.device)
    return x_NM * _factors(drop, x_NM, (layer, positions_N[:, None], features_M))


def _factors(drop: Drop, like: Tensor, index: Sequence[int | Tensor]) -> Tensor:
    """0 where a number is dropped, 1 / (1 - rate) where it is not."""
    uniform = random_numbers((drop.seed, DROP_TARGETS.index(drop.target), *index))
    return (uniform >= drop.rate).to(like.dtype) / (1 - drop.rate)


def random_numbers(index: Sequence[int | Tensor]) -> Tensor:
    """Numbers from [0, 1) that depend on nothing but an index of whole numbers, which broadcast; float64.

    Each is a hash of its index (SplitMix64), so that any part of a matrix can be drawn by itself and in any order.
    """
    state: Tensor = torch.zeros((), dtype=torch.int64)
    for number in index:
        state = _mix((state.to(number.device) if isinstance(number, Tensor) else state) + number + _GOLDEN)
    return _shift(state, 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    for n_bits, factor in _MIXERS:
        x = (x ^ _shift(x, n_bits)) * factor
    return x


def _shift(x: Tensor, n_bits: int) -> Tensor:
    """A shift to the right that brings in zeros, which torch's shift of a negative number does not."""
    return (x >> n_bits) & ((1 << (64 - n_bits)) - 1)


@dataclass(frozen=True)
class Cells:
    """A part of the stages of a layer, (H, R, S): consecutive queries and keys of some heads, by their positions."""

    layer: int
    heads: Sequence[int]
    rows: range
    keys: range


def edited_stages(edits: Edits, cells: Cells, q_HRD: Tensor, k_HSD: Tensor) -> Iterator[tuple[Stage, Tensor]]:
    """The stages of these cells under edits, in their order, each (H, R, S). Queries and keys are edited already."""
    score_HRS = attention.scores(q_HRD, k_HSD)
    _edit_scores(score_HRS, edits, cells)
    yield "scores", score_HRS
    scaled_HRS = attention.scaled(score_HRS, q_HRD.shape[-1])
    for temperature in edits.of(Temperature):
        for number, head in enumerate(cells.heads):
            if temperature.names(cells.layer, head):
                scaled_HRS[number] /= temperature.value
    yield "scaled", scaled_HRS
    masked_HRS = attention.masked(scaled_HRS, cells.rows.start - cells.keys.start)
    _edit_mask(masked_HRS, scaled_HRS, edits, cells)
    yield "masked", masked_HRS
    weight_HRS = attention.weights(masked_HRS)
    for drop in edits.drops("weights", cells.layer):
        weight_HRS = weight_HRS * _weight_factors(drop, weight_HRS, cells)
    yield "weights", weight_HRS


def _edit_scores(score_HRS: Tensor, edits: Edits, cells: Cells) -> None:
    if not (scores_edits := edits.at("scores", cells.layer)):
        return
    positions_R = torch.arange(cells.rows.start, cells.rows.stop, device=score_HRS.device)
    for number, head in enumerate(cells.heads):
        own = [edit.on_head(head) for edit in scores_edits if edit.is_on(head)]
        score_HRS[number] = edit_vectors(score_HRS[number], own, positions_R)


def _edit_mask(masked_HRS: Tensor, scaled_HRS: Tensor, edits: Edits, cells: Cells) -> None:
    rows, keys = cells.rows, cells.keys
    for number, head in enumerate(cells.heads):
        if edits.sees_later(cells.layer, head):
            masked_HRS[number] = scaled_HRS[number]
    numbers = {head: number for number, head in enumerate(cells.heads)}
    for cut in edits.cuts(cells.layer):
        if cut.head in numbers and cut.query in rows and cut.key in keys:
            masked_HRS[numbers[cut.head], cut.query - rows.start, cut.key - keys.start] = -torch.inf


def _weight_factors(drop: Drop, weight_HRS: Tensor, cells: Cells) -> Tensor:
    axes = (torch.tensor(list(numbers), device=weight_HRS.device) for numbers in (cells.heads, cells.rows, cells.keys))
    heads_H, rows_R, keys_S = axes
    return _factors(drop, weight_HRS, (cells.layer, heads_H[:, None, None], rows_R[:, None], keys_S))


def attention_fn(edits: Edits, layer: int) -> AttentionFn:
    """The attention function of a layer under edits, for one text: queries of its last tokens, keys of all.

    Everything is computed by the fused kernel; then the rows of heads that an edit names are computed again, stage by
    stage in float32, and written over it.
    """
    return partial(_attend, edits, layer) if edits.touches_attention(layer) else fused_attention


def _attend(edits: Edits, layer: int, q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor) -> Tensor:
    context_BHTD = fused_attention(q_BHTD, k_BGSD, v_BGSD)
    n_heads, n_queries = q_BHTD.shape[1:3]
    n_kv_heads, n_keys = k_BGSD.shape[1:3]
    queries = range(n_keys - n_queries, n_keys)
    for rows, heads in _touched(edits, layer, n_heads, queries):
        span = range(rows[0], rows[-1] + 1)
        keys = range(span.stop if edits.is_causal else n_keys)
        key_heads = [head // (n_heads // n_kv_heads) for head in heads]
        q_HRD = q_BHTD[0, heads, span.start - queries.start : span.stop - queries.start].float()
        k_HSD, v_HSD = (x_BGSD[0, key_heads, : len(keys)].float() for x_BGSD in (k_BGSD, v_BGSD))
        *_, (_, weight_HRS) = edited_stages(edits, Cells(layer, heads, span, keys), q_HRD, k_HSD)
        rows_R = torch.tensor(rows, device=q_BHTD.device)
        new_HRD = attention.context(weight_HRS, v_HSD)[:, rows_R - span.start]
        context_BHTD[0, torch.tensor(heads)[:, None], rows_R - queries.start] = new_HRD.to(context_BHTD.dtype)
    return context_BHTD


def _touched(edits: Edits, layer: int, n_heads: int, queries: range) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """The rows of each head that edits of its attention name; a few heads with the same rows at a time."""
    heads_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for head in range(n_heads):
        if rows := edits.touched_rows(layer, head, queries):
            heads_of[tuple(rows)].append(head)
    for touched, heads in heads_of.items():
        n_at_once = max(1, N_STAGED // ((touched[-1] + 1 - touched[0]) * queries.stop))
        for first in range(0, len(heads), n_at_once):
            yield touched, heads[first : first + n_at_once]


@contextmanager
def editing(model: GPT, edits: Edits, positions_N: Tensor) -> Iterator[None]:
    """Register the hooks that change vectors for the duration of the context; they are removed even after an error.

    Hooks that observe must be registered later, so that they see what was changed. Attention functions are not
    changed here (`attention_fn`).
    """
    with ExitStack() as hooks:
        if change := _vector_change(edits, "embedding", None, positions_N):
            hooks.enter_context(model.dropout.register_forward_hook(change))
        for layer, block in enumerate(model.blocks) if edits else ():
            assert isinstance(block, Block)
            modules: dict[Site, nn.Module] = {"attention": block.attention, "mlp": block.mlp, "block": block}
            modules["context"] = block.attention.heads
            for site, module in modules.items():
                if change := _vector_change(edits, site, layer, positions_N):
                    hooks.enter_context(module.register_forward_hook(change))
            if any(edits.at(site, layer) for site in HEAD_INPUTS):
                change_inputs = partial(_change_inputs, edits, layer, positions_N)
                hooks.enter_context(block.attention.heads.register_forward_pre_hook(change_inputs))
        yield


HEAD_INPUTS: tuple[Site, ...] = ("queries", "keys", "values")
OutputHook = Callable[[nn.Module, Any, Tensor], Tensor]


def _vector_change(edits: Edits, site: Site, layer: int | None, positions_N: Tensor) -> OutputHook | None:
    """A forward hook that changes the output of a module; None if no edit does."""
    vector_edits = edits.at(site, layer)
    drops = edits.drops(site, layer) if site in DROP_TARGETS else ()
    if not (vector_edits or drops):
        return None

    def change(_: nn.Module, __: object, output_NM: Tensor) -> Tensor:
        changed_NM = edit_vectors(output_NM, vector_edits, positions_N)
        for drop in drops:
            changed_NM = drop_vectors(changed_NM, drop, 0 if layer is None else layer, positions_N)
        return changed_NM

    return change


def _change_inputs(
    edits: Edits, layer: int, positions_N: Tensor, _: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """A forward pre-hook of `Heads`: change queries, keys and values."""
    changed = [
        edit_vectors(x, own, positions_N) if (own := edits.at(site, layer)) else x
        for site, x in zip(HEAD_INPUTS, inputs[:3], strict=True)
    ]
    return (*changed, *inputs[3:])
