"""S25: the arithmetic counts what torch counts, and what is outside the window has no effect."""

# shapes: T tokens, V tokens of the vocabulary

import math
from collections.abc import Generator
from typing import TypeVar, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from app.experiments.base import PanelProgress
from app.lessons import complexity
from app.lessons.clock import TIMED_LENGTHS
from app.lessons.complexity import TEXT_LENGTHS, ComplexityWork
from app.lessons.cost import (
    GPT_2,
    attention_weight_bytes,
    cached_bytes_per_token,
    crossover_length,
    linear_operations,
    operations,
    quadratic_fraction,
    quadratic_operations,
)
from app.models import LoadedModel
from model.attention import staged_attention
from model.reading import read
from tests.app.experiments import checks_of, complete_work, make_work
from tests.app.lessons.oracle import SENTENCE, assert_near, lines, logits_with, named, number, values

T = TypeVar("T")
NOTHING_TIMED: list[float | None] = [None] * len(TIMED_LENGTHS)


def make_windows(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> ComplexityWork:
    """A lesson whose text is read through its windows."""
    return cast("ComplexityWork", complete_work(loaded, "complexity", text, **controls))


def counted_operations(loaded: LoadedModel, n: int) -> float:
    """The multiplications and additions that torch counts in one layer over n tokens."""
    network = loaded.network
    attention_fns = [staged_attention] * network.config.n_layers
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.hidden(torch.zeros(1, n, dtype=torch.long), attention_fns=attention_fns)
    return cast("float", counter.get_total_flops()) / network.config.n_layers


@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_operations_of_a_layer_are_those_that_torch_counts(loaded: LoadedModel, n: int) -> None:
    config = loaded.network.config
    assert operations(config, n) == counted_operations(loaded, n)
    assert quadratic_fraction(config, n) == quadratic_operations(config, n) / counted_operations(loaded, n)


def test_the_operations_that_grow_with_n_are_two_per_weight_and_token(loaded: LoadedModel) -> None:
    modules = loaded.network.blocks[0].modules()
    n_weights = sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear))
    assert linear_operations(loaded.network.config, 5) == 2 * 5 * n_weights


def test_gpt_2_has_the_numbers_of_the_post() -> None:
    """24·n·d² and 4·n²·d with d = 768: both are equal at n = 6·d."""
    assert linear_operations(GPT_2, 3) == 24 * 3 * 768**2
    assert quadratic_operations(GPT_2, 3) == 4 * 3**2 * 768
    assert crossover_length(GPT_2) == 6 * 768 == 4608
    assert quadratic_fraction(GPT_2, 4608) == 0.5
    assert attention_weight_bytes(GPT_2, 1000) == 12 * 12 * 1000**2 * 4
    assert attention_weight_bytes(GPT_2, 1_047_576) == pytest.approx(632e12, rel=1e-3)
    assert cached_bytes_per_token(GPT_2) == 12 * 2 * 768 * 4


def test_the_memory_is_that_of_real_arrays(loaded: LoadedModel) -> None:
    config, trace = loaded.network.config, read(loaded.network, loaded.tokens(SENTENCE).ids)
    n, layers = trace.n_tokens, range(config.n_layers)
    weights = [trace.stage("weights", layer, range(config.n_heads)).float().nbytes for layer in layers]
    assert attention_weight_bytes(config, n) == sum(weights)
    cached: list[Tensor] = []  # what a hook sees each layer get, for each token
    modules = [block.get_submodule("attention.heads") for block in loaded.network.blocks]
    handles = [m.register_forward_hook(lambda _, inputs, __: cached.extend(inputs[1:3])) for m in modules]
    loaded.network.hidden(torch.tensor([loaded.tokens(SENTENCE).ids]))
    for handle in handles:
        handle.remove()
    assert n * cached_bytes_per_token(config) == sum(tensor.nbytes for tensor in cached)


@pytest.mark.parametrize("length", ["7", "4,608", "2,095,152"])
def test_the_facts_of_a_length_are_its_arithmetic(lookback_gpt: LoadedModel, length: str) -> None:
    config, n = lookback_gpt.network.config, int(length.replace(",", ""))
    facts = make_windows(lookback_gpt, length=length).length_facts()
    d, n_layers, n_heads = config.d_model, config.n_layers, config.n_heads
    n_masked = n * (n - 1) / 2
    assert facts.title == f"{length} tokens, by arithmetic"
    assert facts.values == pytest.approx(
        [
            24 * n * d**2,
            4 * n**2 * d,
            n / (n + 6 * d),
            6 * d,
            n_layers * n_heads * n**2,
            n_layers * n_heads * n**2 * 4,
            n_masked / n**2,
            2 * n_layers * n * d * 4,
            64,
        ]
    )


