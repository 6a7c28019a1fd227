"""S25: what a longer text costs: arithmetic beside what this machine takes, and what a window forgets."""

# shapes: L layers, H heads, T tokens, D features of a head

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_most, different, does_not_apply, largest, printed
from app.lessons.clock import forward_milliseconds
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Curves, Facts, Line, facts, numbers
from app.lessons.posts import PART_14
from app.schemas import Index
from model.config import Config
from model.gpt import GPT
from model.tokenizer import token_label

Length = Literal["7", "64", "256", "1,024", "4,608", "16,384", "131,072", "1,047,576", "2,095,152"]
LENGTHS = tuple(int(length.replace(",", "")) for length in get_args(Length))
N_TIMED = (8, 16, 32, 64, 128, 256)  # tokens
BUDGET_S, N_MS = 0.15, 1000.0  # for a length, for all: when that is spent, no longer text is timed

GPT_2 = Config(  # the smallest one, for the figures that are known of it
    family="gpt2",
    n_layers=12,
    n_heads=12,
    n_kv_heads=12,
    d_model=768,
    d_head=64,
    d_mlp=3072,
    n_vocab=50257,
    n_context=1024,
    norm="layernorm",
    norm_eps=1e-5,
    positions="learned",
    mlp="gelu",
    tied=True,
    attention_bias=True,
    mlp_bias=True,
)

_measured: WeakKeyDictionary[GPT, list[float | None]] = WeakKeyDictionary()  # once for each network


class ComplexityRequest(LessonRequest):
    """A length to work out, and a window to look through."""

    length: Length = Field("1,024", title="Length", description="in tokens")
    timed: bool = Field(False, title="Time it", description="measured once on this machine, and kept")
    window: int = Field(
        3,
        title="Window",
        ge=1,
        le=64,
        description="how many tokens the model is still given",
        json_schema_extra={"playable": True},
    )
    changed: Index | None = Field(
        0, title="Changed token", description="another token is put in its place", json_schema_extra={"kind": "token"}
    )


class ComplexityResult(LessonResult):
    """Work and memory by arithmetic, time as measured, and a window."""

    work: Curves = Field(description="multiplications and additions of one layer, what grows with n and what with n²")
    at: Facts = Field(description="the chosen length, worked out")
    time: Curves = Field(description="ms for one reading, measured; `null` where nothing was measured")
    measured: Facts
    seen: Chips = Field(description="which tokens the model still gets")
    moved: Bars = Field(description="the largest changes of a probability after the text, through the window")


def linear_work(config: Config, n: int) -> int:
    """Multiplications and additions of one layer's projections and feed-forward network over n tokens.

    24·n·d² in GPT-2: 2 for each weight and token, and 12·d² weights.
    """
    d, d_keys = config.d_model, config.n_kv_heads * config.d_head
    matrices = 2 * d * config.n_heads * config.d_head + 2 * d * d_keys
    matrices += (3 if config.mlp == "swiglu" else 2) * d * config.d_mlp
    return 2 * n * matrices


def square_work(config: Config, n: int) -> int:
    """Of one layer's scores and context vectors, 4·n²·d; the masked half of them is worked out too."""
    return 4 * n * n * config.n_heads * config.d_head


def crossing(config: Config) -> float:
    """The length from which on a layer does more work for n² than for n; 6·d in GPT-2."""
    return linear_work(config, 1) / square_work(config, 1)


def weight_bytes(config: Config, n: int) -> int:
    """Of all attention weights of a text, where all are kept at a time in float32."""
    return config.n_layers * config.n_heads * n * n * 4


def cache_bytes(config: Config) -> int:
    """Of the keys and values of one more token, kept in float32: all that a reading that goes on needs of it."""
    return 2 * config.n_layers * config.n_kv_heads * config.d_head * 4


