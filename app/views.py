"""What one reply needs of a Trace, as NumPy arrays and plain values. Torch stops here.

These run in the worker thread.
"""

# shapes: L chosen layers, H chosen heads, T tokens, P thumbnail pixels, S norm sites, K statistics, V vocabulary

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from model.tokenizer import Tokenizer, Tokens, show
from model.trace import STATISTICS, Stage, Trace, norm_sites

N_THUMBNAIL = 64  # pixels of a thumbnail's side, at most
N_ROWS = 128  # rows of logits made at a time; one row of SmolLM2 is 200 kB


def tokens(read: Tokens) -> dict[str, list[dict[str, Any]]]:
    """The tokens of a text and the characters that were dropped, as every reply has them."""
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
            for token in read.tokens
        ],
        "dropped": [{"start": lost.start, "end": lost.end, "text": lost.text} for lost in read.dropped],
    }


def attention(trace: Trace, stage: Stage, layers: Sequence[int], heads: Sequence[int]) -> NDArray[np.float32]:
    """A stage of some heads, (L, H, T, T); masked scores are -inf."""
    return np.stack([trace.stage(stage, layer, heads).cpu().numpy() for layer in layers])


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
    return {
        name: np.ascontiguousarray(trace.norms_STK[:, :, STATISTICS.index(name)].T.cpu().numpy())
        for name in ("mean", "variance", "rms")
    }


@torch.inference_mode()
def predictions(
    trace: Trace, ids: Sequence[int], tokenizer: Tokenizer, positions: Sequence[int], top: int
) -> list[dict[str, Any]]:
    """The likeliest next tokens after each position, with entropy and, where the next is known, surprisal."""
    found = []
    for first in range(0, len(positions), N_ROWS):
        chunk = positions[first : first + N_ROWS]
        logits_RV = trace.logits(chunk)
        log_p_RV = logits_RV.log_softmax(-1)
        nats_R = -(log_p_RV.exp() * log_p_RV).nansum(-1)
        top_R = logits_RV.topk(min(top, logits_RV.shape[-1]), dim=-1)
        for row, position in enumerate(chunk):
            following = ids[position + 1] if position + 1 < len(ids) else None
            best = [
                {
                    "id": id,
                    "text": show(tokenizer.piece(id)),
                    "logit": logit,
                    "probability": float(log_p_RV[row, id].exp()),
                }
                for id, logit in zip(top_R.indices[row].tolist(), top_R.values[row].tolist(), strict=True)
            ]
            surprisal = None if following is None else _bits(-log_p_RV[row, following])
            found.append(
                {"position": position, "top": best, "entropy_bits": _bits(nats_R[row]), "surprisal_bits": surprisal}
            )
    return found


@torch.inference_mode()
def thumbnails(trace: Trace) -> tuple[NDArray[np.uint8], float]:
    """The weights of all heads as small pictures, (layers, heads, P, P): 255 is a weight of 1.

    And the share of their attention that all tokens but the first give the first, the mean over all heads.

    Up to 64 tokens a pixel is a cell. Beyond, a pixel is the largest weight of the cells that it covers, because a
    mean would hide the lines and single cells that tell heads apart.
    """
    n_heads = trace.model.config.n_heads
    pictures, first = [], []
    for layer in range(trace.model.config.n_layers):
        weight_HTT = trace.stage("weights", layer, range(n_heads))
        first.append(weight_HTT[:, 1:, 0].mean())
        if trace.n_tokens > N_THUMBNAIL:
            weight_HTT = F.adaptive_max_pool2d(weight_HTT, N_THUMBNAIL)
        pictures.append((weight_HTT * 255).round().to(torch.uint8))
    return torch.stack(pictures).cpu().numpy(), float(torch.stack(first).mean())


def head(trace: Trace, layer: int, head: int) -> dict[str, NDArray[np.float32]]:
    """Scores, scaled scores and weights of one head, (T, T) each. The masked scores are the scaled ones, masked."""
    return {name: values_HTT[0].cpu().numpy() for name, values_HTT in trace.stages(layer, [head]) if name != "masked"}


def _bits(nats: torch.Tensor) -> float:
    return float(nats) / float(np.log(2.0))
