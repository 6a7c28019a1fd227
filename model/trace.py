"""Trace: what one reading of a text left behind, and any stage of any head on demand.

`read` puts forward hooks on the parts that can be seen, lets the model read once, and takes them off; the network
knows nothing of it. Several texts can be read in one pass, each going on from what was read of it before. A trace
keeps queries, keys and values, never an n×n matrix: those are made when somebody looks.
"""

# shapes: L layers, H query heads, G key heads, N tokens of all texts of one pass, T tokens of a text, R chosen rows,
#         S norm sites, K statistics, D features of a head, M features of a token, V tokens of the vocabulary

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model import attention
from model.attention import Look, look_back
from model.config import Config
from model.gpt import GPT
from model.norm import Norm

Stage = Literal["scores", "scaled", "masked", "weights"]
STAGES: tuple[Stage, ...] = get_args(Stage)

N_TOGETHER = 256  # tokens; texts up to here look back together, padded to the longest of them
N_STRETCH = 32  # tokens; longer ones cost more to copy where texts part, shorter ones more to put together

STATISTICS = (
    "mean",
    "variance",
    "rms",
    "normalised_mean",
    "normalised_variance",
    "output_mean",
    "output_variance",
)


class NonFiniteNumber(ArithmeticError):
    """A pass overflowed: some of the numbers that it left are infinite or NaN, and so is what is computed from them."""

    def __init__(self, place: str) -> None:
        super().__init__(f"the numbers of this pass are no longer finite at {place}")
        self.place = place  # where they were first found: layers.3.norm_1, layers.3.attention.scores, logits


@dataclass(frozen=True)
class NormSite:
    """One of the 2·layers+1 places where a norm stands."""

    name: str  # layers.0.norm_1, layers.0.norm_2, …, norm_final
    layer: int | None  # None for the final norm
    kind: Literal["layernorm", "rmsnorm"]
    eps: float


