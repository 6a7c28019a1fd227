"""What a reply needs of a Trace, as NumPy arrays and plain values. Torch stops here.

These functions run in the worker thread.
"""

# shapes: L chosen layers, H chosen heads, G key heads, T tokens, R chosen rows, C columns, P thumbnail pixels,
#         S norm sites, K statistics, D features of a head, V vocabulary

import math
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from app.figures import HeadMask, Window
from model import attention
from model.edits import Edits
from model.sites import STATISTICS, Stage, norm_sites
from model.tokenizer import Tokenizer, Tokens, token_label
from model.trace import NonFiniteNumber, Trace, is_finite

N_THUMBNAIL = 64  # pixels of a thumbnail's side, at most
N_BLOCK = 2_000_000  # weights computed at a time: 8 MB, which fits in a processor's caches
N_ROWS = 128  # rows of logits computed at a time; one row of SmolLM2 is 200 kB


class TokenFields(TypedDict):
    """A token as every reply shows it; schemas.TokenInfo describes the fields."""

    position: int
    id: int
    text: str
    bytes: str
    start: int
    end: int


class DroppedFields(TypedDict):
    """A character that is not in the vocabulary; schemas.DroppedInfo describes the fields."""

    start: int
    end: int
    text: str


class TextFields(TypedDict):
    """The tokens of a text and the characters that were dropped."""

    tokens: list[TokenFields]
    dropped: list[DroppedFields]


class NextTokenFields(TypedDict):
    """A possible next token; schemas.NextToken describes the fields."""

    id: int
    text: str
    bytes: str
    logit: float
    probability: float


class PredictionFields(TypedDict):
    """The next-token distribution after one token; schemas.Prediction describes the fields."""

    position: int
    top: list[NextTokenFields]
    entropy_bits: float
    surprisal_bits: float | None


def tokens(text: Tokens, first: int = 0) -> TextFields:
    """The tokens of a text from position `first` on, and all characters that were dropped."""
    return {
        "tokens": [
            {
                "position": token.position,
                "id": token.id,
                "text": token_label(token.bytes),
                "bytes": token.bytes.hex(),
                "start": token.start,
                "end": token.end,
            }
            for token in text.tokens[first:]
        ],
        "dropped": [{"start": drop.start, "end": drop.end, "text": drop.text} for drop in text.dropped],
    }