def test_both_parts_of_the_operations_add_up_to_all(loaded: LoadedModel) -> None:
    panel = make_windows(loaded, length="4,608").operations()
    squares, rest = lines(panel).values()
    counted = [
        quadratic_operations(loaded.network.config, n) / operations(loaded.network.config, n) for n in TEXT_LENGTHS
    ]
    assert_near(squares, counted)
    assert_near(squares + rest, [1.0] * len(TEXT_LENGTHS))
    assert (panel.marker, panel.lines[0].x) == (4608.0, [float(n) for n in TEXT_LENGTHS])
    assert TEXT_LENGTHS[:4] == (7, 64, 256, 1024)


@pytest.mark.parametrize("window", [1, 3, 64])
@pytest.mark.parametrize("changed", [0, 5, None])
def test_the_predictions_are_those_of_a_network_that_is_given_the_end_of_the_text(
    loaded: LoadedModel, window: int, changed: int | None
) -> None:
    ids = list(loaded.tokens(SENTENCE).ids)
    work, position = (
        make_windows(loaded, window=window, changed_token=changed),
        len(ids) - 1 if changed is None else changed,
    )
    replaced = [*ids[:position], (ids[position] + 1) % loaded.network.config.n_vocab, *ids[position + 1 :]]
    before_V, after_V = (logits_with(loaded, text[-window:], {})[-1].softmax(-1) for text in (ids, replaced))
    top = before_V.topk(8).indices
    bars = work.probability_changes()
    assert_near(values(bars), (after_V - before_V)[top], relative=1e-3, absolute=1e-6)
    assert bars.labels == [f"{rank} {loaded.tokenizer.label(id)}" for rank, id in enumerate(top.tolist())]
    is_inside = position >= len(ids) - window
    assert any(bars.values) == is_inside
    chips = work.window_text().rows[0].chips
    assert [chip.faded for chip in chips] == [i < len(ids) - window for i in range(len(ids))]
    assert [chip.about for chip in chips] == ["replaced" if i == position else "" for i in range(len(ids))]


def test_a_broken_window_is_the_whole_text(loaded: LoadedModel) -> None:
    broken, whole = make_windows(loaded, window=2, broken=True), make_windows(loaded, window=64)
    assert broken.probability_changes() == whole.probability_changes()
    assert any(broken.probability_changes().values)
    assert not any(chip.faded for chip in broken.window_text().rows[0].chips)
    failed = [check.name for check in checks_of(broken) if check.passed is False]
    assert failed == ["replacing a token outside the window changes no probability"]


def last_of(steps: Generator[PanelProgress, None, T]) -> T:
    """What a panel that is computed in steps returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


@pytest.fixture
def quadratic_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def known_times(_: object) -> Generator[PanelProgress, None, list[float | None]]:
        yield PanelProgress(0, 1)
        return [*(float(n * n) for n in TIMED_LENGTHS[:-1]), None]

    monkeypatch.setattr(complexity, "length_milliseconds", known_times)


@pytest.mark.usefixtures("quadratic_times")
def test_times_are_shown_as_measured_and_extrapolated_from_the_longest(lookback_gpt: LoadedModel) -> None:
    """Times that are the square of the length grow with its power 2."""
    work, config = make_windows(lookback_gpt, timed=True), lookback_gpt.network.config
    curves, facts = last_of(work.times()), last_of(work.time_facts())
    measured, by_arithmetic = lines(curves).values()
    assert measured[:-1].tolist() == [64.0, 256.0, 1024.0, 4096.0, 16384.0]
    assert math.isnan(measured[-1])
    ms_per_operation = 128**2 / operations(config, 128)
    assert_near(by_arithmetic, [ms_per_operation * operations(config, n) for n in TIMED_LENGTHS])
    assert number(facts, "time grows with the length to the power of") == pytest.approx(2)
    hours = ms_per_operation * operations(config, 1_047_576) / 3.6e6
    assert number(facts, "hours for 1,047,576 tokens, extrapolated from the longest") == pytest.approx(hours)
    assert number(facts, "threads used by the server") == torch.get_num_threads()


@pytest.mark.usefixtures("quadratic_times")
def test_nothing_is_measured_until_it_is_asked_for(lookback_gpt: LoadedModel) -> None:
    work = cast("ComplexityWork", make_work(lookback_gpt, "complexity", SENTENCE))
    assert last_of(work.measured()) == NOTHING_TIMED
    assert all(y.isnan().all() for y in lines(last_of(work.times())).values())
    facts = named(last_of(work.time_facts()))
    assert (facts["time grows with the length to the power of"], list(facts.values())[-1]) == (None, None)
