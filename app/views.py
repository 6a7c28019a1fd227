"""What one reply needs of a Trace, as NumPy arrays and plain values. Torch stops here.

These run in the worker thread.
"""

# shapes: L chosen layers, H chosen heads, G key heads, T tokens, R chosen rows, C columns, P thumbnail pixels,
#         S norm sites, K statistics, D features of a head, V vocabulary

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from app.figures import Window
from model import attention
from model.tokenizer import Tokenizer, Tokens, show
from model.trace import STATISTICS, NonFiniteNumber, Stage, Trace, is_finite, norm_sites

N_THUMBNAIL = 64  # pixels of a thumbnail's side, at most
N_BLOCK = 2_000_000  # weights made at a time: 8 MB, which a processor's caches hold
N_ROWS = 128  # rows of logits made at a time; one row of SmolLM2 is 200 kB


def tokens(read: Tokens, first: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The tokens of a text from `first` on, and the characters that were dropped, as every reply has them."""
    return {
        "tokens": [
            {
                "position": token.position,
                "id": token.id,
                "text": show(token.bytes),
                "bytes": token.bytes.hex(),
                "start": token.start,
                "end": token.end,
            }
            for token in read.tokens[first:]
        ],
        "dropped": [{"start": lost.start, "end": lost.end, "text": lost.text} for lost in read.dropped],
    }


def stages(trace: Trace, stage: Stage, layers: Sequence[int], heads: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """A stage of some heads, (H, T, T) for one layer after another; masked scores are -inf."""
    for layer in layers:
        yield trace.stage(stage, layer, heads).cpu().numpy()


def mask(n_tokens: int) -> NDArray[np.bool_]:
    """True where query (row) may look at key (column), (T, T)."""
    return np.tri(n_tokens, dtype=np.bool_)


def norms(trace: Trace) -> list[dict[str, Any]]:
    """The statistics of every norm site, a list over tokens each."""
    values_KST = np.ascontiguousarray(trace.norms_STK.permute(2, 0, 1).cpu().numpy())
    return [
        {"site": site.name, "layer": site.layer, "kind": site.kind, "eps": site.eps}
        | {name: values_KST[k, s] for k, name in enumerate(STATISTICS)}
        for s, site in enumerate(norm_sites(trace.model.config))
    ]


def norm_table(trace: Trace) -> dict[str, NDArray[np.float32]]:
    """Mean, variance and rms before the norm, (T, S) each: a row for every token."""
    norms_TSK = trace.norms_STK.transpose(0, 1).cpu().numpy()
    return {name: np.ascontiguousarray(norms_TSK[:, :, STATISTICS.index(name)]) for name in ("mean", "variance", "rms")}


@torch.inference_mode()
def predictions(
    trace: Trace, ids: Sequence[int], tokenizer: Tokenizer, positions: Sequence[int], top: int
) -> list[dict[str, Any]]:
    """The likeliest next tokens after each position, with entropy and, where the next is known, surprisal."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(positions), N_ROWS):
        chunk = positions[first : first + N_ROWS]
        following = [ids[position + 1] if position + 1 < len(ids) else None for position in chunk]
        log_p_RV = (logits_RV := trace.logits(chunk)).log_softmax(-1)
        logits, best = (x.tolist() for x in logits_RV.topk(min(top, logits_RV.shape[-1]), dim=-1))
        probability = log_p_RV.gather(-1, torch.tensor(best, device=log_p_RV.device)).exp().tolist()
        entropy = (-(log_p_RV.exp() * log_p_RV).nansum(-1)).tolist()
        next_R1 = torch.tensor([[id or 0] for id in following], device=log_p_RV.device)
        surprisal = (-log_p_RV.gather(-1, next_R1)[:, 0]).tolist()
        for row, position in enumerate(chunk):
            numbers = zip(best[row], logits[row], probability[row], strict=True)
            found.append(
                {
                    "position": position,
                    "top": [
                        {
                            "id": id,
                            "text": tokenizer.label(id),
                            "bytes": tokenizer.piece(id).hex(),
                            "logit": logit,
                            "probability": p,
                        }
                        for id, logit, p in numbers
                    ],
                    "entropy_bits": _bits(entropy[row]),
                    "surprisal_bits": None if following[row] is None else _bits(surprisal[row]),
                }
            )
    return found


def step_for(n_tokens: int, n_cells: int) -> int:
    """How many tokens share a cell so that there are at most `n_cells`: 1, 2, 4, …

    A power of two, because then a text that grows moves no border between cells until it is twice as long.

    >>> [step_for(n, 64) for n in (64, 65, 2048)]
    [1, 2, 32]
    """
    return 1 << max(0, -(-n_tokens // n_cells) - 1).bit_length()


@torch.inference_mode()
def thumbnails(trace: Trace, layers: range, n_known: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The weights of all heads of some layers as small pictures: rows of pixels, (L, H, R, P), 255 is a weight of 1.

    And for each token the share of its attention that it gives the first, the mean over heads; (L, T).

    A pixel is the largest weight of the step_for(T, 64)² cells that it covers, because a mean would hide the lines and
    single cells that tell heads apart. The first `n_known` tokens, which somebody has already, are left out of both:
    where they end within a row of pixels, the first row here is of the rest of it.
    """
    trace.check_finite()
    n, step = trace.n_tokens, step_for(trace.n_tokens, N_THUMBNAIL)
    config = trace.model.config
    n_layers = max(1, N_BLOCK // (n * config.n_kv_heads * config.d_head))
    pictures, first = [], []
    for begin in range(layers.start, layers.stop, n_layers):
        some = slice(begin, min(begin + n_layers, layers.stop))
        keys_LGTD = torch.cat([stretch.keys_LGTD[some] for stretch in trace.chunks], dim=2).float()
        n_rows = max(step, N_BLOCK // (len(keys_LGTD) * config.n_heads * n) // step * step)
        tops = range(n_known // step * step, n, n_rows)
        blocks = [range(max(top, n_known), min(top + n_rows, n)) for top in tops]
        made = [_thumbnail_rows(trace, some, rows, keys_LGTD[:, :, : rows.stop], step) for rows in blocks]
        pictures.append(torch.cat([pixels_LHRP for pixels_LHRP, _ in made], dim=2))
        first.append(torch.cat([share_LR for _, share_LR in made], dim=1))
    first_LT = torch.cat(first, dim=0)
    if not is_finite(first_LT):  # a score overflowed, and with it its row of weights
        layer = layers[int((~first_LT.isfinite()).any(dim=1).nonzero()[0])]
        raise NonFiniteNumber(f"layers.{layer}.attention.scores")
    return torch.cat(pictures).cpu().numpy(), first_LT.cpu().numpy()


def _thumbnail_rows(trace: Trace, layers: slice, rows: range, keys_LGCD: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Some rows of pixels of all heads of some layers, and what these queries give the first token."""
    weight_LHRC = _weights(trace, layers, rows, keys_LGCD)
    pooled_LHRP = _largest(weight_LHRC, step, n_above=rows.start % step)
    pixels_LHRP = (pooled_LHRP * 255).round().to(torch.uint8)
    side = -(-trace.n_tokens // step)
    return F.pad(pixels_LHRP, (0, side - pixels_LHRP.shape[-1])), weight_LHRC[..., 0].mean(1)


def _weights(trace: Trace, layers: slice, rows: range, keys_LGCD: Tensor) -> Tensor:
    """The weights of all heads of some layers for consecutive queries, with the keys up to the last; (L, H, R, C)."""
    config = trace.model.config
    q_LHRD = torch.cat(
        [
            stretch.queries_LHTD[layers, :, max(rows.start - first, 0) : rows.stop - first]
            for first, stretch in trace.with_offsets()
            if first < rows.stop and first + len(stretch) > rows.start
        ],
        dim=2,
    ).float()
    # The heads that share keys become rows of one matrix, and the queries are scaled: they are fewer than the scores.
    q_LGRD = attention.scaled(q_LHRD, config.d_head).reshape(len(q_LHRD), config.n_kv_heads, -1, config.d_head)
    scaled_LHRC = attention.scores(q_LGRD, keys_LGCD).view(len(q_LHRD), config.n_heads, len(rows), rows.stop)
    # only the last square has anything behind the mask
    scaled_LHRC[..., rows.start :] = attention.masked(scaled_LHRC[..., rows.start :])
    return attention.weights(scaled_LHRC)


def _largest(x_HRC: Tensor, step: int, fill: float = 0.0, n_above: int = 0) -> Tensor:
    """The largest value of each square of `step` × `step`; (…, R/step, C/step).

    Squares at the end are smaller, and those of the first row lack their first `n_above` rows.
    """
    if step == 1:
        return x_HRC
    n_rows, n_columns = x_HRC.shape[-2:]
    margins = (0, -n_columns % step, n_above, -(n_rows + n_above) % step)
    if any(margins):
        x_HRC = F.pad(x_HRC, margins, value=fill)
    *rest, height, width = x_HRC.shape
    rows_HRC = x_HRC.view(*rest, height // step, step, width).amax(-2)  # rows first: ten times as fast as both at once
    return rows_HRC.view(*rest, height // step, width // step, step).amax(-1)


HEAD_STAGES: tuple[Stage, ...] = ("scores", "scaled", "weights")  # masked scores are the scaled ones, left of the mask


@torch.inference_mode()
def head(trace: Trace, layer: int, head: int, window: Window, n_known: int = 0) -> dict[str, NDArray[np.float32]]:
    """Scores, scaled scores and weights of one head in a window, float32, by name; a cell is the largest it covers.

    Where a cell covers several numbers, the masked scores come too: on the diagonal they are not the scaled ones.

    Where the client has the first `n_known` cells a side of the same window already: the rows below them, and, as
    `scores_columns` and `scaled_columns`, the columns to the right of them. (Weights of those columns are 0.)
    """
    found: dict[str, NDArray[np.float32]] = {}
    top, known = window.top + n_known * window.step, window.left + n_known * window.step
    below, right = range(top, window.bottom), range(known, window.right)
    for name, values_HRT in trace.stages(layer, [head], below):
        if name in HEAD_STAGES or window.step > 1:
            found[name] = _cells(values_HRT[..., window.left : window.right], window.step)
    if n_known:
        for name, values_HRT in trace.stages(layer, [head], range(window.top, top), right):
            if name in ("scores", "scaled"):
                found[f"{name}_columns"] = _cells(values_HRT, window.step)
    return found


@torch.inference_mode()
def row(trace: Trace, layer: int, head: int, query: int) -> dict[str, NDArray[np.float32]]:
    """Scores, scaled scores and weights of one query of one head, (T) each, by name; exact."""
    stages = trace.stages(layer, [head], range(query, query + 1))
    return {f"row_{name}": values_HRT[0, 0].cpu().numpy() for name, values_HRT in stages if name in HEAD_STAGES}


def _cells(values_HRC: Tensor, step: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(_largest(values_HRC, step, -math.inf)[0].cpu().numpy())


def _bits(nats: float) -> float:
    return nats / math.log(2)