def stages(trace: Trace, stage: Stage, layers: Sequence[int], heads: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """One stage of some heads, (H, T, T) for one layer after another; masked scores are -inf."""
    for layer in layers:
        yield trace.stage(stage, layer, heads).cpu().numpy()


def mask(n_tokens: int) -> NDArray[np.bool_]:
    """The causal mask, (T, T): True where a query (row) may attend to a key (column)."""
    return np.tri(n_tokens, dtype=np.bool_)


def norms(trace: Trace) -> list[dict[str, object]]:
    """The statistics of every norm site, as schemas.NormStatistics has them; each is an array, one number per token."""
    values_KST = np.ascontiguousarray(trace.norms_STK.permute(2, 0, 1).cpu().numpy())
    return [
        {"site": site.name, "layer": site.layer, "kind": site.kind, "eps": site.eps}
        | dict(zip(STATISTICS, values_KST[:, s], strict=True))
        for s, site in enumerate(norm_sites(trace.model.config))
    ]


def norm_table(trace: Trace) -> dict[str, NDArray[np.float32]]:
    """Mean, variance and rms before each norm, (T, S) each: one row per token."""
    norms_TSK = trace.norms_STK.transpose(0, 1).cpu().numpy()
    return {name: np.ascontiguousarray(norms_TSK[:, :, STATISTICS.index(name)]) for name in ("mean", "variance", "rms")}


@torch.inference_mode()
def predictions(
    trace: Trace, ids: Sequence[int], tokenizer: Tokenizer, positions: Sequence[int], top: int
) -> list[PredictionFields]:
    """The likeliest next tokens after each position, with entropy and, where the next token is known, surprisal."""
    rows: list[PredictionFields] = []
    for first in range(0, len(positions), N_ROWS):
        chunk = positions[first : first + N_ROWS]
        next_ids = [ids[position + 1] if position + 1 < len(ids) else None for position in chunk]
        log_p_RV = (logits_RV := trace.logits(chunk)).log_softmax(-1)
        logits, best = (x.tolist() for x in logits_RV.topk(min(top, logits_RV.shape[-1]), dim=-1))
        probability = log_p_RV.gather(-1, torch.tensor(best, device=log_p_RV.device)).exp().tolist()
        entropy = (-(log_p_RV.exp() * log_p_RV).nansum(-1)).tolist()
        next_R1 = torch.tensor([[id or 0] for id in next_ids], device=log_p_RV.device)
        surprisal = (-log_p_RV.gather(-1, next_R1)[:, 0]).tolist()
        for row, position in enumerate(chunk):
            rows.append(
                {
                    "position": position,
                    "top": [
                        {
                            "id": id,
                            "text": tokenizer.label(id),
                            "bytes": tokenizer.token_bytes(id).hex(),
                            "logit": logit,
                            "probability": p,
                        }
                        for id, logit, p in zip(best[row], logits[row], probability[row], strict=True)
                    ],
                    "entropy_bits": _bits(entropy[row]),
                    "surprisal_bits": None if next_ids[row] is None else _bits(surprisal[row]),
                }
            )
    return rows


def block_size_for(n_tokens: int, n_cells: int) -> int:
    """Tokens per cell so that there are at most `n_cells` cells: 1, 2, 4, …

    A power of two, so that the borders of cells do not move until a growing text is twice as long.

    >>> [block_size_for(n, 64) for n in (64, 65, 2048)]
    [1, 2, 32]
    """
    return 1 << max(0, -(-n_tokens // n_cells) - 1).bit_length()


@torch.inference_mode()
def thumbnails(trace: Trace, layers: range, n_sent: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The weights of all heads of some layers as small pictures, (L, H, rows of pixels, P); 255 is a weight of 1.

    Also the mean weight over heads that each token gives the first token, (L, T).

    A pixel is the largest weight of the block_size_for(T, 64)² cells that it covers, because a mean would hide the
    lines and single cells by which heads differ. The first `n_sent` tokens, which the client already has, are left
    out of both: if they end within a row of pixels, the first row here covers only the rest of it.
    """
    trace.check_finite()
    n, step = trace.n_tokens, block_size_for(trace.n_tokens, N_THUMBNAIL)
    config = trace.model.config
    n_layers = max(1, N_BLOCK // (n * config.n_kv_heads * config.d_head))
    pictures, to_first = [], []
    for begin in range(layers.start, layers.stop, n_layers):
        block = slice(begin, min(begin + n_layers, layers.stop))
        keys_LGTD = torch.cat([chunk.keys_LGTD[block] for chunk in trace.chunks], dim=2).float()
        n_rows = max(step, N_BLOCK // (len(keys_LGTD) * config.n_heads * n) // step * step)
        tops = range(n_sent // step * step, n, n_rows)
        row_blocks = [range(max(top, n_sent), min(top + n_rows, n)) for top in tops]
        results = [_thumbnail_rows(trace, block, rows, keys_LGTD, step) for rows in row_blocks]
        pictures.append(torch.cat([pixels_LHRP for pixels_LHRP, _ in results], dim=2))
        to_first.append(torch.cat([weight_LR for _, weight_LR in results], dim=1))
    to_first_LT = torch.cat(to_first, dim=0)
    if not is_finite(to_first_LT):  # a score overflowed, and its row of weights with it
        layer = layers[int((~to_first_LT.isfinite()).any(dim=1).nonzero()[0])]
        raise NonFiniteNumber(f"layers.{layer}.attention.scores")
    return torch.cat(pictures).cpu().numpy(), to_first_LT.cpu().numpy()


def _thumbnail_rows(trace: Trace, layers: slice, rows: range, keys_LGTD: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Rows of pixels of all heads of some layers, and the mean weight that these queries give the first token."""
    n_keys = rows.stop if trace.edits.is_causal else trace.n_tokens
    weight_LHRC = _weights(trace, layers, rows, keys_LGTD[:, :, :n_keys])
    pooled_LHRP = _largest(weight_LHRC, step, n_above=rows.start % step)
    pixels_LHRP = (pooled_LHRP * 255).round().clamp(max=255).to(torch.uint8)  # dropout makes weights above 1
    side = -(-trace.n_tokens // step)
    return F.pad(pixels_LHRP, (0, side - pixels_LHRP.shape[-1])), weight_LHRC[..., 0].mean(1)


def _weights(trace: Trace, layers: slice, rows: range, keys_LGCD: Tensor) -> Tensor:
    """The weights of all heads of some layers for consecutive queries, on the keys up to the last; (L, H, R, C)."""
    config = trace.model.config
    q_LHRD = torch.cat(
        [
            chunk.queries_LHTD[layers, :, max(rows.start - offset, 0) : rows.stop - offset]
            for offset, chunk in trace.with_offsets()
            if offset < rows.stop and offset + len(chunk) > rows.start
        ],
        dim=2,
    ).float()
    # The query heads that share keys become rows of one matrix. The queries are scaled instead of the scores because
    # they are fewer.
    q_LGRD = attention.scaled(q_LHRD, config.d_head).reshape(len(q_LHRD), config.n_kv_heads, -1, config.d_head)
    scaled_LHRC = attention.scores(q_LGRD, keys_LGCD).view(len(q_LHRD), config.n_heads, len(rows), -1)
    # only the columns from the first of these queries on have masked cells
    scaled_LHRC[..., rows.start :] = attention.masked(scaled_LHRC[..., rows.start :], 0)
    weight_LHRC = attention.weights(scaled_LHRC)
    for number, layer in enumerate(range(layers.start, layers.stop)):
        if trace.edits.touches_attention(layer):
            keys = range(weight_LHRC.shape[-1])
            *_, (_, weight_LHRC[number]) = trace.stages(layer, range(config.n_heads), rows, keys)
    return weight_LHRC


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


HEAD_STAGES: tuple[Stage, ...] = ("scores", "scaled", "weights")  # left of the mask, masked scores are the scaled ones


def head_mask(edits: Edits, layer: int, head: int) -> HeadMask:
    """Which cells of a head may be masked."""
    if edits.sees_later(layer, head):
        return "none"
    return "edited" if edits.touches_attention(layer) else "causal"


def _head_stages(edits: Edits, layer: int) -> tuple[Stage, ...]:
    """The stages of a head that cannot be told from the others."""
    return (*HEAD_STAGES, "masked") if edits.touches_attention(layer) else HEAD_STAGES


@torch.inference_mode()
def head_cells(
    trace: Trace, layer: int, head: int, window: Window, n_sent_cells: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Scores, scaled scores and weights of one head in a window, float32, by name.

    Each cell is the maximum over the numbers it covers. If it covers several, the masked scores come too: on the
    diagonal they differ from the scaled ones. They also come if the attention of the layer is edited.

    If the client already has the first `n_sent_cells` rows and columns of cells of the same window, the result has only
    the rows below them and, as `scores_columns` and `scaled_columns`, the columns to the right of them. (The weights of
    those columns are 0.)
    """
    cells: dict[str, NDArray[np.float32]] = {}
    top, left = window.top + n_sent_cells * window.cell_size, window.left + n_sent_cells * window.cell_size
    below, right = range(top, window.bottom), range(left, window.right)
    for name, values_HRT in trace.stages(layer, [head], below):
        if name in _head_stages(trace.edits, layer) or window.cell_size > 1:
            cells[name] = _cells(values_HRT[..., window.left : window.right], window.cell_size)
    if n_sent_cells:
        for name, values_HRT in trace.stages(layer, [head], range(window.top, top), right):
            if name in ("scores", "scaled"):
                cells[f"{name}_columns"] = _cells(values_HRT, window.cell_size)
    return cells


@torch.inference_mode()
def row(trace: Trace, layer: int, head: int, query: int) -> dict[str, NDArray[np.float32]]:
    """Scores, scaled scores and weights of one query of one head, (T) each, by name; exact.

    The masked scores come too if the attention of the layer is edited.
    """
    stages, names = trace.stages(layer, [head], range(query, query + 1)), _head_stages(trace.edits, layer)
    return {f"row_{name}": values_HRT[0, 0].cpu().numpy() for name, values_HRT in stages if name in names}


def _cells(values_HRC: Tensor, step: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(_largest(values_HRC, step, -math.inf)[0].cpu().numpy())


def _bits(nats: float) -> float:
    return nats / math.log(2)
