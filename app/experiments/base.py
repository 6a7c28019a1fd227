"""What an experiment is: typed controls, and panels over one reading of a text. Knows nothing of HTTP.

An experiment is a module of app/lessons or app/tools that defines `EXPERIMENT`; it is registered nowhere else. Its
`Work` holds what the panels share, as cached properties, and each method marked with `@panel` returns one panel
(panels.py). The annotations of its controls (controls.py) are the inputs of its page, with their bounds and titles; the
template of the same name holds the page's text. A lesson also has sources, and checks that can fail.

Nothing here runs a model. What must be read besides the text itself, `readings` declares: other ids, or the same under
edits. The engine reads it, in chunks, from the cache where it can, and between the keystrokes of others.
"""

import importlib
import math
import pkgutil
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from inspect import getdoc, isgenerator
from pathlib import Path
from types import ModuleType
from typing import ClassVar, TypeVar, cast, get_args, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.engine import NO_SITES, Pause, Reading
from app.experiments.checks import Arithmetic, Check, product_norms
from app.experiments.controls import Controls
from app.experiments.panels import AnyPanel
from app.models import LoadedModel
from model.config import Config
from model.edits import Change, Edits
from model.gpt import GPT, Block
from model.linear import Linear
from model.sites import ObservedSite
from model.tokenizer import Tokens, token_label
from model.trace import Trace

N_SAMPLES = 16  # the first tokens of a text, where a page has no room for all; later tokens do not change them
MAX_TOKENS = 256  # pictures of more cannot be read
RESIDUAL: frozenset[ObservedSite] = frozenset({"embedding", "block"})  # the sites that `Work.residual` needs


@dataclass(frozen=True)
class Reference:
    """A post or chapter that a lesson builds on, with its address."""

    title: str
    address: str


@dataclass(frozen=True)
class Try:
    """Something to try: what to do, and the controls that do it."""

    text: str
    controls: Mapping[str, object]


@dataclass(frozen=True)
class Unit:
    """What a learner does with a lesson: guess, try, and answer a question; data beside the lesson's page."""

    guess: str  # a question to answer before the numbers are shown
    tries: Sequence[Try]
    question: str
    hints: Sequence[str]  # the last one is the answer


@dataclass(frozen=True)
class Round(Pause):
    """Readings to make before the run goes on; whoever iterates puts their traces into `work.traces`."""

    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class PanelProgress:
    """How much of a panel is computed."""

    done: int
    total: int


class Work:
    """One run of an experiment: what its panels and checks share. All of it runs in the worker thread.

    A subclass annotates `controls` with the type of its own controls, which is thereby that of its requests.
    """

    sites: ClassVar[frozenset[ObservedSite]] = NO_SITES  # observed while the text itself is read
    controls: Controls

    def __init__(self, model: LoadedModel, tokens: Tokens, controls: Controls) -> None:
        self.model = model
        self.tokens = tokens
        self.controls = controls
        self.trace: Trace  # of the text, once it is read
        self.traces: dict[str, Trace] = {}  # of the declared readings, by their names

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The further readings that the panels need, by name, in rounds.

        When the next round is asked for, the traces of the last one are in `traces`. Readings of one round that are
        under the same edits share their passes.
        """
        return iter(())

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The further readings that the checks need, besides those of the panels."""
        return iter(())

    def checks(self) -> Iterator[Check | PanelProgress]:
        """What must hold; `PanelProgress` after each piece of what takes long."""
        return iter(())

    def under(self, *changes: Change, sites: frozenset[ObservedSite] = NO_SITES) -> Reading:
        """The text of the page, read under some changes."""
        return Reading(self.tokens.ids, Edits(changes), sites)

    @property
    def network(self) -> GPT:
        """The network of the model."""
        return self.model.network

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        return self.network.config

    @cached_property
    def token_labels(self) -> list[str]:
        """The tokens, each with its position, so that equal tokens differ."""
        return [f"{token.position} {isolated(token_label(token.bytes))}" for token in self.tokens.tokens]

    @cached_property
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

    def with_token(self, position: int, id: int) -> tuple[int, ...]:
        """The ids of the text with one of them replaced."""
        return (*self.tokens.ids[:position], id, *self.tokens.ids[position + 1 :])

    @property
    def ids_T(self) -> Tensor:
        """The ids of the text, (T,), on the model's device."""
        return torch.tensor(self.tokens.ids, device=self.network.device)

    @property
    def embeddings_TM(self) -> Tensor:
        """The token vectors of the text, without positions, (T, M), float32."""
        return self.network.embed.weight[self.ids_T].detach().float().cpu()

    def block(self, layer: int) -> Block:
        """A layer of the model."""
        return cast("Block", self.network.blocks[layer])

    def up(self, layer: int) -> Linear:
        """The first map of a layer's feed-forward network, without its activation."""
        return cast("Linear", self.block(layer).mlp.up)

    def residual(self, layer: int) -> Tensor:
        """The input of a layer, (T, M), in the model's dtype; `sites` must hold RESIDUAL."""
        return self.trace.residual(layer)

    @torch.inference_mode()
    def attention_input(self, layer: int) -> Tensor:
        """The input of a layer's attention, (T, M), in the model's dtype; `sites` must hold RESIDUAL."""
        return cast("Tensor", self.block(layer).norm_1(self.residual(layer)))

    @torch.inference_mode()
    def mlp_input(self, layer: int) -> Tensor:
        """The input of a layer's feed-forward network, (T, M); `sites` must hold RESIDUAL and "attention"."""
        x_TM = self.residual(layer) + self.trace.observed("attention", layer)
        return cast("Tensor", self.block(layer).norm_2(x_TM))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        return self.network.dtype

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
        heads = range(self.config.n_heads)
        pairs = zip(self.trace.queries(layer, heads), self.trace.keys(layer, heads), strict=True)
        scales = [product_norms(q_TD, k_TD).max().item() for q_TD, k_TD in pairs]
        return max(1.0, max(scales) / math.sqrt(self.config.d_head) / 2)

    def position(self, requested: int | None) -> int:
        """The requested position; the last one if none is requested or the text is too short for it."""
        last = len(self.tokens) - 1
        return last if requested is None else min(requested, last)


