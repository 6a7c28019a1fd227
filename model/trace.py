"""Trace: what was observed while a model read a text, and any stage of any head on demand.

A trace keeps queries, keys and values, never an n×n matrix: those are computed when they are needed. reading.py makes
traces.
"""

# shapes: L layers, H query heads, G key heads, T tokens of a text, R chosen rows, S keys or norm sites,
#         K statistics, D features of a head, M features of a token, V tokens of the vocabulary

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from model import attention
from model.gpt import GPT
from model.sites import STATISTICS, Stage

# Tokens per chunk. Larger chunks cost more to copy where two texts start to differ; smaller ones cost more to
# concatenate, because there are more of them.
N_CHUNK = 32


class NonFiniteNumber(ArithmeticError):
    """A forward pass overflowed: some of its numbers are infinite or NaN, and so is what is computed from them."""

    def __init__(self, place: str) -> None:
        super().__init__(f"the numbers of this pass are no longer finite at {place}")
        self.place = place  # the first such place: layers.3.norm_1, layers.3.attention.scores, logits


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive tokens of a text with all that was observed of them. Traces of texts that begin alike share them."""

    queries_LHTD: Tensor  # as attention uses them: split into heads, rotated
    keys_LGTD: Tensor
    values_LGTD: Tensor
    norms_STK: Tensor  # float32; K as in STATISTICS
    hidden_TM: Tensor  # after the final norm

    def __len__(self) -> int:
        return len(self.hidden_TM)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the fields."""
        return self.queries_LHTD, self.keys_LGTD, self.values_LGTD, self.norms_STK, self.hidden_TM

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def non_finite(self) -> str | None:
        """The first place of the network with a number that is not finite; None if there is none."""
        if all(is_finite(tensor) for tensor in self.tensors):
            return None
        for layer, (norm_1_TK, norm_2_TK) in enumerate(zip(self.norms_STK[:-1:2], self.norms_STK[1::2], strict=True)):
            for name, tensor in (
                (f"layers.{layer}.norm_1", norm_1_TK),
                (f"layers.{layer}.attention.query", self.queries_LHTD[layer]),
                (f"layers.{layer}.attention.key", self.keys_LGTD[layer]),
                (f"layers.{layer}.attention.value", self.values_LGTD[layer]),
                (f"layers.{layer}.norm_2", norm_2_TK),
            ):
                if not is_finite(tensor):
                    return name
        return "norm_final"

    def slice(self, first: int, last: int) -> "Chunk":
        """A copy of the tokens from `first` up to, but not including, `last`."""
        return Chunk(*(t.narrow(_TOKEN_AXES[i], first, last - first).clone() for i, t in enumerate(self.tensors)))

    def append(self, later: "Chunk") -> "Chunk":
        """A new chunk of these tokens followed by those of `later`."""
        pairs = zip(self.tensors, later.tensors, strict=True)
        return Chunk(*(torch.cat(pair, dim=_TOKEN_AXES[i]) for i, pair in enumerate(pairs)))


_TOKEN_AXES = (-2, -2, -2, -2, 0)  # the axis of the tokens, in the order of Chunk.tensors


