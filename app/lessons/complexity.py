"""S25: how the cost of attention grows with the length of a text, and what a model with a short window does not see."""

# shapes: H heads, T tokens, V tokens of the vocabulary, L layers, G key heads, D features of a head

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, different, does_not_apply, largest, printed
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
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Curves, Facts, Line, facts, numbers
from app.lessons.posts import PART_14
from app.schemas import Index
from model.config import Config
from model.tokenizer import token_label

TextLength = Literal["7", "64", "256", "1,024", "4,608", "16,384", "131,072", "1,047,576", "2,095,152"]
TEXT_LENGTHS = tuple(int(length.replace(",", "")) for length in get_args(TextLength))
LONG_TEXT = TEXT_LENGTHS[-2]
N_WINDOW_PREDICTIONS = 8


class ComplexityRequest(LessonRequest):
    """A length to compute the cost of, and a window to read the text through."""

    length: TextLength = Field("1,024", title="Length", description="computes the cost of a text of this many tokens")
    timed: bool = Field(
        False, title="Time it", description="measures the times on this machine, once; later it shows the same ones"
    )
    window: int = Field(
        3,
        title="Window",
        ge=1,
        le=64,
        description="gives the model only this many tokens at the end of the text",
        json_schema_extra={"playable": True},
    )
    changed_token: Index | None = Field(
        0,
        title="Changed token",
        description="replaces this token by another one",
        json_schema_extra={"kind": "token"},
    )


class ComplexityResult(LessonResult):
    """Operations and memory by arithmetic, times as measured, and predictions through a window."""

    operations: Curves = Field(description="of one layer: the part that grows with n, and the part that grows with n²")
    length_facts: Facts = Field(description="the cost of the chosen length")
    times: Curves = Field(description="milliseconds per forward pass; `null` where nothing was measured")
    time_facts: Facts
    window_text: Chips = Field(description="the tokens inside the window, and those outside")
    probability_changes: Bars = Field(description="of the next token, when the changed token is replaced")


@torch.inference_mode()
def window_probabilities(reading: Reading, ids: Sequence[int], window: int) -> Tensor:
    """Next-token probabilities of a model that is given only the last `window` tokens of a text, (V,)."""
    network = reading.model.network
    ids_BT = torch.tensor([ids[-window:]], device=network.device)
    probability_V: Tensor = network.unembed(network.hidden(ids_BT)[0, -1]).float().softmax(-1).cpu()
    return probability_V


def _with_token_replaced(reading: Reading, position: int) -> list[int]:
    ids = list(reading.tokens.ids)
    ids[position] = (ids[position] + 1) % reading.config.n_vocab
    return ids


def compute(reading: Reading, request: ComplexityRequest) -> ComplexityResult:
    """The cost of a length by arithmetic, the times of this machine, and the model's predictions through a window."""
    times: list[float | None] = [None] * len(TIMED_LENGTHS)
    if request.timed:
        times = length_milliseconds(reading.model.network)
    long_text_ms = extrapolated_ms(reading.config, times, LONG_TEXT)
    n = int(request.length.replace(",", ""))
    position = reading.position(request.changed_token)
    window = len(reading.tokens) if request.broken else request.window
    before_V, after_V = (
        window_probabilities(reading, ids, window)
        for ids in (reading.tokens.ids, _with_token_replaced(reading, position))
    )
    top = before_V.topk(min(N_WINDOW_PREDICTIONS, len(before_V))).indices
    return ComplexityResult(
        operations=_operations_curves(reading.config, n),
        length_facts=_length_facts(reading, n),
        times=_time_curves(reading, times),
        time_facts=facts(
            "Measured times, and an extrapolation",
            {
                "time grows with the length to the power of": growth_exponent(times),
                "threads used by the server": float(torch.get_num_threads()),
                f"hours for {LONG_TEXT:,} tokens, extrapolated from the longest": long_text_ms / 3_600_000,
            },
        ),
        window_text=_window_text(reading, window, position),
        probability_changes=Bars(
            title=f"Change of next-token probabilities when {reading.token_labels[position]} is replaced",
            labels=reading.ranked_labels(top),
            values=numbers((after_V - before_V)[top]),
        ),
    )


def _operations_curves(config: Config, n: int) -> Curves:
    """The two parts of a layer's operations over the length; n is marked."""
    fractions = [quadratic_fraction(config, length) for length in TEXT_LENGTHS]
    line = partial(Line, x=[float(length) for length in TEXT_LENGTHS])
    return Curves(
        title="Fraction of a layer's operations, by arithmetic",
        x_axis="tokens",
        marker=float(n),
        log=True,
        lines=[
            line(name="n²: every token with every other", y=fractions),
            line(name="n: every token by itself", y=[1 - fraction for fraction in fractions]),
        ],
    )