def timed(network: GPT) -> list[float | None]:
    """The ms of one reading of N_TIMED random tokens each; measured once, and not for longer than N_MS in all."""
    if network not in _measured:
        generator = torch.Generator().manual_seed(0)
        found: list[float | None] = []
        begun = time.perf_counter()
        for n in N_TIMED:
            is_over = 1000 * (time.perf_counter() - begun) > N_MS or n > network.config.n_context
            ids_BT = torch.randint(network.config.n_vocab, (1, n), generator=generator).to(network.device)
            found.append(None if is_over else forward_milliseconds(network, ids_BT, BUDGET_S))
        _measured[network] = found
    return _measured[network]


def exponent(took: list[float | None]) -> float:
    """Time ~ length to this power, over the longest three lengths that were timed; no number if nothing was."""
    known = [(math.log(n), math.log(ms)) for n, ms in zip(N_TIMED, took, strict=True) if ms][-3:]
    if len(known) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(known) for values in zip(*known, strict=True))
    return float(sum((x - mean_x) * (y - mean_y) for x, y in known) / sum((x - mean_x) ** 2 for x, _ in known))


@torch.inference_mode()
def through(reading: Reading, ids: tuple[int, ...], window: int) -> Tensor:
    """Probabilities after a text of which the model gets the last `window` tokens, (V,)."""
    network = reading.model.network
    ids_BT = torch.tensor([ids[-window:]], device=network.device)
    probability_V: Tensor = network.unembed(network.hidden(ids_BT)[0, -1]).float().softmax(-1).cpu()
    return probability_V


def _changed(reading: Reading, place: int) -> tuple[int, ...]:
    ids = list(reading.tokens.ids)
    ids[place] = (ids[place] + 1) % reading.config.n_vocab
    return tuple(ids)


