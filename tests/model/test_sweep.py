"""A sweep over heads gives what one edited reading per head gives."""

import pytest
import torch

from model.edits import NO_EDITS, Edit, Edits
from model.gpt import GPT
from model.reading import read
from model.sites import ObservedSite
from model.sweep import N_STEP_ROWS, sweep_heads
from model.trace import Trace
from model.weights.folder import load
from tests.checkpoints import write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

IDS = (5, 9, 200, 9, 31, 5, 399, 17, 0, 260, 44)
ALL_HEADS = [(layer, head) for layer in range(3) for head in range(4)]
SITES: frozenset[ObservedSite] = frozenset({"embedding", "block"})


@pytest.fixture(scope="module", params=[write_gpt2, write_llama])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GPT:
    return load(request.param(tmp_path_factory.mktemp("sweep") / "tiny"), device=CPU, dtype=FLOAT)[0]


@pytest.fixture(scope="module")
def trace(network: GPT) -> Trace:
    return read(network, IDS, NO_EDITS, SITES)


@pytest.mark.parametrize("first", [0, 4, 10])
@pytest.mark.parametrize("heads", [ALL_HEADS, [(2, 3), (1, 0), (1, 2)]], ids=["all", "three"])
def test_a_sweep_equals_one_edited_reading_per_head(
    network: GPT, trace: Trace, first: int, heads: list[tuple[int, int]]
) -> None:
    steps = list(sweep_heads(trace, heads, first))
    swept = [head for step in steps for head in step.heads]
    assert swept == sorted(heads)
    hidden_BRM = torch.cat([step.hidden_BRM for step in steps if step.hidden_BRM is not None])
    for (layer, head), hidden_RM in zip(swept, hidden_BRM, strict=True):
        edits = Edits((Edit("context", layer, (head,), first=first, scale=0.0),))
        torch.testing.assert_close(hidden_RM, read(network, IDS, edits).hidden_TM[first:], atol=1e-5, rtol=1e-5)


def test_a_text_of_one_token_can_be_swept(network: GPT) -> None:
    (step,) = sweep_heads(read(network, IDS[:1], NO_EDITS, frozenset({"embedding"})), [(0, 1)], 0)
    edits = Edits((Edit("context", 0, (1,), scale=0.0),))
    assert step.hidden_BRM is not None
    torch.testing.assert_close(step.hidden_BRM[0], read(network, IDS[:1], edits).hidden_TM, atol=1e-5, rtol=1e-5)


def test_a_long_sweep_takes_several_steps_and_says_how_far_it_is(network: GPT) -> None:
    ids = [(7 * i + i * i) % 400 for i in range(60)]
    steps = list(sweep_heads(read(network, ids, NO_EDITS, SITES), ALL_HEADS, 0))
    n_done = [step.n_done for step in steps]
    assert n_done == sorted(n_done)
    assert n_done[-1] == steps[-1].n_total == 60 * 4 * (3 + 2 + 1)
    assert max(b - a for a, b in zip([0, *n_done], n_done, strict=False)) <= N_STEP_ROWS + 4 * 60


def test_what_cannot_be_swept_is_refused_at_once(network: GPT, trace: Trace) -> None:
    with pytest.raises(ValueError, match="starts from block, which was not observed"):
        sweep_heads(read(network, IDS, NO_EDITS, frozenset({"embedding"})), ALL_HEADS, 0)
    with pytest.raises(ValueError, match="first is 11; this text has 11 tokens"):
        sweep_heads(trace, ALL_HEADS, 11)
    with pytest.raises(ValueError, match=r"head 3\.0 does not exist"):
        sweep_heads(trace, [(3, 0)], 0)
    with pytest.raises(ValueError, match="at least one head"):
        sweep_heads(trace, [], 0)
    with pytest.raises(ValueError, match="starts from the unedited trace"):
        sweep_heads(read(network, IDS, Edits((Edit("mlp", 0, scale=0.0),)), SITES), ALL_HEADS, 0)
