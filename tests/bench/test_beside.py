"""The experiments beside a typist: they exist, and a refused run is noticed."""

import pytest

from app.experiments.base import experiments
from app.tools.ablation import MAX_WHOLE_TOKENS
from bench.beside import EXPERIMENTS, N_TOKENS, problem_of


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_accepts_its_controls(name: str) -> None:
    slug, given = EXPERIMENTS[name]
    controls = experiments()[slug].controls
    assert given.items() <= controls.model_validate({"text": "the fat cat", **given}).model_dump().items()
    assert given.keys() <= controls.model_fields.keys()


def test_the_ablation_takes_the_text() -> None:
    assert N_TOKENS <= MAX_WHOLE_TOKENS


@pytest.mark.parametrize(
    ("lines", "status", "problem"),
    [
        ([], 200, ""),
        (['{"model": "a"}', '{"name": "weights", "panel": {}}', '{"timings": null}'], 200, ""),
        (['{"model": "a"}', '{"problem": {"detail": "too long"}}'], 200, "too long"),
        (['{"detail": "Not Found"}'], 404, '{"detail": "Not Found"}'),
        ([], 503, "status 503"),
    ],
)
def test_a_refused_run_is_noticed(lines: list[str], status: int, problem: str) -> None:
    assert problem_of(iter(lines), status) == problem