@dataclass(frozen=True, eq=False)
class Trace:
    """All that was observed while a model read one text. Tensors stay on the model's device.

    Tokens are stored in chunks of N_CHUNK; the last chunk may be shorter. Full chunks are never copied: a text that
    continues another shares them with it.
    """

    model: GPT
    chunks: tuple[Chunk, ...]
    _logits: dict[int, Tensor] = field(default_factory=dict)  # by row; those that were computed in a batch

    @property
    def n_tokens(self) -> int:
        """The number of tokens read."""
        return sum(map(len, self.chunks))

    @property
    def n_bytes(self) -> int:
        """Memory of this trace; it grows with the number of tokens, not with its square."""
        return sum(chunk.n_bytes for chunk in self.chunks) + self.own_bytes

    @property
    def own_bytes(self) -> int:
        """Memory that no other trace can share."""
        return sum(logits_V.nbytes for logits_V in self._logits.values())

    def check_finite(self) -> None:
        """Refuse a trace whose forward pass overflowed. Every method that returns numbers calls this first.

        Raises:
            NonFiniteNumber: with the first place that is not finite.
        """
        places = [chunk.non_finite for chunk in self.chunks]
        if place := next(filter(None, places), None):
            raise NonFiniteNumber(place)

    @property
    def norms_STK(self) -> Tensor:
        """The statistics of every norm site; float32, K as in STATISTICS.

        Raises:
            NonFiniteNumber: if the forward pass overflowed.
        """
        self.check_finite()
        return torch.cat([chunk.norms_STK for chunk in self.chunks], dim=1)

    @property
    def residual_norm_LT(self) -> Tensor:
        """The Euclidean length of the residual stream after each block: the input of the next norm."""
        rms_LT = self.norms_STK[2::2, :, STATISTICS.index("rms")]
        return rms_LT * math.sqrt(self.model.config.d_model)

    @property
    def hidden_TM(self) -> Tensor:
        """The residual stream after the final norm."""
        self.check_finite()
        return torch.cat([chunk.hidden_TM for chunk in self.chunks])

    def with_offsets(self) -> Iterator[tuple[int, Chunk]]:
        """The chunks, each with the position of its first token."""
        for number, chunk in enumerate(self.chunks):
            yield number * N_CHUNK, chunk

    def queries(self, layer: int, heads: Sequence[int], rows: range | None = None) -> Tensor:
        """The queries of some heads of a layer as attention uses them, (H, R, D), float32; `rows` are consecutive."""
        return _select_tokens([chunk.queries_LHTD[layer] for chunk in self.chunks], rows)[list(heads)].float()

    def keys(self, layer: int, heads: Sequence[int], keys: range | None = None) -> Tensor:
        """The keys that some query heads of a layer use, (H, S, D), float32; `keys` are consecutive positions."""
        return _select_tokens([chunk.keys_LGTD[layer] for chunk in self.chunks], keys)[self._key_heads(heads)].float()

    def values(self, layer: int, heads: Sequence[int]) -> Tensor:
        """The values that some query heads of a layer use, (H, T, D), float32."""
        return _select_tokens([chunk.values_LGTD[layer] for chunk in self.chunks], None)[self._key_heads(heads)].float()

    def stages(
        self, layer: int, heads: Sequence[int], rows: range | None = None, keys: range | None = None
    ) -> Iterator[tuple[Stage, Tensor]]:
        """The stages of some heads of a layer in their order, each (H, R, S), one row per query; float32.

        `rows` and `keys` restrict them to consecutive queries and keys. Weights need all keys from the first token up
        to the last query.

        Raises:
            NonFiniteNumber: if the forward pass or these scores overflowed.
        """
        self.check_finite()
        q_HRD, k_HSD = self.queries(layer, heads, rows), self.keys(layer, heads, keys)
        score_HRS = attention.scores(q_HRD, k_HSD)
        if not is_finite(score_HRS):
            raise NonFiniteNumber(f"layers.{layer}.attention.scores")
        yield "scores", score_HRS
        yield "scaled", (scaled_HRS := attention.scaled(score_HRS, self.model.config.d_head))
        offset = (rows.start if rows else 0) - (keys.start if keys else 0)
        yield "masked", (masked_HRS := attention.masked(scaled_HRS, offset))
        yield "weights", attention.weights(masked_HRS)

    @torch.inference_mode()
    def stage(self, stage: Stage, layer: int, heads: Sequence[int]) -> Tensor:
        """One stage of some heads of a layer, (H, T, T), one row per query; float32."""
        return next(values_HTT for name, values_HTT in self.stages(layer, heads) if name == stage)

    @torch.inference_mode()
    def context(self, layer: int, heads: Sequence[int]) -> Tensor:
        """The context vectors of some heads of a layer, (H, T, D); float32."""
        return attention.context(self.stage("weights", layer, heads), self.values(layer, heads))

    @torch.inference_mode()
    def logits(self, rows: Sequence[int]) -> Tensor:
        """Logits after each token of `rows`: the score of every token as the next one; (R, V), float32.

        Raises:
            NonFiniteNumber: if the forward pass or these logits overflowed.
        """
        self.check_finite()
        if all(row in self._logits for row in rows):
            logits_RV = torch.stack([self._logits[row] for row in rows])
        else:
            logits_RV = self.model.unembed(self.hidden_TM[list(rows)]).float()
        if not is_finite(logits_RV):
            raise NonFiniteNumber("logits")
        return logits_RV

    def prefix(self, n_tokens: int) -> "Trace":
        """The trace of the first `n_tokens` of this text: later tokens never change earlier rows."""
        n_full, n_rest = divmod(n_tokens, N_CHUNK)
        rest = (self.chunks[n_full].slice(0, n_rest),) if n_rest else ()
        return Trace(self.model, self.chunks[:n_full] + rest)

    def append(self, later: Chunk) -> "Trace":
        """The trace of this text followed by the tokens of `later`."""
        full, rest = list(self.chunks), later
        if full and len(full[-1]) < N_CHUNK:
            rest = full.pop().append(later)
        starts = range(0, len(rest), N_CHUNK)
        return Trace(self.model, (*full, *(rest.slice(start, min(start + N_CHUNK, len(rest))) for start in starts)))

    def _key_heads(self, heads: Sequence[int]) -> list[int]:
        return [self.model.config.key_head(head) for head in heads]


def _select_tokens(chunks_HTD: Sequence[Tensor], tokens: range | None) -> Tensor:
    """Consecutive tokens out of a list of chunks, all if None; (H, T, D)."""
    if tokens is None:
        return torch.cat(list(chunks_HTD), dim=1)
    first = tokens.start // N_CHUNK
    near_HTD = torch.cat(list(chunks_HTD[first : -(-tokens.stop // N_CHUNK)]), dim=1)
    return near_HTD[:, tokens.start - first * N_CHUNK : tokens.stop - first * N_CHUNK]


def is_finite(x: Tensor) -> bool:
    """Whether all numbers are finite.

    The sum is tested first because that is fast; only if it overflowed is every number looked at. Tensors on the meta
    device, which tests use, have no numbers and count as finite.
    """
    return x.is_meta or math.isfinite(x.sum()) or bool(x.isfinite().all())
