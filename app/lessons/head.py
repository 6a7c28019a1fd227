"""One attention head, step by step: its vectors, scores and weights, from the model or from the book's example."""

# shapes: B texts, L layers, H heads, T tokens, D features of a head, M features of a token

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from app.experiments.base import Work, project_head
from app.lessons.book import BOOK, BOOK_NAMES
from model import attention

VectorKind = Literal["queries", "keys", "values", "context vectors"]


@dataclass(frozen=True)
class Head:
    """The vectors, scores and weights of one head; one row per token."""

    labels: list[str]
    vectors: dict[VectorKind, Tensor]  # (T, D) each
    scores_TT: Tensor
    weights_TT: Tensor
    contributions_TT: Tensor


def head_of_model(work: Work, layer: int, head: int, *, swap: bool = False) -> Head:
    """A head as the model computes it; `swap` exchanges queries and keys.

    Queries and keys include rotary positions if the model has them.
    """
    trace, d = work.trace, work.config.d_head
    q_TD, k_TD, v_TD = (rows(layer, [head])[0].cpu() for rows in (trace.queries, trace.keys, trace.values))
    if swap:
        q_TD, k_TD = k_TD, q_TD
    score_TT = attention.scores(q_TD, k_TD)
    weight_TT = attention.attention_weights(score_TT, d)
    output_MD = work.block(layer).attention.output.weight[:, head * d : (head + 1) * d].detach().float().cpu()
    norm_T = (v_TD @ output_MD.T).norm(dim=1)
    vectors = _vectors(q_TD, k_TD, v_TD, weight_TT)
    return Head(work.token_labels, vectors, score_TT, weight_TT, weight_TT * norm_T)


def head_of_book(*, swap: bool = False) -> Head:
    """The book's example (chapter 3.4): three random projections from 3 features to 2, without a mask."""
    generator = torch.Generator().manual_seed(123)
    q_TD, k_TD, v_TD = (BOOK @ torch.rand(3, 2, generator=generator) for _ in range(3))
    if swap:
        q_TD, k_TD = k_TD, q_TD
    score_TT = attention.scores(q_TD, k_TD)
    weight_TT = attention.weights(attention.scaled(score_TT, 2))
    vectors = _vectors(q_TD, k_TD, v_TD, weight_TT)
    return Head(BOOK_NAMES, vectors, score_TT, weight_TT, weight_TT * v_TD.norm(dim=1))


def _vectors(q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, weight_TT: Tensor) -> dict[VectorKind, Tensor]:
    context_TD = attention.context(weight_TT, v_TD)
    return {"queries": q_TD, "keys": k_TD, "values": v_TD, "context vectors": context_TD}


def relative_weights(work: Work, query: int, key: int) -> Tensor:
    """Weight × row length of a query and a key in every head, (L, H): 1 is the weight if all are equal."""
    rows, heads = range(query, query + 1), range(work.config.n_heads)
    layers = [dict(work.trace.stages(layer, heads, rows))["weights"] for layer in range(work.config.n_layers)]
    return torch.stack(layers)[:, :, 0, key].cpu() * (query + 1)


@torch.inference_mode()
def recompute_head(work: Work, layer: int, head: int, *, transpose: bool) -> tuple[Tensor, Tensor]:
    """Weights, (T, T), and context vectors, (T, D), of a head, computed from the input of its layer."""
    block, config, network = work.block(layer), work.config, work.network
    x_TM = work.attention_input(layer)
    d, key_head = config.d_head, config.key_head(head)
    rotate = network.positions.rotation(torch.arange(len(work.tokens), device=network.device))
    projected = []
    for linear, index in (
        (block.attention.query, head),
        (block.attention.key, key_head),
        (block.attention.value, key_head),
    ):
        projected.append(project_head(linear, x_TM[None], index, d)[:, None])
    q_BHTD, k_BHTD = rotate(projected[0]), rotate(projected[1])
    score_TT = attention.scaled(attention.scores(q_BHTD, k_BHTD), d)[0, 0].float()
    weight_TT = attention.weights(attention.masked(score_TT.T if transpose else score_TT))
    return weight_TT.cpu(), attention.context(weight_TT, projected[2][0, 0].float()).cpu()
