"""Many heads set to 0, one at a time: what each reading under one edit would give, for a fraction of the time.

Below its layer, a reading without a head is the unedited one, so each starts at its own layer, and readings of equal
length go through the layers above it as one batch. The numbers are those of `read` under
`Edit("context", layer, heads=(head,), first=first, scale=0)`, to within rounding.
"""

# shapes: B readings, one per head; H query heads, G key heads, R new rows of each text, N rows of all readings that
#         share a key head, S earlier tokens, D features of a head, M features of a token

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from model import attention
from model.attention import AttentionFn, fused_attention
from model.trace import Trace

Head = tuple[int, int]  # layer, head

N_BATCH_ROWS = 256  # rows of a batch, at most, unless one text has more
N_STEP_ROWS = 1024  # rows times layers from one step to the next: some tens of milliseconds for SmolLM2


@dataclass(frozen=True, eq=False)
class SweepStep:
    """One step of a sweep: the heads whose readings are complete, and how far the sweep is."""

    heads: Sequence[Head]
    hidden_BRM: Tensor | None  # of these heads, after the final norm, from the first changed row on; None without heads
    n_done: int  # rows times layers
    n_total: int


def sweep_heads(trace: Trace, heads: Sequence[Head], first: int) -> Iterator[SweepStep]:
    """Set the context vectors of each head to 0 at the positions from `first` on, in a reading of its own.

    The trace is of the unedited model and holds the sites embedding and block (only embedding, if `first` is the last
    position and a head is in layer 0). Steps are of bounded length, so that a caller can do other work in between; they
    are longer only where a single text has more than N_BATCH_ROWS rows. With `first` at the last position, all readings
    become complete in the last step.

    Raises:
        ValueError: at once, if the trace is edited, if it lacks a site, if there is no head, or if `first` or a head
            does not exist.
    """
    config = trace.model.config
    if trace.edits:
        raise ValueError("a sweep starts from the unedited trace")
    if not 0 <= first < trace.n_tokens:
        raise ValueError(f"first is {first}; this text has {trace.n_tokens} tokens")
    for layer, head in heads:
        if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
            raise ValueError(f"head {layer}.{head} does not exist; this model has {config.n_layers}×{config.n_heads}")
    if not heads:
        raise ValueError("a sweep needs at least one head")
    ordered = sorted(set(heads))
    is_last = first == trace.n_tokens - 1
    if (
        missing := {"block" if layer else "embedding" for layer, _ in (ordered[:1] if is_last else ordered)}
        - trace.sites
    ):
        raise ValueError(f"a sweep starts from {' and '.join(sorted(missing))}, which was not observed")
    return _sweep_last_row(trace, ordered) if is_last else _sweep_rows(trace, ordered, first)


@torch.inference_mode()
def _sweep_last_row(trace: Trace, heads: Sequence[Head]) -> Iterator[SweepStep]:
    """One walk through the layers with a growing batch of rows; row 0 is the unedited one."""
    model, last, lowest = trace.model, trace.n_tokens - 1, heads[0][0]
    rotate = model.positions.rotation(torch.tensor([last], device=model.device))
    of_layer = {layer: [head for _, head in group] for layer, group in groupby(heads, key=lambda head: head[0])}
    n_layers = model.config.n_layers
    n_total = n_layers - lowest + sum(n_layers - layer for layer, _ in heads)
    x_B1M = trace.residual(lowest)[None, last:]
    n_done = n_since = 0
    for layer in range(lowest, n_layers):
        off = of_layer.get(layer, [])
        x_B1M = torch.cat((x_B1M, x_B1M[:1].expand(len(off), -1, -1)))
        shared = partial(_attend_to_shared, *earlier_keys_and_values(trace, layer, last))
        x_B1M = model.blocks[layer](x_B1M, rotate, _without_heads(shared, off))
        n_done, n_since = n_done + len(x_B1M), n_since + len(x_B1M)
        if n_since >= N_STEP_ROWS and n_done < n_total:
            yield SweepStep((), None, n_done, n_total)
            n_since = 0
    yield SweepStep(heads, model.norm_final(x_B1M[1:]), n_done, n_total)