MethodT = TypeVar("MethodT", bound=Callable[..., AnyPanel | Generator[PanelProgress, None, AnyPanel]])


def panel(method: MethodT) -> MethodT:
    """Mark a method of a Work as one of its panels: its name is the panel's, its docstring what the panel shows.

    A panel that takes long is a generator: it yields `PanelProgress` after each piece of work, and returns the panel.
    """
    method.is_panel = True  # type: ignore[attr-defined]
    return method


@dataclass(frozen=True)
class PanelInfo:
    """What is known of a panel before anything is computed."""

    name: str
    kind: str  # of panels.py: heatmap, bars, …
    description: str


def panel_infos(work: type[Work]) -> tuple[PanelInfo, ...]:
    """The panels of an experiment, in the order of its code."""
    infos = []
    for name, method in vars(work).items():
        if getattr(method, "is_panel", False):
            returned = get_type_hints(method)["return"]
            panel_type = get_args(returned)[-1] if get_args(returned) else returned
            infos.append(PanelInfo(name, str(panel_type.model_fields["kind"].default), getdoc(method) or ""))
    return tuple(infos)


PanelStep = Round | PanelProgress | tuple[str, AnyPanel]


def run_panels(work: Work, names: Sequence[str] | None = None) -> Iterator[PanelStep]:
    """A run of an experiment whose text is read: its rounds of readings, then some or all of its panels."""
    yield from map(Round, work.readings())
    for info in panel_infos(type(work)):
        if names is None or info.name in names:
            made = getattr(work, info.name)()
            yield info.name, (yield from made) if isgenerator(made) else made


def run_checks(work: Work) -> Iterator[Round | Check | PanelProgress]:
    """The checks of an experiment whose text is read, one by one, after the rounds of readings that they need."""
    yield from map(Round, work.readings())
    yield from map(Round, work.check_readings())
    yield from work.checks()


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


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Controls, and panels over one reading of a text."""

    folder: ClassVar[str] = "tools"  # of its module in app/, of its template, and of its page
    title: str
    work: type[Work]
    code_references: Sequence[str]  # where it is computed in Lookback's source: file, function
    accepts_edits: bool = True  # whether its text may be read under the edits of a request
    requirement: str = ""  # what a model must have, in words; empty if nothing
    is_supported_by: Callable[[Config], bool] = lambda _: True  # whether a model has what the experiment needs
    slug: str = ""  # filled in by `experiments`: the name of its module
    summary: str = ""  # filled in by `experiments`: the first line of the module

    @property
    def controls(self) -> type[Controls]:
        """The type of its requests."""
        return cast("type[Controls]", get_type_hints(self.work)["controls"])

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"/{self.folder}/{self.slug}"

    @property
    def template(self) -> str:
        """The template of its page."""
        return f"{self.folder}/{self.slug}.html"


@dataclass(frozen=True, kw_only=True)
class Lesson(Experiment):
    """An experiment about one mechanism of a GPT, with prose, sources, and checks that can fail."""

    folder = "lessons"
    number: int  # its number, in the order of the posts
    posts: Sequence[Reference]
    break_description: str  # what is computed wrongly if the request has `broken`, in words
    unit: Unit | None = None
    accepts_edits: bool = False  # its checks are about the unchanged model


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments by their slugs: the lessons in the order of the posts, then the tools."""
    defined = [*_defined_in("lessons"), *_defined_in("tools")]
    defined.sort(key=lambda experiment: experiment.number if isinstance(experiment, Lesson) else math.inf)
    return {experiment.slug: experiment for experiment in defined}


@cache
def lessons() -> dict[str, Lesson]:
    """All lessons by their slugs, in the order of the posts."""
    return {slug: lesson for slug, lesson in experiments().items() if isinstance(lesson, Lesson)}


def _defined_in(folder: str) -> list[Experiment]:
    """The experiments that the modules of a folder of app/ define."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parents[1] / folder)])]
    modules = {name: importlib.import_module(f"app.{folder}.{name}") for name in names}
    return [
        replace(module.EXPERIMENT, slug=name.replace("_", "-"), summary=_summary(module))
        for name, module in modules.items()
        if hasattr(module, "EXPERIMENT")
    ]


def _summary(module: ModuleType) -> str:
    first_line = (module.__doc__ or "").splitlines()[0]
    summary = first_line.partition(": ")[2]
    return summary[:1].upper() + summary[1:]
