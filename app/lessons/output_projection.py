"""S23: the output projection is a sum over heads: each head adds a vector of its own to the residual stream."""

# shapes: H heads, T tokens, D features of a head, M features of a token, X features of all heads,
#         V tokens of the vocabulary

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, equal, product_norms
from app.experiments.controls import Controls, HeadOf, Layer, Switch, TokenOf
from app.experiments.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.lessons.posts import PART_12, chapter
from model.edits import Edit, Values
from model.sites import ObservedSite


class OutputProjectionControls(Controls):
    """A layer, a token, and a head to switch off."""

    layer: Annotated[int, Layer()] = 0
    token: Annotated[int | None, TokenOf("Token", "shows what the heads add to this token")] = None
    head_off: Annotated[int | None, HeadOf("Head switched off", "leaves out what this head adds")] = None
    skip_projection: Annotated[
        bool, Switch("No projection", "adds the context vectors of the heads side by side, as they are")
    ] = False


class OutputProjectionWork(Work):
    """What each head adds to the residual stream at the chosen token."""

    sites = frozenset[ObservedSite]({"attention"})
    controls: OutputProjectionControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text without the head that is off, or with the heads' vectors as they are in place of the projection."""
        layer, head_off = self.controls.layer, self.controls.head_off
        heads_off = () if head_off is None else (head_off,)
        if self.controls.skip_projection:
            joined_TX = self.context_HTD.index_fill(0, torch.tensor(heads_off, dtype=torch.long), 0.0)
            joined_TX = joined_TX.transpose(0, 1).flatten(1)
            values = Values("the context vectors side by side", joined_TX)
            yield {"changed": self.under(Edit("attention", layer, last=len(joined_TX), scale=0.0, add=values))}
        elif heads_off:
            yield {"changed": self.under(Edit("context", layer, heads_off, scale=0.0))}

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text without head 0."""
        yield {"without 0": self.under(Edit("context", self.controls.layer, (0,), scale=0.0), sites=self.sites)}

    @cached_property
    def context_HTD(self) -> Tensor:
        """The context vectors of the layer."""
        return self.trace.context(self.controls.layer, range(self.config.n_heads)).cpu()

    def contributions(self, *, skip_projection: bool) -> tuple[Tensor, Tensor]:
        """The vector that each head adds, (H, T, M), and the bias, (M,); float32. If broken, the last head adds 0."""
        config = self.config
        weight_MX, bias_M = parameters(self.block(self.controls.layer).attention.output)
        if skip_projection:
            weight_MX, bias_M = torch.eye(config.d_model), torch.zeros(config.d_model)
        weight_MHD = weight_MX.view(config.d_model, config.n_heads, config.d_head)
        added_HTM = torch.einsum("htd,mhd->htm", self.context_HTD, weight_MHD)
        if self.controls.broken:
            added_HTM[-1] = 0
        return added_HTM, bias_M

    @cached_property
    def token(self) -> int:
        """The position of the chosen token."""
        return self.position(self.controls.token)

    @cached_property
    def vectors(self) -> Tensor:
        """The vectors that the heads and the bias add to the token, one row each; a head that is off adds 0."""
        added_HTM, bias_M = self.contributions(skip_projection=self.controls.skip_projection)
        if self.controls.head_off is not None:
            added_HTM = added_HTM.index_fill(0, torch.tensor([self.controls.head_off]), 0.0)
        return torch.cat((added_HTM[:, self.token], bias_M[None]))

    @property
    def names(self) -> list[str]:
        """Whose vector each row of `vectors` is."""
        return [*(f"head {head}" for head in range(self.config.n_heads)), "bias"]

    def bars(self, title: str, values: Tensor) -> Bars:
        """One number for each head and the bias."""
        return Bars(title=title, labels=self.names, values=numbers(values), chosen=self.controls.head_off)

    @panel
    def lengths(self) -> Bars:
        """The length of the vector that each head adds, and of the bias."""
        return self.bars(f"Lengths of the vectors added to {self.token_labels[self.token]}", self.vectors.norm(dim=1))

    @panel
    def components(self) -> Bars:
        """The part of each vector in the direction of the layer's whole output; they sum to its length."""
        sum_M = self.vectors.sum(0)
        title = "Their components in the direction of the sum"
        return self.bars(title, self.vectors @ sum_M / sum_M.norm().clamp_min(1e-12))

    @panel
    def cosines(self) -> Heatmap:
        """The cosine of the angle between the vectors of each pair of heads."""
        added_HM, names = self.vectors[:-1], self.names[:-1]
        unit_HM = added_HM / added_HM.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return signed("Cosine similarity of the vectors of two heads", names, names, unit_HM @ unit_HM.T)

    @panel
    def facts(self) -> Facts:
        """How long the sum is, and what changes without the head or the projection."""
        change = 0.0
        if changed := self.traces.get("changed"):
            logits_V = changed.logits([len(self.tokens) - 1])[0].cpu()
            change = (logits_V - self.next_logits_V).abs().max().item()
        named = {
            "length of the sum": self.vectors.sum(0).norm().item(),
            "sum of the lengths": self.vectors.norm(dim=1).sum().item(),
            "largest change of a logit after the text": change,
        }
        return facts("Lengths, and the effect on the prediction", named)

    def checks(self) -> Iterator[Check]:
        """The vectors of the heads and the bias sum to what the layer adds."""
        layer, config = self.controls.layer, self.config
        added_HTM, bias_M = self.contributions(skip_projection=False)
        output_TM = self.trace.observed("attention", layer).float().cpu()
        context_TX = self.context_HTD.transpose(0, 1).flatten(1)
        scale_TM = product_norms(context_TX, *parameters(self.block(layer).attention.output))
        # Both sides compute scores from the same stored queries and keys, so these differ only by the eps of float32.
        narrower = torch.finfo(torch.float32).eps / torch.finfo(self.dtype).eps
        scale = max(1.0, self.weight_error_scale(layer) * narrower) * scale_TM.max().item()
        arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=self.dtype, n_roundings=3)
        name = "the vectors of all heads and the bias sum to the layer's output"
        yield equal(name, added_HTM.sum(0) + bias_M, output_TM, arithmetic, scale)
        without_TM = self.traces["without 0"].observed("attention", layer).float().cpu()
        name = "with head 0 switched off, the output is the sum without its vector"
        yield equal(name, output_TM - added_HTM[0], without_TM, arithmetic, scale)


EXPERIMENT = Lesson(
    number=23,
    title="What each head adds",
    posts=(PART_12, chapter("3.6")),
    work=OutputProjectionWork,
    break_description="leave the last head out of the sum",
    code_references=(
        "model/attention.py: Attention.forward",
        "app/lessons/output_projection.py: OutputProjectionWork.contributions",
    ),
)