def compute(reading: Reading, request: ComplexityRequest) -> ComplexityResult:
    """Arithmetic for the model's shape, times of this machine, and a text through a window."""
    config, n = reading.config, int(request.length.replace(",", ""))
    took: list[float | None] = timed(reading.model.network) if request.timed else [None] * len(N_TIMED)
    lengths = [float(length) for length in LENGTHS]
    line = partial(Line, x=lengths)
    linear, square = linear_work(config, n), square_work(config, n)
    place, n_tokens = reading.position(request.changed), len(reading.tokens)
    window = n_tokens if request.broken else request.window
    first = max(0, n_tokens - window)
    before_V, after_V = (through(reading, ids, window) for ids in (reading.tokens.ids, _changed(reading, place)))
    top = before_V.topk(min(8, len(before_V))).indices
    return ComplexityResult(
        work=Curves(
            title="share of a layer's work, by arithmetic",
            x_axis="tokens",
            marker=float(n),
            log=True,
            lines=[
                line(name="n², every token with every other", y=[_square_share(config, length) for length in LENGTHS]),
                line(name="n, every token by itself", y=[1 - _square_share(config, length) for length in LENGTHS]),
            ],
        ),
        at=facts(
            f"{n:,} tokens, by arithmetic",
            {
                "multiplications and additions of a layer, for n": float(linear),
                "for n²": float(square),
                "share of n²": square / (linear + square),
                "both are equal at, in tokens": crossing(config),
                "attention weights, all layers and heads": float(weight_bytes(config, n) // 4),
                "bytes of them in float32": float(weight_bytes(config, n)),
                "of them masked, worked out and thrown away": (n - 1) / (2 * n),
                "bytes of keys and values, kept to go on reading": float(n * cache_bytes(config)),
                "the model reads at most, in tokens": float(reading.model.n_context),
            },
        ),
        time=Curves(
            title=f"ms for one reading, on {reading.model.network.device}, median of a few rounds",
            x_axis="tokens",
            log=True,
            lines=[
                Line(name="measured", x=list(map(float, N_TIMED)), y=took),
                Line(name="by arithmetic, from the longest", x=list(map(float, N_TIMED)), y=_expected(config, took)),
            ],
        ),
        measured=facts(
            "what was measured, and what it would mean",
            {
                "time grows with length to the power of": exponent(took),
                "threads of the server's arithmetic": float(torch.get_num_threads()),
                f"hours for {LENGTHS[-2]:,} tokens, by arithmetic from the longest": _hours(config, took),
            },
        ),
        seen=Chips(
            title=f"a window of {window} tokens",
            rows=[
                ChipRow(
                    name="",
                    chips=[
                        Chip(
                            text=token_label(token.bytes),
                            faded=token.position < first,
                            about="changed" if token.position == place else "",
                        )
                        for token in reading.tokens.tokens
                    ],
                )
            ],
        ),
        moved=Bars(
            title=f"change of probabilities after the text when {reading.token_labels[place]} changes",
            labels=reading.ranked_labels(top),
            values=numbers((after_V - before_V)[top]),
        ),
    )


def _square_share(config: Config, n: int) -> float:
    return square_work(config, n) / (linear_work(config, n) + square_work(config, n))


def _expected(config: Config, took: list[float | None]) -> list[float | None]:
    """What the other lengths would take if time went with the work, from the longest that was timed."""
    known = [(n, ms) for n, ms in zip(N_TIMED, took, strict=True) if ms]
    if not known:
        return [None] * len(N_TIMED)
    longest, ms = known[-1]
    per_unit = ms / (linear_work(config, longest) + square_work(config, longest))
    return [per_unit * (linear_work(config, n) + square_work(config, n)) for n in N_TIMED]


def _hours(config: Config, took: list[float | None]) -> float:
    known = [(n, ms) for n, ms in zip(N_TIMED, took, strict=True) if ms]
    if not known:
        return math.nan
    longest, ms = known[-1]
    work = [linear_work(config, n) + square_work(config, n) for n in (longest, LENGTHS[-2])]
    return ms * work[1] / work[0] / 3_600_000


def checks(reading: Reading, request: ComplexityRequest) -> Iterator[Check]:
    """Arithmetic is counted on real arrays; what fell out of the window is forgotten, what is in it is not."""
    config, n = reading.config, len(reading.tokens)
    held = [reading.trace.stage("weights", layer, range(config.n_heads)).float() for layer in range(config.n_layers)]
    n_bytes = sum(weight_HTT.nbytes for weight_HTT in held)
    yield at_most(
        0, abs(n_bytes - weight_bytes(config, n)), "bytes of all weights of this text differ from L·H·n²·4 by"
    )
    matrices = [p for p in reading.block(0).parameters() if p.dim() == 2]
    linear = sum(2 * n * matrix.numel() for matrix in matrices)
    off = abs(linear - linear_work(config, n))
    yield at_most(0, off, "the work that grows with n differs from 2 for each weight and token by")
    yield at_most(
        0, abs(crossing(GPT_2) - 4608), "in GPT-2 the work for n and for n² is equal at 4,608 tokens, to within"
    )
    tera = weight_bytes(GPT_2, 1_047_576) / 1e12
    yield printed("its weights at 1,047,576 tokens differ from 632 TB by", tera, 632, digits=0)
    kept = sum(part.nbytes for one in reading.trace.chunks for part in (one.keys_LGTD.float(), one.values_LGTD.float()))
    yield at_most(0, abs(kept - n * cache_bytes(config)), "bytes of the keys and values kept differ by")
    window = max(1, n // 2)
    ids, other = reading.tokens.ids, _changed(reading, 0)
    before_V, after_V = (through(reading, one, n if request.broken else window) for one in (ids, other))
    outside = "a token outside the window moves a probability by"
    if n > 1:
        yield at_most(0, largest(before_V - after_V), outside)
    else:
        yield does_not_apply(outside, "a text of one token is all inside")
    inside_V = through(reading, _changed(reading, n - 1), window)
    yield different("a token inside moves one by", inside_V, before_V, Arithmetic())


LESSON = Lesson(
    system=25,
    title="What length costs",
    posts=(PART_14,),
    request_type=ComplexityRequest,
    result_type=ComplexityResult,
    compute=compute,
    checks=checks,
    breaks="give the model the whole text instead of the window",
    code=("model/attention.py: scores, context", "model/trace.py: Trace", "app/lessons/complexity.py: square_work"),
)
