"""Lesson: a mechanism of a GPT as a page and a call, with checks that can fail. Knows nothing of HTTP.

A lesson is a module of this folder with a `LESSON`; nothing else names it. Its request says by its fields, their bounds
and their titles what a visitor can change; its answer is made of the parts in parts.py; its template, of the same name,
says it in words.
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
from typing import Any, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from app.errors import NoSuchHead
from app.lessons.checks import Arithmetic, Check, product_norms
from app.lessons.posts import Reference
from app.models import Loaded
from app.schemas import TokensRequest
from model.attention import AttentionFn, fused_attention
from model.config import Config
from model.gpt import Block
from model.linear import Linear
from model.tokenizer import Tokens, show
from model.trace import Trace


class LessonRequest(TokensRequest):
    """What every lesson can be asked: a text, a model, and to go wrong."""

    broken: bool = Field(False, title="Break it", description="do it wrongly on purpose, so that a check fails")


def check_heads(request: LessonRequest, config: Config, model: str) -> None:
    """Refuse a layer or head that the model lacks, in whichever field of a request it stands, used or not.

    A field counts layers or heads if its name, or its `kind`, says so.

    Raises:
        NoSuchHead: with the wrong number, and how many there are.
    """
    numbers = {"layer": ("layer", config.n_layers), "head": ("head", config.n_heads), "heads": ("head", config.n_heads)}
    for name, field in type(request).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if (counted := numbers.get(str(extra.get("kind", name)))) is None:
            continue
        kind, n = counted
        value: int | list[int] | None = getattr(request, name)
        for index in value if isinstance(value, list) else [value or 0]:
            if index >= n:
                raise NoSuchHead(kind, index, n, model)


class LessonResult(BaseModel):
    """What every lesson answers: its parts, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Reading:
    """A text as a model read it."""

    model: Loaded
    tokens: Tokens
    trace: Trace

    @property
    def config(self) -> Config:
        return self.model.network.config

    @property
    def token_labels(self) -> list[str]:
        """The tokens with their positions, which tell equal ones apart."""
        return [f"{token.position} {isolated(show(token.bytes))}" for token in self.tokens.tokens]

    @property
    def next_logits_V(self) -> Tensor:
        """The logits after the text, (V,), float32."""
        return self.trace.logits([len(self.tokens) - 1])[0].cpu()

    def ranked_labels(self, ids: Tensor) -> list[str]:
        """Tokens of the vocabulary, the first ones first; their ranks tell those apart that look alike."""
        return [f"{rank} {self.model.tokenizer.label(id)}" for rank, id in enumerate(ids.tolist())]

    def next_same_token(self, place: int) -> int | None:
        """Where the next token with the same id stands, from the first one again after the last; None if nowhere."""
        ids = self.tokens.ids
        others = [*range(place + 1, len(ids)), *range(place)]
        return next((other for other in others if ids[other] == ids[place]), None)

    @property
    def ids_BT(self) -> Tensor:
        """The text as a batch of one, (1, T)."""
        return torch.tensor([self.tokens.ids], device=self.model.network.device)

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
    def capture(self, layer: int, part: nn.Module, n_most: int | None = None) -> tuple[Tensor, Tensor]:
        """What a part of a layer is given, and what it makes of that, for the first `n_most` tokens; (T, …) each.

        The text is read anew, and no further than to this layer.
        """
        network, ids_BT = self.model.network, self.ids_BT[:, :n_most]
        positions_T = torch.arange(ids_BT.shape[1], device=network.device)
        x_BTM, rotate = (
            network.positions.add_positions(network.embed(ids_BT), positions_T),
            network.positions.rotation(positions_T),
        )
        captured: list[tuple[Tensor, Tensor]] = []

        def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            captured.append((given[0][0], made[0]))

        with part.register_forward_hook(note):
            for block in network.blocks[: layer + 1]:
                x_BTM = block(x_BTM, rotate, fused_attention)
        return captured[0]

    @torch.inference_mode()
    def rerun(self, attention_fns: Sequence[AttentionFn] | None = None) -> Tensor:
        """The logits after each token of the text, read anew: with other looks, or under hooks; (T, V), float32."""
        network = self.model.network
        logits_TV: Tensor = network.unembed(network.hidden(self.ids_BT, attention_fns=attention_fns)[0]).float().cpu()
        return logits_TV

    @property
    def dtype(self) -> torch.dtype:
        """The numbers that the network computes with."""
        return self.model.network.embed.weight.dtype

    @property
    def whole_pass(self) -> Arithmetic:
        """How a number comes out of the whole network: each layer adds twice to the residual stream."""
        n_layers = self.config.n_layers
        return Arithmetic(n_terms=n_layers * self.config.d_model, dtype=self.dtype, n_roundings=2 * n_layers)

    @torch.inference_mode()
    def weight_scale(self, layer: int) -> float:
        """The scale of the rounding errors in a layer's attention weights.

        Softmax passes on at most half of an error in its scores, each a sum of products q·k / √d_head.
        """
        config = self.config
        heads = range(config.n_heads)
        pairs = zip(self.trace.queries(layer, heads), self.trace.keys(layer, heads), strict=True)
        scales = [product_norms(q_TD, k_TD).max().item() for q_TD, k_TD in pairs]
        return max(1.0, max(scales) / math.sqrt(config.d_head) / 2)

    def position(self, asked: int | None) -> int:
        """The chosen token; the last where none is chosen, or where the text no longer reaches so far."""
        last = len(self.tokens) - 1
        return last if asked is None else min(asked, last)


