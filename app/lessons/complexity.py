"""S25: how the cost of attention grows with the length of a text, and what a model with a short window does not see."""

# shapes: T tokens, V tokens of the vocabulary

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import Lesson, PanelProgress, Work, panel
from app.experiments.checks import Arithmetic, Check, at_most, different, does_not_apply, largest, printed
from app.experiments.controls import Choice, Controls, Slider, Switch, TokenOf
from app.experiments.panels import Bars, Chip, ChipRow, Chips, Curves, Facts, Line, facts, numbers
from app.lessons.clock import TIMED_LENGTHS, extrapolated_ms, growth_exponent, length_milliseconds
from app.lessons.cost import (
    GPT_2,
    attention_weight_bytes,
    cached_bytes_per_token,
    crossover_length,
    linear_operations,
    quadratic_fraction,
    quadratic_operations,
)
from app.lessons.posts import PART_14
from model.tokenizer import token_label

TextLength = Literal["7", "64", "256", "1,024", "4,608", "16,384", "131,072", "1,047,576", "2,095,152"]
TEXT_LENGTHS = tuple(int(length.replace(",", "")) for length in get_args(TextLength))
LONG_TEXT = TEXT_LENGTHS[-2]
N_WINDOW_PREDICTIONS = 8


class ComplexityControls(Controls):
    """A length to compute the cost of, and a window to read the text through."""

    length: Annotated[TextLength, Choice("Length", "computes the cost of a text of this many tokens")] = "1,024"
    timed: Annotated[
        bool, Switch("Time it", "measures the times on this machine, once; later it shows the same ones")
    ] = False
    window: Annotated[
        int, Slider(1, 64, 1, "Window", "gives the model only this many tokens at the end of the text", playable=True)
    ] = 3
    changed_token: Annotated[int | None, TokenOf("Changed token", "replaces this token by another one")] = 0