def _length_facts(reading: Reading, n: int) -> Facts:
    config = reading.config
    return facts(
        f"{n:,} tokens, by arithmetic",
        {
            "multiplications and additions of a layer that grow with n": float(linear_operations(config, n)),
            "those that grow with n²": float(quadratic_operations(config, n)),
            "fraction that grows with n²": quadratic_fraction(config, n),
            "length at which both are equal, in tokens": crossover_length(config),
            "attention weights in all layers and heads": float(attention_weight_bytes(config, n) // 4),
            "their memory in float32, in bytes": float(attention_weight_bytes(config, n)),
            "fraction of them that is masked": (n - 1) / (2 * n),
            "memory of cached keys and values, in bytes": float(n * cached_bytes_per_token(config)),
            "longest text of the model, in tokens": float(reading.model.max_tokens),
        },
    )


def _time_curves(reading: Reading, times: Sequence[float | None]) -> Curves:
    lengths = list(map(float, TIMED_LENGTHS))
    expected = [extrapolated_ms(reading.config, times, n) for n in TIMED_LENGTHS]
    return Curves(
        title=f"Milliseconds per forward pass, on {reading.model.network.device}, median of a few rounds",
        x_axis="tokens",
        log=True,
        lines=[
            Line(name="measured", x=lengths, y=[*times]),
            Line(
                name="by arithmetic, from the longest", x=lengths, y=[None if math.isnan(ms) else ms for ms in expected]
            ),
        ],
    )


def _window_text(reading: Reading, window: int, changed: int) -> Chips:
    """The text; tokens outside the window are faded, and the replaced token is marked."""
    n_outside = len(reading.tokens) - window
    chips = [
        Chip(
            text=token_label(token.bytes),
            faded=token.position < n_outside,
            about="replaced" if token.position == changed else "",
        )
        for token in reading.tokens.tokens
    ]
    return Chips(title=f"A window of {window} tokens", rows=[ChipRow(name="", chips=chips)])


def checks(reading: Reading, request: ComplexityRequest) -> Iterator[Check]:
    """The formulas count what real arrays hold; a token outside the window has no effect, a token inside has one."""
    config, n = reading.config, len(reading.tokens)
    heads = range(config.n_heads)
    weights = [reading.trace.stage("weights", layer, heads).float() for layer in range(config.n_layers)]
    n_bytes = sum(weight_HTT.nbytes for weight_HTT in weights)
    difference: float = abs(n_bytes - attention_weight_bytes(config, n))
    yield at_most(0, difference, "all attention weights of this text take L·H·n²·4 bytes (difference in bytes)")
    n_weights = sum(parameter.numel() for parameter in reading.block(0).parameters() if parameter.dim() == 2)
    difference = abs(2 * n * n_weights - linear_operations(config, n))
    yield at_most(0, difference, "the operations that grow with n are 2 for each weight and token (difference)")
    difference = abs(crossover_length(GPT_2) - 4608)
    yield at_most(0, difference, "in GPT-2, both parts of the operations are equal at 4,608 tokens (difference)")
    terabytes = attention_weight_bytes(GPT_2, 1_047_576) / 1e12
    yield printed(
        "GPT-2's attention weights take 632 TB at 1,047,576 tokens (difference in TB)", terabytes, 632, digits=0
    )
    cached = sum(
        tensor.nbytes
        for chunk in reading.trace.chunks
        for tensor in (chunk.keys_LGTD.float(), chunk.values_LGTD.float())
    )
    difference = abs(cached - n * cached_bytes_per_token(config))
    yield at_most(0, difference, "the cached keys and values take as many bytes as predicted (difference)")
    yield from _window_checks(reading, broken=request.broken)


def _window_checks(reading: Reading, *, broken: bool) -> Iterator[Check]:
    """Replacing a token changes the predictions only if it is inside the window."""
    ids, n = reading.tokens.ids, len(reading.tokens)
    window = max(1, n // 2)
    before_V, after_V = (
        window_probabilities(reading, text, n if broken else window) for text in (ids, _with_token_replaced(reading, 0))
    )
    name = "replacing a token outside the window changes no probability"
    if n > 1:
        yield at_most(0, largest(before_V - after_V), name)
    else:
        yield does_not_apply(name, "the only token of this text is inside the window")
    inside_V = window_probabilities(reading, _with_token_replaced(reading, n - 1), window)
    yield different("replacing a token inside the window changes one", inside_V, before_V, Arithmetic())


LESSON = Lesson(
    number=25,
    title="What length costs",
    posts=(PART_14,),
    request_type=ComplexityRequest,
    result_type=ComplexityResult,
    compute=compute,
    checks=checks,
    break_description="give the model the whole text instead of the window",
    code_references=(
        "model/attention.py: scores, context",
        "model/trace.py: Trace",
        "app/lessons/cost.py: quadratic_operations",
    ),
)