@torch.inference_mode()
def _sweep_rows(trace: Trace, heads: Sequence[Head], first: int) -> Iterator[SweepStep]:
    """The heads of one layer after another, as many texts in a batch as N_BATCH_ROWS allows."""
    model, n_rows = trace.model, trace.n_tokens - first
    rotate = model.positions.rotation(torch.arange(first, trace.n_tokens, device=model.device))
    n_texts = max(1, N_BATCH_ROWS // n_rows)
    n_total = n_rows * sum(model.config.n_layers - layer for layer, _ in heads)
    n_done = n_since = 0
    for layer, group in groupby(heads, key=lambda head: head[0]):
        of_layer = list(group)
        for batch in (of_layer[i : i + n_texts] for i in range(0, len(of_layer), n_texts)):
            x_BRM = trace.residual(layer)[first:].expand(len(batch), -1, -1)
            for upper in range(layer, model.config.n_layers):
                attend = partial(_attend_after, *earlier_keys_and_values(trace, upper, first))
                off = [head for _, head in batch] if upper == layer else []
                x_BRM = model.blocks[upper](x_BRM, rotate, _without_heads(attend, off))
                n_done, n_since = n_done + len(batch) * n_rows, n_since + len(batch) * n_rows
                if n_since >= N_STEP_ROWS and upper < model.config.n_layers - 1:
                    yield SweepStep((), None, n_done, n_total)
                    n_since = 0
            yield SweepStep(batch, model.norm_final(x_BRM), n_done, n_total)
            n_since = 0


def earlier_keys_and_values(trace: Trace, layer: int, n_tokens: int) -> tuple[Tensor, Tensor]:
    """The keys and values of the first tokens in one layer, (G, S, D) each, in the model's dtype."""
    keys_GSD = torch.cat([chunk.keys_LGTD[layer] for chunk in trace.chunks], dim=1)
    values_GSD = torch.cat([chunk.values_LGTD[layer] for chunk in trace.chunks], dim=1)
    return keys_GSD[:, :n_tokens], values_GSD[:, :n_tokens]


def _without_heads(attend: AttentionFn, heads: Sequence[int]) -> AttentionFn:
    """An attention function of which the last readings of the batch lack one head each."""

    def attend_without(q_BHRD: Tensor, k_BGRD: Tensor, v_BGRD: Tensor) -> Tensor:
        context_BHRD = attend(q_BHRD, k_BGRD, v_BGRD)
        for number, head in enumerate(heads, start=len(context_BHRD) - len(heads)):
            context_BHRD[number, head] = 0
        return context_BHRD

    return attend_without


def _attend_after(keys_GSD: Tensor, values_GSD: Tensor, q_BHRD: Tensor, k_BGRD: Tensor, v_BGRD: Tensor) -> Tensor:
    """Attention of rows to the same earlier tokens and to the rows of their own text; (B, H, R, D)."""
    n_texts = len(q_BHRD)
    keys_BGTD = torch.cat((keys_GSD.expand(n_texts, -1, -1, -1), k_BGRD), dim=2)
    return fused_attention(q_BHRD, keys_BGTD, torch.cat((values_GSD.expand(n_texts, -1, -1, -1), v_BGRD), dim=2))


def _attend_to_shared(keys_GSD: Tensor, values_GSD: Tensor, q_BHRD: Tensor, k_BGRD: Tensor, v_BGRD: Tensor) -> Tensor:
    """The same for one row per text: the earlier tokens are one matrix for all rows, instead of a copy per row."""
    n_texts, n_heads, _, d_head = q_BHRD.shape
    n_kv_heads = len(keys_GSD)
    q_GBND = attention.scaled(q_BHRD, d_head).view(n_texts, n_kv_heads, -1, d_head).transpose(0, 1)
    score_GNS = q_GBND.flatten(1, 2) @ keys_GSD.mT
    own_GN1 = (q_GBND @ k_BGRD.transpose(0, 1).mT).flatten(1, 2)
    weight_GNT = attention.weights(torch.cat((score_GNS, own_GN1), dim=-1).float()).to(q_BHRD.dtype)
    context_GND = weight_GNT[..., :-1] @ values_GSD
    own_GBN1 = weight_GNT[..., -1:].reshape(n_kv_heads, n_texts, -1, 1)
    context_GBND = context_GND.view(q_GBND.shape) + own_GBN1 * v_BGRD.transpose(0, 1)
    return context_GBND.transpose(0, 1).reshape(n_texts, n_heads, 1, d_head)