class ComplexityWork(Work):
    """Operations and memory by arithmetic, times as measured, and predictions through a window."""

    controls: ComplexityControls

    @property
    def changed(self) -> int:
        """The position of the token that is replaced."""
        return self.position(self.controls.changed_token)

    @property
    def window(self) -> int:
        """How many tokens at the end of the text the model is given."""
        return len(self.tokens) if self.controls.broken else self.controls.window

    def replaced(self, position: int) -> tuple[int, ...]:
        """The ids of the text with one of them replaced by the next id."""
        return self.with_token(position, (self.tokens.ids[position] + 1) % self.config.n_vocab)

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """The last tokens of the text, as they are and with one replaced."""
        yield {
            "before": Reading(self.tokens.ids[-self.window :]),
            "after": Reading(self.replaced(self.changed)[-self.window :]),
        }

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The second half of the text, as it is and with a token outside or inside of it replaced."""
        n = len(self.tokens)
        window = n if self.controls.broken else max(1, n // 2)
        texts = {"half": self.tokens.ids, "outside": self.replaced(0)}
        readings = {name: Reading(ids[-window:], is_fresh=True) for name, ids in texts.items()}
        yield readings | {"inside": Reading(self.replaced(n - 1)[-max(1, n // 2) :], is_fresh=True)}

    def probability_V(self, name: str) -> Tensor:
        """Next-token probabilities after one of the readings, (V,)."""
        trace = self.traces[name]
        return trace.logits([trace.n_tokens - 1])[0].softmax(-1).cpu()

    @property
    def length(self) -> int:
        """The length whose cost is computed."""
        return int(self.controls.length.replace(",", ""))

    @panel
    def operations(self) -> Curves:
        """The fraction of one layer's operations that grows with n, and that which grows with n²."""
        fractions = [quadratic_fraction(self.config, length) for length in TEXT_LENGTHS]
        parts = {
            "n²: every token with every other": fractions,
            "n: every token by itself": [1 - fraction for fraction in fractions],
        }
        lengths = [float(length) for length in TEXT_LENGTHS]
        return Curves(
            title="Fraction of a layer's operations, by arithmetic",
            x_axis="tokens",
            marker=float(self.length),
            log=True,
            lines=[Line(name=name, x=lengths, y=[*values]) for name, values in parts.items()],
        )

    @panel
    def length_facts(self) -> Facts:
        """The cost of the chosen length."""
        config, n = self.config, self.length
        named = {
            "multiplications and additions of a layer that grow with n": float(linear_operations(config, n)),
            "those that grow with n²": float(quadratic_operations(config, n)),
            "fraction that grows with n²": quadratic_fraction(config, n),
            "length at which both are equal, in tokens": crossover_length(config),
            "attention weights in all layers and heads": float(attention_weight_bytes(config, n) // 4),
            "their memory in float32, in bytes": float(attention_weight_bytes(config, n)),
            "fraction of them that is masked": (n - 1) / (2 * n),
            "memory of cached keys and values, in bytes": float(n * cached_bytes_per_token(config)),
            "longest text of the model, in tokens": float(self.model.max_tokens),
        }
        return facts(f"{n:,} tokens, by arithmetic", named)

    def measured(self) -> Generator[PanelProgress, None, list[float | None]]:
        """Milliseconds per forward pass for each of TIMED_LENGTHS; None where nothing was measured."""
        if not self.controls.timed:
            return [None] * len(TIMED_LENGTHS)
        return (yield from length_milliseconds(self.network))

    @panel
    def times(self) -> Generator[PanelProgress, None, Curves]:
        """Milliseconds per forward pass; `null` where nothing was measured."""
        times = yield from self.measured()
        expected = [extrapolated_ms(self.config, times, n) for n in TIMED_LENGTHS]
        lengths = list(map(float, TIMED_LENGTHS))
        by_arithmetic = [None if math.isnan(ms) else ms for ms in expected]
        return Curves(
            title=f"Milliseconds per forward pass, on {self.network.device}, median of a few rounds",
            x_axis="tokens",
            log=True,
            lines=[
                Line(name="measured", x=lengths, y=times),
                Line(name="by arithmetic, from the longest", x=lengths, y=by_arithmetic),
            ],
        )

    @panel
    def time_facts(self) -> Generator[PanelProgress, None, Facts]:
        """How the measured times grow, and an extrapolation."""
        times = yield from self.measured()
        hours = extrapolated_ms(self.config, times, LONG_TEXT) / 3_600_000
        named = {
            "time grows with the length to the power of": growth_exponent(times),
            "threads used by the server": float(torch.get_num_threads()),
            f"hours for {LONG_TEXT:,} tokens, extrapolated from the longest": hours,
        }
        return facts("Measured times, and an extrapolation", named)

    @panel
    def window_text(self) -> Chips:
        """The tokens inside the window, and those outside, which are faded."""
        n_outside = len(self.tokens) - self.window
        chips = [
            Chip(
                text=token_label(token.bytes),
                faded=token.position < n_outside,
                about="replaced" if token.position == self.changed else "",
            )
            for token in self.tokens.tokens
        ]
        return Chips(title=f"A window of {self.window} tokens", rows=[ChipRow(name="", chips=chips)])

    @panel
    def probability_changes(self) -> Bars:
        """The change of the next token's probabilities, when the changed token is replaced."""
        before_V, after_V = self.probability_V("before"), self.probability_V("after")
        top = before_V.topk(min(N_WINDOW_PREDICTIONS, len(before_V))).indices
        title = f"Change of next-token probabilities when {self.token_labels[self.changed]} is replaced"
        return Bars(title=title, labels=self.ranked_labels(top), values=numbers((after_V - before_V)[top]))

    def checks(self) -> Iterator[Check]:
        """The formulas count what real arrays hold; a token outside the window has no effect, one inside has one."""
        config, n = self.config, len(self.tokens)
        heads = range(config.n_heads)
        n_bytes = sum(self.trace.stage("weights", layer, heads).float().nbytes for layer in range(config.n_layers))
        difference: float = abs(n_bytes - attention_weight_bytes(config, n))
        yield at_most(0, difference, "all attention weights of this text take L·H·n²·4 bytes (difference in bytes)")
        n_weights = sum(parameter.numel() for parameter in self.block(0).parameters() if parameter.dim() == 2)
        difference = abs(2 * n * n_weights - linear_operations(config, n))
        yield at_most(0, difference, "the operations that grow with n are 2 for each weight and token (difference)")
        difference = abs(crossover_length(GPT_2) - 4608)
        yield at_most(0, difference, "in GPT-2, both parts of the operations are equal at 4,608 tokens (difference)")
        terabytes = attention_weight_bytes(GPT_2, 1_047_576) / 1e12
        name = "GPT-2's attention weights take 632 TB at 1,047,576 tokens (difference in TB)"
        yield printed(name, terabytes, 632, digits=0)
        pairs = ((chunk.keys_LGTD, chunk.values_LGTD) for chunk in self.trace.chunks)
        cached = sum(tensor.float().nbytes for pair in pairs for tensor in pair)
        difference = abs(cached - n * cached_bytes_per_token(config))
        yield at_most(0, difference, "the cached keys and values take as many bytes as predicted (difference)")
        yield from self._window_checks()

    def _window_checks(self) -> Iterator[Check]:
        """Replacing a token changes the predictions only if it is inside the window."""
        half_V, name = self.probability_V("half"), "replacing a token outside the window changes no probability"
        if len(self.tokens) > 1:
            yield at_most(0, largest(half_V - self.probability_V("outside")), name)
        else:
            yield does_not_apply(name, "the only token of this text is inside the window")
        name = "replacing a token inside the window changes one"
        yield different(name, self.probability_V("inside"), half_V, Arithmetic())


EXPERIMENT = Lesson(
    number=25,
    title="What length costs",
    posts=(PART_14,),
    work=ComplexityWork,
    break_description="give the model the whole text instead of the window",
    code_references=(
        "model/attention.py: scores, context",
        "model/trace.py: Trace",
        "app/lessons/cost.py: quadratic_operations",
    ),
)
