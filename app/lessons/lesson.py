"""What a lesson is: one mechanism of a GPT, computed on a text, with checks that can fail. Knows nothing of HTTP.

A lesson is a module of this folder that defines `LESSON`; it is registered nowhere else. The fields of its request are
the controls of its page, with their bounds and titles; its result consists of panels (panels.py); the template of the
same name holds its text.
"""

import importlib
import math
import pkgutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, product_norms
from app.lessons.posts import Reference
from app.models import LoadedModel
from app.schemas import TokensRequest
from model.attention import AttentionFn, fused_attention
from model.config import Config
from model.gpt import Block
from model.linear import Linear
from model.tokenizer import Tokens, token_label
from model.trace import Trace

N_SAMPLES = 16  # the first tokens of a text, where a page has no room for all; later tokens do not change them


class LessonRequest(TokensRequest):
    """The fields of every lesson's request: a text, a model, and whether to compute wrongly."""

    broken: bool = Field(False, title="Break it", description="compute it wrongly on purpose, so that a check fails")


def check_request_heads(request: LessonRequest, model: LoadedModel) -> None:
    """Refuse a layer or head that the model does not have, in any field of a request, even one that is not used.

    The `kind` of a field, or else its name, says what the field holds: "layer", "head" or "heads".

    Raises:
        NoSuchHead: with the wrong number, and how many the model has.
    """
    indices: dict[str, list[int]] = {"layer": [], "head": [], "heads": []}
    for name, field in type(request).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        value: int | list[int] | None = getattr(request, name)
        if (kind := str(extra.get("kind", name))) in indices and value is not None:
            indices[kind] += value if isinstance(value, list) else [value]
    model.check_heads(indices["layer"], indices["head"] + indices["heads"])


class LessonResult(BaseModel):
    """The base of every lesson's result: its fields are panels."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Reading:
    """A text, and the trace of a model on it."""

    model: LoadedModel
    tokens: Tokens
    trace: Trace

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        return self.model.network.config

    @property
    def token_labels(self) -> list[str]:
        """The tokens, each with its position, so that equal tokens differ."""
        return [f"{token.position} {isolated(token_label(token.bytes))}" for token in self.tokens.tokens]

    @property
    def next_logits_V(self) -> Tensor:
        """The logits after the last token, (V,), float32."""
        return self.trace.logits([len(self.tokens) - 1])[0].cpu()

    def ranked_labels(self, ids: Tensor) -> list[str]:
        """Tokens of the vocabulary, each with its rank, so that tokens that look alike differ."""
        return [f"{rank} {self.model.tokenizer.label(id)}" for rank, id in enumerate(ids.tolist())]

    def next_same_token(self, position: int) -> int | None:
        """The next position with the same token, continuing from the start of the text; None if there is none."""
        ids = self.tokens.ids
        candidates = [*range(position + 1, len(ids)), *range(position)]
        return next((candidate for candidate in candidates if ids[candidate] == ids[position]), None)

    @property
    def ids_BT(self) -> Tensor:
        """The ids of the text as a batch of one, (1, T)."""
        return torch.tensor([self.tokens.ids], device=self.model.network.device)

    @property
    def embeddings_TM(self) -> Tensor:
        """The token vectors of the text, without positions, (T, M), float32."""
        return self.model.network.embed.weight[self.ids_BT[0]].detach().float().cpu()

    def block(self, layer: int) -> Block:
        """A layer of the model."""
        block = self.model.network.blocks[layer]
        assert isinstance(block, Block)
        return block

    def up(self, layer: int) -> Linear:
        """The first map of a layer's feed-forward network, without its activation."""
        up = self.block(layer).mlp.up
        assert isinstance(up, Linear)
        return up

    @torch.inference_mode()
    def capture(self, layer: int, module: nn.Module, n_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """The input and the output of a module of a layer, (T, …) each, for the first `n_tokens` tokens, or for all.

        The text is run through the network again, up to this layer.
        """
        network, ids_BT = self.model.network, self.ids_BT[:, :n_tokens]
        positions_T = torch.arange(ids_BT.shape[1], device=network.device)
        x_BTM, rotate = (
            network.positions.add_positions(network.embed(ids_BT), positions_T),
            network.positions.rotation(positions_T),
        )
        captured: list[tuple[Tensor, Tensor]] = []

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            captured.append((inputs[0][0], output[0]))

        with module.register_forward_hook(hook):
            for block in network.blocks[: layer + 1]:
                x_BTM = block(x_BTM, rotate, fused_attention)
        return captured[0]

    @torch.inference_mode()
    def rerun(self, attention_fns: Sequence[AttentionFn] | None = None) -> Tensor:
        """Logits after each token, (T, V), float32, from a new run: with other attention functions, or under hooks."""
        network = self.model.network
        logits_TV: Tensor = network.unembed(network.hidden(self.ids_BT, attention_fns=attention_fns)[0]).float().cpu()
        return logits_TV

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        return self.model.network.embed.weight.dtype

    @property
    def whole_pass(self) -> Arithmetic:
        """The arithmetic of a whole forward pass: each layer adds to the residual stream twice."""
        n_layers = self.config.n_layers
        return Arithmetic(n_terms=n_layers * self.config.d_model, dtype=self.dtype, n_roundings=2 * n_layers)

    @torch.inference_mode()
    def weight_error_scale(self, layer: int) -> float:
        """The scale of the rounding errors in a layer's attention weights.

        Softmax passes on at most half of an error in its scores, each of which is a sum q·k / √d_head.
        """
        config = self.config
        heads = range(config.n_heads)
        pairs = zip(self.trace.queries(layer, heads), self.trace.keys(layer, heads), strict=True)
        scales = [product_norms(q_TD, k_TD).max().item() for q_TD, k_TD in pairs]
        return max(1.0, max(scales) / math.sqrt(config.d_head) / 2)

    def position(self, requested: int | None) -> int:
        """The requested position; the last one if none is requested or the text is too short for it."""
        last = len(self.tokens) - 1
        return last if requested is None else min(requested, last)


def isolated(text: str) -> str:
    """A token for use within a sentence: isolated if it is written from right to left, so that it reorders nothing.

    >>> isolated("cat"), isolated("ש")
    ('cat', '\u2068ש\u2069')
    """
    is_right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)
    return f"\u2068{text}\u2069" if is_right_to_left else text