def norm_sites(config: Config) -> tuple[NormSite, ...]:
    """All norm sites in the order in which a token passes them.

    Their order is the order of the second-to-last dimension of `Trace.norms_STK`.
    """
    layers = [
        NormSite(f"layers.{layer}.{norm}", layer, config.norm, config.norm_eps)
        for layer in range(config.n_layers)
        for norm in ("norm_1", "norm_2")
    ]
    return (*layers, NormSite("norm_final", None, config.norm, config.norm_eps))


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive tokens of a text, and all that was observed of them. Traces share what they have in common."""

    queries_LHTD: Tensor  # as attention uses them: split in heads, turned
    keys_LGTD: Tensor
    values_LGTD: Tensor
    norms_STK: Tensor  # float32; K as in STATISTICS
    hidden_TM: Tensor  # after the final norm

    def __len__(self) -> int:
        return len(self.hidden_TM)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.queries_LHTD, self.keys_LGTD, self.values_LGTD, self.norms_STK, self.hidden_TM

    @property
    def n_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def non_finite(self) -> str | None:
        """The first place of the network at which these tokens have a number that is not finite; None if none has."""
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

    def part(self, first: int, last: int) -> "Stretch":
        """The tokens from `first` to before `last`, in memory of their own."""
        return Stretch(*(t.narrow(_AXES[i], first, last - first).clone() for i, t in enumerate(self.tensors)))

    def then(self, later: "Stretch") -> "Stretch":
        """These tokens with those of `later` behind them."""
        pairs = zip(self.tensors, later.tensors, strict=True)
        return Stretch(*(torch.cat(pair, dim=_AXES[i]) for i, pair in enumerate(pairs)))


_AXES = (-2, -2, -2, -2, 0)  # where the tokens are, in the order of Stretch.tensors


@dataclass(frozen=True, eq=False)
class Trace:
    """All that was observed while a text was read. Tensors stay on the model's device.

    Its tokens lie in stretches of N_STRETCH, but for the last, which is shorter. Whole ones are never copied: a text
    that goes on where another ended shares them with it.
    """

    model: GPT
    stretches: tuple[Stretch, ...]
    _logits: dict[int, Tensor] = field(default_factory=dict)  # of rows that were computed together with other texts'

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.stretches))

    @property
    def n_bytes(self) -> int:
        """What this trace holds in memory; it grows with the number of tokens, not with its square."""
        return sum(stretch.n_bytes for stretch in self.stretches) + self.own_bytes

    @property
    def own_bytes(self) -> int:
        """What no other trace can share with it."""
        return sum(logits_V.nbytes for logits_V in self._logits.values())

    def check(self) -> None:
        """Stop where a pass over this text overflowed. What reads numbers of a trace does so first.

        Raises:
            NonFiniteNumber: with the first place.
        """
        places = [stretch.non_finite for stretch in self.stretches]
        if place := next(filter(None, places), None):
            raise NonFiniteNumber(place)

    @property
    def norms_STK(self) -> Tensor:
        """The statistics of every norm site; float32, K as in STATISTICS.

        Raises:
            NonFiniteNumber: as all that reads numbers of a trace, when the pass overflowed.
        """
        self.check()
        return torch.cat([stretch.norms_STK for stretch in self.stretches], dim=1)

    @property
    def residual_LT(self) -> Tensor:
        """The Euclidean length of the residual stream after each block: what the next norm finds."""
        rms_LT = self.norms_STK[2::2, :, STATISTICS.index("rms")]
        return rms_LT * math.sqrt(self.model.config.d_model)

    @property
    def hidden_TM(self) -> Tensor:
        """The residual stream after the final norm."""
        self.check()
        return torch.cat([stretch.hidden_TM for stretch in self.stretches])

    def placed(self) -> Iterator[tuple[int, Stretch]]:
        """The stretches, each with the position of its first token."""
        for number, stretch in enumerate(self.stretches):
            yield number * N_STRETCH, stretch

    def stages(
        self, layer: int, heads: Sequence[int], rows: range | None = None, keys: range | None = None
    ) -> Iterator[tuple[Stage, Tensor]]:
        """The stages of some heads of a layer one after another, each (H, R, S), rows are queries; float32.

        Consecutive `rows` alone are computed if some are chosen, and consecutive `keys`: weights are of any use only if
        these begin with the first token and reach to the last row.

        Raises:
            NonFiniteNumber: when the pass overflowed, or these scores do.
        """
        self.check()
        q_HRD, k_HSD = self._queries(layer, heads, rows), self._keys(layer, heads, keys)
        score_HRS = attention.scores(q_HRD, k_HSD)
        if not is_finite(score_HRS):
            raise NonFiniteNumber(f"layers.{layer}.attention.scores")
        yield "scores", score_HRS
        yield "scaled", (scaled_HRS := attention.scaled(score_HRS, self.model.config.d_head))
        ahead = (rows.start if rows else 0) - (keys.start if keys else 0)
        yield "masked", (masked_HRS := attention.masked(scaled_HRS, ahead))
        yield "weights", attention.weights(masked_HRS)

    @torch.inference_mode()
    def stage(self, stage: Stage, layer: int, heads: Sequence[int]) -> Tensor:
        """One stage of some heads of a layer, (H, T, T), rows are queries; float32."""
        return next(values_HTT for name, values_HTT in self.stages(layer, heads) if name == stage)

    @torch.inference_mode()
    def context(self, layer: int, heads: Sequence[int]) -> Tensor:
        """What each query of these heads takes away, (H, T, D); float32."""
        values_GTD = torch.cat([stretch.values_LGTD[layer] for stretch in self.stretches], dim=1)
        return attention.context(self.stage("weights", layer, heads), values_GTD[self._groups(heads)].float())

    @torch.inference_mode()
    def logits(self, rows: Sequence[int]) -> Tensor:
        """The score of every token as the one that follows token r, for each r of `rows`; (R, V), float32.

        Raises:
            NonFiniteNumber: when the pass overflowed, or these logits do.
        """
        self.check()
        if all(row in self._logits for row in rows):
            logits_RV = torch.stack([self._logits[row] for row in rows])
        else:
            logits_RV = self.model.unembed(self.hidden_TM[list(rows)]).float()
        if not is_finite(logits_RV):
            raise NonFiniteNumber("logits")
        return logits_RV

    def start(self, n_tokens: int) -> "Trace":
        """The trace of the first `n_tokens` of this text: a later token never changes an earlier row."""
        n_whole, n_rest = divmod(n_tokens, N_STRETCH)
        rest = (self.stretches[n_whole].part(0, n_rest),) if n_rest else ()
        return Trace(self.model, self.stretches[:n_whole] + rest)

    def then(self, later: Stretch) -> "Trace":
        """This text with the tokens of `later` behind it."""
        whole, last = list(self.stretches), later
        if whole and len(whole[-1]) < N_STRETCH:
            last = whole.pop().then(later)
        cuts = range(0, len(last), N_STRETCH)
        return Trace(self.model, (*whole, *(last.part(cut, min(cut + N_STRETCH, len(last))) for cut in cuts)))

    def _queries(self, layer: int, heads: Sequence[int], rows: range | None) -> Tensor:
        return _cut([stretch.queries_LHTD[layer] for stretch in self.stretches], rows)[list(heads)].float()

    def _keys(self, layer: int, heads: Sequence[int], keys: range | None) -> Tensor:
        return _cut([stretch.keys_LGTD[layer] for stretch in self.stretches], keys)[self._groups(heads)].float()

    def _groups(self, heads: Sequence[int]) -> list[int]:
        return [head // (self.model.config.n_heads // self.model.config.n_kv_heads) for head in heads]


def _cut(pieces_HTD: Sequence[Tensor], tokens: range | None) -> Tensor:
    """Some consecutive tokens of stretches that lie one behind the other, (H, T, D)."""
    if tokens is None:
        return torch.cat(list(pieces_HTD), dim=1)
    first = tokens.start // N_STRETCH
    near_HTD = torch.cat(list(pieces_HTD[first : -(-tokens.stop // N_STRETCH)]), dim=1)
    return near_HTD[:, tokens.start - first * N_STRETCH : tokens.stop - first * N_STRETCH]


@torch.inference_mode()
def read(model: GPT, ids: Sequence[int]) -> Trace:
    """Let the model read a text once, and keep what was to be seen.

    Raises:
        ValueError: when there is no token, or more than the model's context.
    """
    return read_on(model, [(Trace(model, ()), ids)])[0]


@torch.inference_mode()
def read_on(model: GPT, texts: Sequence[tuple[Trace, Sequence[int]]]) -> list[Trace]:
    """Read several texts in one pass, each from where its trace ends: what is read of it, and the ids that follow.

    The new tokens of all texts lie one behind the other, without padding; only when they look back is each text by
    itself. So a text's numbers do not depend on its company.

    Raises:
        ValueError: when a text has no token to read, or gets longer than the model's context.
    """
    begins = [kept.n_tokens for kept, _ in texts]
    for begin, (_, ids) in zip(begins, texts, strict=True):
        if not (ids and begin + len(ids) <= model.config.n_context):
            raise ValueError(f"{begin + len(ids)} tokens; this model reads 1 to {model.config.n_context}")
    lengths = [len(ids) for _, ids in texts]
    ids_N = torch.tensor([id for _, ids in texts for id in ids], device=model.device)
    at_N = torch.cat([torch.arange(begin, begin + n) for begin, n in zip(begins, lengths, strict=True)])
    ragged = Ragged([kept for kept, _ in texts], lengths)
    with observing(model) as notes:
        hidden_BNM = model.hidden(ids_N[None], at_N.to(model.device), ragged.looks(model.config.n_layers))
    every = notes.stretch(hidden_BNM[0])
    parts = [every] if len(texts) == 1 else [every.part(at.start, at.stop) for at in ragged.places]
    return [kept.then(part) for (kept, _), part in zip(texts, parts, strict=True)]


@torch.inference_mode()
def foresee(traces: Sequence[Trace]) -> None:
    """Compute the logits after the last token of several texts of one model in one multiplication.

    The unembedding is the largest matrix of the network; it is then read from memory once for all of them.
    """
    lacking = [trace for trace in traces if trace.n_tokens - 1 not in trace._logits]
    if lacking:
        last_RM = torch.stack([trace.stretches[-1].hidden_TM[-1] for trace in lacking])
        for trace, logits_V in zip(lacking, lacking[0].model.unembed(last_RM).float(), strict=True):
            trace._logits[trace.n_tokens - 1] = logits_V.clone()  # a row of its own, not of all texts' matrix


def is_finite(x: Tensor) -> bool:
    """Whether all numbers are finite. Their sum says so at once, unless it overflows itself.

    On the meta device, on which tests follow a pass, there are no numbers.
    """
    return x.is_meta or math.isfinite(x.sum()) or bool(x.isfinite().all())


class Ragged:
    """How the new tokens of several texts look back: each text at what is kept of it, and at itself.

    `places` says which rows of the pass are whose. Short texts with one new token each, which is what typists make,
    look back together, padded to the longest; every other text by itself.
    """

    def __init__(self, kept: Sequence[Trace], lengths: Sequence[int]) -> None:
        self._kept = kept
        self.places = [slice(end - n, end) for n, end in zip(lengths, accumulate(lengths), strict=True)]
        typed = [i for i, n in enumerate(lengths) if n == 1 and 0 < kept[i].n_tokens <= N_TOGETHER]
        self._together = typed if len(typed) > 1 else []
        self._alone = [i for i in range(len(lengths)) if i not in self._together]
        if self._together:
            self._pad([kept[i] for i in self._together])

    def looks(self, n_layers: int) -> list[Look]:
        """What each layer's heads do."""
        return [partial(self._look, layer) for layer in range(n_layers)]

    def _pad(self, kept: Sequence[Trace]) -> None:
        """Keys and values of all layers in one place, zeros behind their ends, with room for the new token."""
        n_keys = 1 + max(trace.n_tokens for trace in kept)
        like_LGTD = kept[0].stretches[0].keys_LGTD
        n_layers, n_groups, _, d_head = like_LGTD.shape
        self._keys = like_LGTD.new_zeros(n_layers, len(kept), n_groups, n_keys, d_head)
        self._values = torch.zeros_like(self._keys)
        for text, trace in enumerate(kept):
            for first, stretch in trace.placed():
                at = slice(first, first + len(stretch))
                self._keys[:, text, :, at], self._values[:, text, :, at] = stretch.keys_LGTD, stretch.values_LGTD
        device = like_LGTD.device
        self._texts = torch.arange(len(kept), device=device)
        self._ends = torch.tensor([trace.n_tokens for trace in kept], device=device)
        self._seen_BS = torch.arange(n_keys, device=device) <= self._ends[:, None]
        self._at = torch.tensor([self.places[i].start for i in self._together], device=device)

    def _look(self, layer: int, q_BHND: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
        if len(self._kept) == 1:
            return self._look_alone(layer, 0, q_BHND, k_BGND, v_BGND)
        context_BHND = torch.empty_like(q_BHND)
        if self._together:
            q_BHD, k_BGD, v_BGD = (x[0].index_select(1, self._at).transpose(0, 1) for x in (q_BHND, k_BGND, v_BGND))
            keys_BGSD, values_BGSD = self._keys[layer], self._values[layer]
            keys_BGSD[self._texts, :, self._ends], values_BGSD[self._texts, :, self._ends] = k_BGD, v_BGD
            context_BHTD = look_back(q_BHD.unsqueeze(2), keys_BGSD, values_BGSD, self._seen_BS)
            context_BHND[0, :, self._at] = context_BHTD[:, :, 0].transpose(0, 1)
        for i in self._alone:
            new = (x[:, :, self.places[i]] for x in (q_BHND, k_BGND, v_BGND))
            context_BHND[:, :, self.places[i]] = self._look_alone(layer, i, *new)
        return context_BHND

    def _look_alone(self, layer: int, text: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        if stretches := self._kept[text].stretches:
            k_BGTD = torch.cat([*(one.keys_LGTD[layer][None] for one in stretches), k_BGTD], dim=2)
            v_BGTD = torch.cat([*(one.values_LGTD[layer][None] for one in stretches), v_BGTD], dim=2)
        return look_back(q_BHTD, k_BGTD, v_BGTD)


@dataclass
class Notes:
    """What the hooks wrote down, in the order in which the network ran. Nothing is computed before it has run."""

    heads: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    norms: list[tuple[Norm, Tensor, Tensor]] = field(default_factory=list)

    def note_heads(self, _: nn.Module, looked: tuple[Tensor, Tensor, Tensor, Look], __: Tensor) -> None:
        q_BHND, k_BGND, v_BGND, *_look = looked
        self.heads.append((q_BHND[0], k_BGND[0], v_BGND[0]))

    def note_norm(self, norm: Norm, inputs: tuple[Tensor], output_BNM: Tensor) -> None:
        self.norms.append((norm, inputs[0][0], output_BNM[0]))

    def stretch(self, hidden_NM: Tensor) -> Stretch:
        """All tokens of the pass as one stretch."""
        norms, inputs, outputs = zip(*self.norms, strict=True)
        statistics_SNK = norm_statistics(norms[0], torch.stack(inputs), torch.stack(outputs))
        queries, keys, values = map(torch.stack, zip(*self.heads, strict=True))
        return Stretch(queries, keys, values, statistics_SNK, hidden_NM)


@contextmanager
def observing(model: GPT) -> Iterator[Notes]:
    """Hooks on the model for as long as the context lasts; they are gone after it, whatever happened within."""
    notes = Notes()
    with ExitStack() as hooks:
        for part in model.modules():
            if isinstance(part, attention.Heads):
                hooks.enter_context(part.register_forward_hook(notes.note_heads))
            elif isinstance(part, Norm):
                hooks.enter_context(part.register_forward_hook(notes.note_norm))
        yield notes


def norm_statistics(norm: Norm, input_TM: Tensor, output_TM: Tensor) -> Tensor:
    """What norms of one kind found and what they left, for every token; (…, T, K), K as in STATISTICS; float32.

    Variances are biased (over M, not M - 1), as the norms themselves use them.
    """
    columns = []
    for x_TM in (input_TM.float(), norm.normalise(input_TM).float(), output_TM.float()):
        mean_T = x_TM.mean(dim=-1)
        # a norm's length instead of torch.var_mean, which took ten times as long at 512 tokens
        variance_T = torch.linalg.vector_norm(x_TM - mean_T[..., None], dim=-1).square() / x_TM.shape[-1]
        columns += [mean_T, variance_T]
    mean_T, variance_T, *rest = columns
    rms_T = torch.linalg.vector_norm(input_TM.float(), dim=-1) / input_TM.shape[-1] ** 0.5
    return torch.stack([mean_T, variance_T, rms_T, *rest], dim=-1)
