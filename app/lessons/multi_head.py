"""S22: multi-head attention: one projection, split into heads; and what a layer loses without some of them."""

# shapes: T queries, S keys, M features of a token, H query heads, D features of a head, X = H·D features of all heads,
#         I slices of the input, V tokens of the vocabulary

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import RESIDUAL, Lesson, Work, panel, parameters
from app.experiments.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_norms, product_scales
from app.experiments.controls import Choice, Controls, HeadOf, HeadSet, Layer, Slider, TokenOf
from app.experiments.panels import Bars, Cube, Facts, Heatmap, facts, numbers, probabilities, signed
from app.lessons.head_arrays import (
    N_ARRAY_STEPS,
    ArrayStep,
    SeparateHeads,
    array_corner,
    array_facts,
    array_steps,
    separate_heads,
)
from app.lessons.posts import PART_12, chapter
from app.schemas import Index
from model.edits import Change, Edit

HeadProjection = Literal["one matrix, split", "one module per head"]
MAX_HEATMAP_HEADS = 16
N_CHANGED_TOKENS = 5


class MultiHeadControls(Controls):
    """A layer, how its heads are computed, a step of that computation, and heads to switch off."""

    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf("Head", "shows all weights of this head")] = 0
    query: Annotated[int | None, TokenOf("Query", "shows the weights of this token in all heads")] = None
    projection: Annotated[
        HeadProjection,
        Choice("Heads from", "projects queries, keys and values of all heads at once, or of each head by itself"),
    ] = "one matrix, split"
    array_step: Annotated[
        int, Slider(0, N_ARRAY_STEPS - 1, 1, "Step", "shows the array after this step", playable=True)
    ] = 3
    heads_off: Annotated[
        list[Index], HeadSet("Heads switched off", "sets the context vectors of these heads to 0")
    ] = []