def parameters(linear: Linear) -> tuple[Tensor, Tensor]:
    """Weights, (outputs × inputs), and bias, (outputs), of a linear layer; zeros if it has no bias; float32."""
    weight_OI = linear.weight.detach().float().cpu()
    bias_O = torch.zeros(len(weight_OI)) if linear.bias is None else linear.bias.detach().float().cpu()
    return weight_OI, bias_O


def project_head(linear: nn.Linear, x: Tensor, head: int, d_head: int) -> Tensor:
    """The projection of x to the features of one head, (…, d_head), with that head's own rows of the weights."""
    rows = slice(head * d_head, (head + 1) * d_head)
    return F.linear(x, linear.weight[rows], None if linear.bias is None else linear.bias[rows])


RequestT = TypeVar("RequestT", bound=LessonRequest)
ResultT = TypeVar("ResultT", bound=LessonResult)


@dataclass(frozen=True, kw_only=True)
class Lesson(Generic[RequestT, ResultT]):
    """A mechanism: the type of its requests, how a result is computed, and what must hold for it."""

    number: int  # its number, in the order of the posts
    title: str
    posts: Sequence[Reference]
    request_type: type[RequestT]
    result_type: type[ResultT]
    compute: Callable[[Reading, RequestT], ResultT]
    checks: Callable[[Reading, RequestT], Iterator[Check]]
    break_description: str  # what is computed wrongly if the request has `broken`, in words
    code_references: Sequence[str]  # where it is computed in Lookback's source: file, function
    requirement: str = ""  # what a model must have, in words; empty if nothing
    is_supported_by: Callable[[Config], bool] = lambda _: True  # whether a model has what the lesson needs
    slug: str = ""  # filled in by `lessons`: the name of its module
    summary: str = ""  # filled in by `lessons`: the first line of the module

    @property
    def panel_kinds(self) -> dict[str, str]:
        """The kind of each panel of the result, by its name; known before anything is computed."""
        return {name: _kind(field.annotation) for name, field in self.result_type.model_fields.items()}


AnyLesson = Lesson[LessonRequest, LessonResult]


@cache
def lessons() -> dict[str, AnyLesson]:
    """All lessons by their slugs, in the order of the posts."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = {name: importlib.import_module(f"app.lessons.{name}") for name in names}
    filled_in: list[AnyLesson] = [
        replace(module.LESSON, slug=name.replace("_", "-"), summary=_summary(module))
        for name, module in modules.items()
        if hasattr(module, "LESSON")
    ]
    return {lesson.slug: lesson for lesson in sorted(filled_in, key=lambda lesson: lesson.number)}


def _kind(panel: object) -> str:
    assert isinstance(panel, type)
    assert issubclass(panel, BaseModel)
    return str(panel.model_fields["kind"].default)


def _summary(module: ModuleType) -> str:
    first_line = (module.__doc__ or "").splitlines()[0]
    summary = first_line.partition(": ")[2]
    return summary[:1].upper() + summary[1:]
