"""Trace: what one reading of a text left behind, and any stage of any head on demand.

`read` puts forward hooks on the parts that can be seen, lets the model read once, and takes them off; the network
knows nothing of it. A trace keeps queries, keys and values, never an n×n matrix: those are made when somebody looks.
"""

# shapes: B texts (here one), L layers, H query heads, G key heads, T tokens, S norm sites, K statistics,
#         D features of a head, M features of a token, V tokens of the vocabulary, R chosen rows

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model import attention
from model.config import Config
from model.gpt import GPT, Block
from model.norm import Norm

Stage = Literal["scores", "scaled", "masked", "weights"]
STAGES: tuple[Stage, ...] = get_args(Stage)

STATISTICS = (
    "mean",
    "variance",
    "rms",
    "normalised_mean",
    "normalised_variance",
    "output_mean",
    "output_variance",
)


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
class Trace:
    """All that was observed while one text was read. Tensors stay on the model's device."""

    model: GPT
    queries_LHTD: tuple[Tensor, ...]  # one tensor a layer, as attention uses them: split in heads, turned
    keys_LGTD: tuple[Tensor, ...]
    values_LGTD: tuple[Tensor, ...]
    norms_STK: Tensor  # float32; K as in STATISTICS
    residual_LT: Tensor  # float32: the Euclidean length of the residual stream after each block
    hidden_TM: Tensor  # after the final norm

    @property
    def n_tokens(self) -> int:
        return self.hidden_TM.shape[0]

    @property
    def n_bytes(self) -> int:
        """What this trace holds in memory; it grows with the number of tokens, not with its square."""
        single = (self.norms_STK, self.residual_LT, self.hidden_TM)
        return sum(t.nbytes for t in (*self.queries_LHTD, *self.keys_LGTD, *self.values_LGTD, *single))

    def stages(self, layer: int, heads: Sequence[int]) -> Iterator[tuple[Stage, Tensor]]:
        """The stages of some heads of a layer one after another, each (H, T, T), rows are queries; float32."""
        q_HTD, k_HTD = self._queries(layer, heads), self._shared(self.keys_LGTD, layer, heads)
        yield "scores", (score_HTT := attention.scores(q_HTD, k_HTD))
        yield "scaled", (scaled_HTT := attention.scaled(score_HTT, self.model.config.d_head))
        yield "masked", (masked_HTT := attention.masked(scaled_HTT))
        yield "weights", attention.weights(masked_HTT)

    @torch.inference_mode()
    def stage(self, stage: Stage, layer: int, heads: Sequence[int]) -> Tensor:
        """One stage of some heads of a layer, (H, T, T), rows are queries; float32."""
        return next(values_HTT for name, values_HTT in self.stages(layer, heads) if name == stage)

    @torch.inference_mode()
    def context(self, layer: int, heads: Sequence[int]) -> Tensor:
        """What each query of these heads takes away, (H, T, D); float32."""
        return attention.context(self.stage("weights", layer, heads), self._shared(self.values_LGTD, layer, heads))

    @torch.inference_mode()
    def logits(self, rows: Sequence[int]) -> Tensor:
        """The score of every token as the one that follows token r, for each r of `rows`; (R, V), float32."""
        return self.model.unembed(self.hidden_TM[list(rows)]).float()  # type: ignore[no-any-return]

    def _queries(self, layer: int, heads: Sequence[int]) -> Tensor:
        return self.queries_LHTD[layer][list(heads)].float()

    def _shared(self, tensors_LGTD: tuple[Tensor, ...], layer: int, heads: Sequence[int]) -> Tensor:
        group = self.model.config.n_heads // self.model.config.n_kv_heads
        return tensors_LGTD[layer][[head // group for head in heads]].float()


@torch.inference_mode()
def read(model: GPT, ids: Sequence[int]) -> Trace:
    """Let the model read a text once, and keep what was to be seen.

    Raises:
        ValueError: when there is no token, or more than the model's context.
    """
    if not 0 < len(ids) <= model.config.n_context:
        raise ValueError(f"{len(ids)} tokens; this model reads 1 to {model.config.n_context}")
    with observing(model) as notes:
        hidden_BTM = model.hidden(torch.tensor([list(ids)], device=model.device))
    queries, keys, values = zip(*notes.heads, strict=True)
    return Trace(
        model=model,
        queries_LHTD=queries,
        keys_LGTD=keys,
        values_LGTD=values,
        norms_STK=torch.stack(notes.norms),
        residual_LT=torch.stack(notes.residual),
        hidden_TM=hidden_BTM[0],
    )


@dataclass
class Notes:
    """What the hooks wrote down, in the order in which the network ran."""

    heads: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    residual: list[Tensor] = field(default_factory=list)

    def note_heads(self, _: nn.Module, qkv: tuple[Tensor, Tensor, Tensor], __: Tensor) -> None:
        q_BHTD, k_BGTD, v_BGTD = qkv
        self.heads.append((q_BHTD[0], k_BGTD[0], v_BGTD[0]))

    def note_norm(self, norm: Norm, inputs: tuple[Tensor], output_BTM: Tensor) -> None:
        self.norms.append(norm_statistics(norm, inputs[0][0], output_BTM[0]))

    def note_block(self, _: nn.Module, __: object, output_BTM: Tensor) -> None:
        self.residual.append(torch.linalg.vector_norm(output_BTM[0].float(), dim=-1))


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
            elif isinstance(part, Block):
                hooks.enter_context(part.register_forward_hook(notes.note_block))
        yield notes


def norm_statistics(norm: Norm, input_TM: Tensor, output_TM: Tensor) -> Tensor:
    """What a norm found and what it left, for every token; (T, K), K as in STATISTICS; float32.

    Variances are biased (over M, not M - 1), as the norms themselves use them.
    """
    columns = []
    for x_TM in (input_TM.float(), norm.normalise(input_TM).float(), output_TM.float()):
        mean_T = x_TM.mean(dim=-1)
        # a norm's length instead of torch.var_mean, which took ten times as long at 512 tokens
        variance_T = torch.linalg.vector_norm(x_TM - mean_T[:, None], dim=-1).square() / x_TM.shape[-1]
        columns += [mean_T, variance_T]
    mean_T, variance_T, *rest = columns
    rms_T = torch.linalg.vector_norm(input_TM.float(), dim=-1) / input_TM.shape[-1] ** 0.5
    return torch.stack([mean_T, variance_T, rms_T, *rest], dim=-1)