class MultiHeadWork(Work):
    """All heads of a layer, how their arrays are split and joined, and what changes without some heads."""

    sites = RESIDUAL | {"attention"}
    controls: MultiHeadControls

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text without the heads that are off."""
        if self.controls.heads_off:
            yield {"without": self.under(self.switched_off, sites=self.sites)}

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The text with all heads, read from its beginning."""
        yield {"all heads": Reading(self.tokens.ids, is_fresh=True)}

    @property
    def switched_off(self) -> Change:
        """The heads that are off, as an edit."""
        return Edit("context", self.controls.layer, tuple(sorted(set(self.controls.heads_off))), scale=0.0)

    @cached_property
    def x_TM(self) -> Tensor:
        """The input of the layer's attention."""
        return self.attention_input(self.controls.layer)

    @cached_property
    def steps(self) -> list[ArrayStep]:
        """The arrays from input to output, without the heads that are off."""
        controls = self.controls
        return array_steps(self, controls.layer, self.x_TM, controls.heads_off, broken=controls.broken)

    @cached_property
    def separate(self) -> SeparateHeads:
        """The same heads, each computed by itself."""
        return separate_heads(self, self.controls.layer, self.x_TM)

    @cached_property
    def weight_HTS(self) -> Tensor:
        """The weights, computed in the chosen way."""
        is_split = self.controls.projection == "one matrix, split"
        return (self.steps[5].values if is_split else self.separate.weight_HTS).float().cpu()

    @cached_property
    def logits_V(self) -> Tensor:
        """The logits after the text without the heads that are off."""
        without = self.traces.get("without")
        return self.next_logits_V if without is None else without.logits([len(self.tokens) - 1])[0].cpu()

    @panel
    def query_weights(self) -> Heatmap:
        """The weights of the chosen query, one row per head."""
        query, labels, n_heads = self.position(self.controls.query), self.token_labels, self.config.n_heads
        shape = f"{n_heads} × {len(labels)}"
        title = f"Attention weights of {labels[query]} in all heads of layer {self.controls.layer} ({shape})"
        heads = [f"head {head}" for head in range(n_heads)][:MAX_HEATMAP_HEADS]
        shown = self.weight_HTS[:MAX_HEATMAP_HEADS, query]
        return probabilities(title, heads, labels, shown, selects=("head", "query"))

    @panel
    def head_weights(self) -> Heatmap:
        """The weights of the chosen head."""
        labels, controls = self.token_labels, self.controls
        place = f"layer {controls.layer}, head {controls.head} ({len(labels)} × {len(labels)})"
        weight_TS = self.weight_HTS[controls.head]
        return probabilities(f"Attention weights, {place}", labels, labels, weight_TS, selects=("query", ""))

    @panel
    def input_norms(self) -> Heatmap:
        """The norm of each head's rows of W_q over each slice of the input."""
        config, layer = self.config, self.controls.layer
        weight_XM, _ = parameters(self.block(layer).attention.query)
        weight_HDM = weight_XM.view(config.n_heads, config.d_head, config.d_model)
        slices = torch.arange(config.d_model).tensor_split(config.n_heads)
        norm_HI = torch.stack([weight_HDM[..., features].flatten(1).norm(dim=1) for features in slices], dim=1)
        blocks = torch.arange(len(weight_XM)).tensor_split(config.n_heads)
        rows, columns = ([f"{part[0].item()}–{part[-1].item()}" for part in parts] for parts in (blocks, slices))
        shape = f"{len(weight_XM)} × {config.d_model}"
        title = f"W_q of layer {layer} ({shape}): norm of each head's rows over slices of the input"
        return signed(title, rows[:MAX_HEATMAP_HEADS], columns, norm_HI[:MAX_HEATMAP_HEADS])

    @panel
    def projection_facts(self) -> Facts:
        """How many matrices there are, and how far the two ways differ."""
        config, projection = self.config, self.controls.projection
        is_split, n_rows = projection == "one matrix, split", config.n_heads * config.d_head
        matrices = f"1 of {n_rows}" if is_split else f"{config.n_heads} of {config.d_head}"
        difference = (self.steps[5].values - self.separate.weight_HTS).abs().max().item()
        named: dict[str, float | str] = {
            "matrices for the queries": f"{matrices} × {config.d_model}",
            "query heads": config.n_heads,
            "key and value heads": config.n_kv_heads,
            "largest difference of a weight between both methods": difference,
        }
        return facts(projection.capitalize(), named)

    @panel
    def array(self) -> Cube:
        """A corner of the array after the chosen step."""
        return array_corner(self.steps[self.controls.array_step], self)

    @panel
    def array_facts(self) -> Facts:
        """How the array is stored after the chosen step, and its shape in all steps."""
        return array_facts(self.steps, self.controls.array_step)

    @panel
    def probability_changes(self) -> Bars:
        """The change of a few next tokens' probabilities, without the heads that are switched off."""
        before_V = self.next_logits_V.softmax(-1)
        change_V = self.logits_V.softmax(-1) - before_V
        is_changed = bool(self.controls.heads_off)
        top = (change_V.abs() if is_changed else before_V).topk(N_CHANGED_TOKENS).indices
        title = f"Change of next-token probabilities, {'most changed' if is_changed else 'most probable'} first"
        return Bars(title=title, labels=self.ranked_labels(top), values=numbers(change_V[top]))

    @panel
    def output_changes(self) -> Bars:
        """The change of the layer's output relative to its length, for each token."""
        layer = self.controls.layer
        full_TM = array_steps(self, layer, self.x_TM, broken=self.controls.broken)[-1].values.float().cpu()
        change_T = (self.steps[-1].values.float().cpu() - full_TM).norm(dim=1)
        change_T = change_T / full_TM.norm(dim=1).clamp_min(1e-12)
        title = f"Relative change of the attention output of layer {layer}"
        return Bars(title=title, labels=self.token_labels, values=numbers(change_T), selects="query")

    @panel
    def effect(self) -> Facts:
        """The most probable next token with all heads and without those that are off."""
        before_V, after_V = self.next_logits_V.softmax(-1), self.logits_V.softmax(-1)
        label = self.model.tokenizer.label
        heads_off = ", ".join(map(str, sorted(set(self.controls.heads_off)))) or "none"
        named: dict[str, float | str] = {
            f"most probable next token {when}": f"{label(int(p_V.argmax()))} ({p_V.max().item():.2%})"
            for when, p_V in (("with all heads", before_V), ("now", after_V))
        }
        named["largest change of a logit"] = (self.logits_V - self.next_logits_V).abs().max().item()
        return facts(f"Layer {self.controls.layer}, heads switched off: {heads_off}", named)

    @torch.inference_mode()
    def checks(self) -> Iterator[Check]:
        """Split heads equal separate heads and the model's heads, and every head uses the whole input."""
        config, layer = self.config, self.controls.layer
        layer_attention, separate, x_TM = self.block(layer).attention, self.separate, self.x_TM.float().cpu()
        arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=self.dtype, n_roundings=4)
        weight_scale = self.weight_error_scale(layer)
        context_scale = weight_scale * largest(separate.context_HTD)
        query_scale = product_scales(x_TM, *parameters(layer_attention.query), self.dtype).max().item()
        for name, step, separate_values, scale in (
            ("queries", 3, separate.q_HTD, query_scale),
            ("weights", 5, separate.weight_HTS, weight_scale),
            ("context vectors", 6, separate.context_HTD, context_scale),
        ):
            name = f"split heads have the same {name} as separate heads"
            yield equal(name, self.steps[step].values, separate_values, arithmetic, scale)
        trace_context_HTD = self.trace.context(layer, range(config.n_heads))
        name = "the context vectors are the model's"
        yield equal(name, self.steps[6].values, trace_context_HTD, arithmetic, context_scale)
        joined_TX = self.steps[8].values.float().cpu()
        output_scale = weight_scale * product_norms(joined_TX, *parameters(layer_attention.output)).max().item()
        running_TM = self.traces.get("without", self.trace).observed("attention", layer)
        name = "the output is that of the layer in the running network"
        yield equal(name, self.steps[-1].values, running_TM, arithmetic, output_scale)
        n_joined, n_queries = trace_context_HTD.shape[0] * trace_context_HTD.shape[2], self.steps[1].values.shape[1]
        name = f"all heads together are as wide as the queries, {n_queries} (difference)"
        yield at_most(0, abs(n_joined - n_queries), name)
        full_V = self.traces["all heads"].logits([len(self.tokens) - 1])[0]
        name = "with no head switched off, the logits stay the same"
        yield equal(name, full_V, self.next_logits_V, self.whole_pass)
        yield self._input_check(x_TM, self.steps[1].values)

    def _input_check(self, x_TM: Tensor, q_TX: Tensor) -> Check:
        """The queries of each head depend on each slice of the input."""
        config = self.config
        weight_XM, _ = parameters(self.block(self.controls.layer).attention.query)
        changes = list[float]()
        for features in torch.arange(config.d_model).tensor_split(config.n_heads):
            part_THD = (x_TM[:, features] @ weight_XM[:, features].T).view(-1, config.n_heads, config.d_head)
            changes.append((part_THD.norm(dim=(0, 2)) / q_TX.float().norm().cpu()).min().item())
        name = "each head's queries change without any slice of the input (smallest relative change)"
        return at_least(Arithmetic(n_terms=config.d_model).error(), min(changes), name)


EXPERIMENT = Lesson(
    number=22,
    title="Many heads",
    posts=(PART_12, chapter("3.6")),
    work=MultiHeadWork,
    break_description="split the queries wrongly: head h gets the features h, h + H, h + 2H, … not consecutive ones",
    code_references=(
        "model/attention.py: Attention.forward, Attention._split",
        "app/lessons/head_arrays.py: array_steps, separate_heads",
    ),
)
