"""Trace: what was observed while a model read a text, and any stage of any head on demand.

A trace keeps queries, keys and values, never an n×n matrix: those are computed when they are needed. reading.py makes
traces.
"""

# shapes: L layers, H query heads, G key heads, T tokens of a text, R chosen rows, S keys or norm sites,
#         K statistics, D features of a head, M features of a token, V tokens of the vocabulary

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import torch
from torch import Tensor

from model import attention
from model.edited import Cells, edit_vectors, edited_stages
from model.edits import NO_EDITS, Edits
from model.gpt import GPT
from model.sites import OBSERVED_SITES, STATISTICS, ObservedSite, Stage

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
    observed: Mapping[ObservedSite, Tensor] = field(default_factory=dict)  # (L, T, M); the embedding (1, T, M)

    def __len__(self) -> int:
        return len(self.hidden_TM)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that every chunk has, in the order of the fields. The tokens are their last axis but one."""
        return self.queries_LHTD, self.keys_LGTD, self.values_LGTD, self.norms_STK, self.hidden_TM

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in (*self.tensors, *self.observed.values()))

    @cached_property
    def non_finite(self) -> str | None:
        """The first place of the network with a number that is not finite; None if there is none."""
        if all(is_finite(tensor) for tensor in (*self.tensors, *self.observed.values())):
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
            for site, tensor_LTM in self.observed.items():
                if site != "embedding" and not is_finite(tensor_LTM[layer]):
                    return f"layers.{layer}.{site}"
        return "norm_final"

    def slice(self, first: int, last: int) -> "Chunk":
        """A copy of the tokens from `first` up to, but not including, `last`."""
        return self.map(lambda tensor: tensor.narrow(-2, first, last - first).clone())

    def append(self, later: "Chunk") -> "Chunk":
        """A new chunk of these tokens followed by those of `later`, with the sites that both observed."""
        return self.combine(later, lambda pair: torch.cat(pair, dim=-2))

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Chunk":
        """The chunk of all tensors after a function."""
        observed = {site: fn(tensor) for site, tensor in self.observed.items()}
        queries, keys, values, norms, hidden = (fn(tensor) for tensor in self.tensors)
        return Chunk(queries, keys, values, norms, hidden, observed)

    def combine(self, chunk: "Chunk", fn: Callable[[tuple[Tensor, Tensor]], Tensor]) -> "Chunk":
        """The chunk of a function of each tensor of this one and the same one of another."""
        observed = {
            site: fn((tensor, chunk.observed[site])) for site, tensor in self.observed.items() if site in chunk.observed
        }
        pairs = zip(self.tensors, chunk.tensors, strict=True)
        queries, keys, values, norms, hidden = (fn(pair) for pair in pairs)
        return Chunk(queries, keys, values, norms, hidden, observed)


@dataclass(frozen=True, eq=False)
class UneditedText:
    """An unedited reading, at least of the beginning of the text that an edited trace begins."""

    ids: Sequence[int]
    trace: "Trace"


@dataclass(frozen=True, eq=False)
class Trace:
    """All that was observed while a model read one text. Tensors stay on the model's device.

    Tokens are stored in chunks of N_CHUNK; the last chunk may be shorter. Full chunks are never copied: a text that
    continues another shares them with it.
    """

    model: GPT
    chunks: tuple[Chunk, ...]
    edits: Edits = NO_EDITS  # under which the text was read
    unedited: UneditedText | None = None  # from which a reading under edits copies what no edit reaches
    _logits: dict[int, Tensor] = field(default_factory=dict)  # by row; those that were computed in a batch

    @property
    def n_tokens(self) -> int:
        """The number of tokens read."""
        return sum(map(len, self.chunks))

    @property
    def sites(self) -> frozenset[ObservedSite]:
        """The sites that were observed for all tokens."""
        return frozenset(OBSERVED_SITES).intersection(*(chunk.observed for chunk in self.chunks))

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

    def observed(self, site: ObservedSite, layer: int | None = None) -> Tensor:
        """The vectors at an observed site of a layer, (T, M), in the model's dtype; the embedding has no layer.

        Raises:
            ValueError: if the site was not observed, or if the layer is missing.
            NonFiniteNumber: if the forward pass overflowed.
        """
        if site not in self.sites:
            raise ValueError(f"{site} was not observed; read the text with sites={{{site!r}}}")
        if (layer is None) != (site == "embedding"):
            raise ValueError("the embedding has no layer, and every other site has one")
        self.check_finite()
        return torch.cat([chunk.observed[site][layer or 0] for chunk in self.chunks])

    def residual(self, layer: int) -> Tensor:
        """The residual stream before a layer, (T, M), in the model's dtype; needs the sites embedding and block.

        Raises:
            ValueError, NonFiniteNumber: as for `observed`.
        """
        return self.observed("block", layer - 1) if layer else self.observed("embedding")

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
        whole = range(self.n_tokens)
        rows, all_keys = whole if rows is None else rows, whole if keys is None else keys
        cells = Cells(layer, heads, rows, all_keys)
        q_HRD, k_HSD = self.queries(layer, heads, rows), self.keys(layer, heads, keys)
        for stage, values_HRS in edited_stages(self.edits, cells, q_HRD, k_HSD):
            if stage == "scores" and not is_finite(values_HRS):
                raise NonFiniteNumber(f"layers.{layer}.attention.scores")
            yield stage, values_HRS

    @torch.inference_mode()
    def stage(self, stage: Stage, layer: int, heads: Sequence[int]) -> Tensor:
        """One stage of some heads of a layer, (H, T, T), one row per query; float32."""
        return next(values_HTT for name, values_HTT in self.stages(layer, heads) if name == stage)

    @torch.inference_mode()
    def context(self, layer: int, heads: Sequence[int]) -> Tensor:
        """The context vectors of some heads of a layer, (H, T, D); float32."""
        context_HTD = attention.context(self.stage("weights", layer, heads), self.values(layer, heads))
        positions_T = torch.arange(self.n_tokens, device=context_HTD.device)
        for number, head in enumerate(heads):
            if own := [edit.on_head(head) for edit in self.edits.at("context", layer) if edit.is_on(head)]:
                context_HTD[number] = edit_vectors(context_HTD[number], own, positions_T)
        return context_HTD

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

    def rows(self, first: int, last: int) -> Chunk:
        """The tokens from `first` up to, but not including, `last`, as one chunk."""
        near = [
            chunk.slice(max(first - offset, 0), min(last - offset, len(chunk)))
            for offset, chunk in self.with_offsets()
            if offset < last and offset + len(chunk) > first
        ]
        return reduce(Chunk.append, near)

    def prefix(self, n_tokens: int) -> "Trace":
        """The trace of the first `n_tokens` of this text: later tokens never change earlier rows."""
        n_full, n_rest = divmod(n_tokens, N_CHUNK)
        rest = (self.chunks[n_full].slice(0, n_rest),) if n_rest else ()
        return Trace(self.model, self.chunks[:n_full] + rest, self.edits)

    def append(self, later: Chunk) -> "Trace":
        """The trace of this text followed by the tokens of `later`."""
        full, rest = list(self.chunks), later
        if full and len(full[-1]) < N_CHUNK:
            rest = full.pop().append(later)
        starts = range(0, len(rest), N_CHUNK)
        chunks = (*full, *(rest.slice(start, min(start + N_CHUNK, len(rest))) for start in starts))
        return Trace(self.model, chunks, self.edits, self.unedited)

    def under(self, edits: Edits, unedited: UneditedText | None = None) -> "Trace":
        """The same trace as the beginning of a text under edits that change none of its rows.

        Raises:
            ValueError: if they change them.
        """
        if (self.edits, self.unedited) == (edits, unedited):
            return self
        if self.edits != edits and (self.edits or self.n_tokens > edits.first_position):
            raise ValueError(f"a trace under {str(self.edits) or 'no edits'} cannot continue under {edits}")
        return Trace(self.model, self.chunks, edits, unedited, dict(self._logits))

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