def isolated(text: str) -> str:
    """A token as it can stand in a sentence: one that is written from right to left turns nothing around it.

    >>> isolated("cat"), isolated("ש")
    ('cat', '\u2068ש\u2069')
    """
    is_turning = any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)
    return f"\u2068{text}\u2069" if is_turning else text


def parameters(linear: Linear) -> tuple[Tensor, Tensor]:
    """Weights, (outputs × inputs), and bias, (outputs), of a linear map; zeros where it has none; float32."""
    weight_OI = linear.weight.detach().float().cpu()
    bias_O = torch.zeros(len(weight_OI)) if linear.bias is None else linear.bias.detach().float().cpu()
    return weight_OI, bias_O


RequestT = TypeVar("RequestT", bound=LessonRequest)
ResultT = TypeVar("ResultT", bound=LessonResult)


@dataclass(frozen=True, kw_only=True)
class Lesson(Generic[RequestT, ResultT]):
    """A mechanism: what can be asked about it, what is answered, and what must hold of the answer."""

    system: int  # its number in the order of the posts
    title: str
    posts: Sequence[Reference]
    request_type: type[RequestT]
    result_type: type[ResultT]
    compute: Callable[[Reading, RequestT], ResultT]
    checks: Callable[[Reading, RequestT], Iterator[Check]]
    breaks: str  # what is done wrongly when it is broken, in words
    code: Sequence[str]  # where it is done in the sources of Lookback: file, function
    needs: str = ""  # what a model must have, in words; nothing if empty
    fits: Callable[[Config], bool] = lambda _: True  # has a model what it needs?
    slug: str = ""  # filled in: the name of its module
    about: str = ""  # filled in: what the module's first line says


@cache
def lessons() -> dict[str, Lesson[Any, Any]]:
    """All lessons by their slugs, in the order of the posts."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = {name: importlib.import_module(f"app.lessons.{name}") for name in names}
    found = [
        replace(module.LESSON, slug=name.replace("_", "-"), about=_about(module))
        for name, module in modules.items()
        if hasattr(module, "LESSON")
    ]
    return {lesson.slug: lesson for lesson in sorted(found, key=lambda lesson: lesson.system)}


def _about(module: ModuleType) -> str:
    first_line = (module.__doc__ or "").splitlines()[0]
    said = first_line.partition(": ")[2]
    return said[:1].upper() + said[1:]
