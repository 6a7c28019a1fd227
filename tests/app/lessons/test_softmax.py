"""S06: own logits give probabilities that can be checked in the head; the model's are those that it predicts with."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.experiments.panels import AnyPanel, Bars
from app.lessons.softmax import softmax
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import SENTENCE, assert_near, named, number, values

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0]


def shown(loaded: LoadedModel, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "softmax", SENTENCE, **controls))


def test_logits_that_differ_by_the_logarithm_of_3_have_probabilities_of_a_quarter_and_three(
    lookback_gpt: LoadedModel,
) -> None:
    panels = shown(lookback_gpt, logits=[0.0, math.log(3)], naive=True)
    assert values(panels["exponentials"]).tolist() == pytest.approx([1, 3])
    assert values(panels["probabilities"]).tolist() == pytest.approx([0.25, 0.75])
    expected = {"sum of the exponentials": 4, "sum of the probabilities": 1, "largest probability": 0.75}
    assert named(panels["facts"]) == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "shift"), [(1.0, 0.0), (0.5, 3.0), (5.0, 1000.0)])
def test_each_step_is_that_of_plain_python(lookback_gpt: LoadedModel, temperature: float, shift: float) -> None:
    panels = shown(lookback_gpt, temperature=temperature, shift=shift)
    shifted = [logit / temperature + shift for logit in LOGITS]
    powers = [math.exp(logit - max(shifted)) for logit in shifted]
    assert values(panels["logits"]).tolist() == pytest.approx(shifted)
    assert values(panels["exponentials"]).tolist() == pytest.approx(powers)
    assert values(panels["probabilities"]).tolist() == pytest.approx([power / sum(powers) for power in powers])
    assert number(panels["facts"], "sum of the exponentials") == pytest.approx(sum(powers))
    assert number(panels["facts"], "largest probability") == pytest.approx(max(powers) / sum(powers))


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(-500, 500))
def test_softmax_is_that_of_torch_and_adding_a_number_to_every_logit_changes_nothing(
    logits: list[float], added: float
) -> None:
    logits_K = torch.tensor(logits, dtype=torch.double)
    p_K = softmax(logits_K, naive=False)[1]
    torch.testing.assert_close(p_K, logits_K.softmax(-1))
    torch.testing.assert_close(softmax(logits_K + added, naive=False)[1], p_K)
    torch.testing.assert_close(softmax(logits_K, naive=True)[1], p_K)


@pytest.mark.parametrize("wrong", [{"naive": True}, {"broken": True}])
def test_the_exponentials_of_the_naive_softmax_overflow_and_leave_no_probability(
    lookback_gpt: LoadedModel, wrong: dict[str, bool]
) -> None:
    right = shown(lookback_gpt, shift=1000.0)
    overflown = shown(lookback_gpt, shift=1000.0, **wrong)
    assert values(right["probabilities"]).sum().item() == pytest.approx(1)
    assert values(overflown["exponentials"]).isnan().all()
    assert values(overflown["probabilities"]).isnan().all()
    titles = [panel.title for panel in (right["exponentials"], overflown["exponentials"])]
    assert titles == ["Exponentials e^(z − max z)", "Exponentials e^z"]


def test_a_higher_temperature_makes_the_largest_probability_smaller(lookback_gpt: LoadedModel) -> None:
    largest = [
        number(shown(lookback_gpt, temperature=temperature)["facts"], "largest probability")
        for temperature in (0.1, 0.5, 1.0, 2.0, 5.0)
    ]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0.99
    assert largest[-1] < 0.3  # five equal ones would be 0.2


def test_the_model_s_logits_are_the_largest_of_its_prediction_in_their_order(loaded: LoadedModel) -> None:
    panels = shown(loaded, source="model")
    with torch.inference_mode():
        logits = loaded.network(torch.tensor([loaded.tokens(SENTENCE).ids]))[0, -1].tolist()
    best = sorted(range(len(logits)), key=lambda id: -logits[id])[:20]
    assert_near(values(panels["logits"]), torch.tensor([logits[id] for id in best]))
    assert_near(values(panels["probabilities"]), torch.tensor([logits[id] for id in best]).softmax(-1))
    probabilities = panels["probabilities"]
    assert isinstance(probabilities, Bars)
    assert probabilities.chosen == 0
    assert probabilities.labels == [f"{rank} {loaded.tokenizer.label(id)}" for rank, id in enumerate(best)]
