"""Generated text: the right next tokens and probabilities, reproducible with a seed, and fast with the cache."""

import math
from collections import Counter

import pytest
import torch

from model.cache import PrefixCache
from model.generate import GREEDY, Prompt, Sampling, generate, next_token_candidates, sample_token
from model.gpt import GPT
from model.reading import read
from model.weights.folder import load
from tests.checkpoints import write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

PROMPT = [17, 42, 99, 42, 17, 3, 250]
N_CONTEXT = 64  # of the tiny networks
UNCHANGED = Sampling()  # draws from the model's own distribution


@pytest.fixture(scope="module", params=[write_gpt2, write_llama])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GPT:
    return load(request.param(tmp_path_factory.mktemp("generate") / "tiny"), device=CPU, dtype=FLOAT)[0]


def seeded(ids: list[int], seed: int, sampling: Sampling = UNCHANGED) -> Prompt:
    return Prompt(ids=ids, sampling=sampling, generator=torch.Generator().manual_seed(seed))


def continue_texts(
    network: GPT, prompts: list[Prompt], n_tokens: int, stop_ids: tuple[int, ...] = (), cache: PrefixCache | None = None
) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    for number, id in generate(network, prompts, n_tokens=n_tokens, stop_ids=stop_ids, cache=cache):
        texts[number].append(id)
    return texts


def continue_text(network: GPT, prompt: Prompt, n_tokens: int, stop_ids: tuple[int, ...] = ()) -> list[int]:
    return continue_texts(network, [prompt], n_tokens, stop_ids)[0]


# --- which token comes next ---


def test_greedy_sampling_takes_the_argmax_of_the_logits_of_the_whole_text(network: GPT) -> None:
    ids = list(PROMPT)
    for id in continue_text(network, Prompt(ids=PROMPT, sampling=GREEDY), 40):
        with torch.inference_mode():
            assert id == int(network(torch.tensor([ids]))[0, -1].argmax())
        ids.append(id)
    assert len(ids) == len(PROMPT) + 40


@pytest.mark.parametrize("sampling", [Sampling(temperature=1e-30), Sampling(top_k=1), Sampling(top_p=1e-9)])
def test_a_tiny_temperature_a_top_k_of_1_and_a_tiny_top_p_are_greedy(network: GPT, sampling: Sampling) -> None:
    greedy = continue_text(network, Prompt(ids=PROMPT, sampling=GREEDY), 20)
    assert continue_text(network, seeded(PROMPT, 0, sampling), 20) == greedy


def test_candidates_have_the_probabilities_computed_by_hand() -> None:
    logits_V = torch.tensor([0.2, 0.5, 0.3]).log()
    for sampling, ids, probabilities in (
        (Sampling(), [1, 2, 0], [0.5, 0.3, 0.2]),
        (Sampling(temperature=0.5), [1, 2, 0], [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),  # squares
        (Sampling(top_k=2), [1, 2], [0.625, 0.375]),
        (Sampling(top_k=9), [1, 2, 0], [0.5, 0.3, 0.2]),
        (Sampling(top_p=0.45), [1, 2, 0], [1.0, 0.0, 0.0]),
        (Sampling(top_p=0.55), [1, 2, 0], [0.625, 0.375, 0.0]),
        (Sampling(top_k=2, top_p=0.6), [1, 2], [1.0, 0.0]),  # top_p applies to what top_k leaves
        (GREEDY, [1], [1.0]),
    ):
        ids_K, probabilities_K = next_token_candidates(logits_V, sampling)
        assert ids_K.tolist() == ids, sampling
        assert probabilities_K.tolist() == pytest.approx(probabilities, abs=1e-6), sampling


def test_top_p_keeps_the_fewest_tokens_whose_probabilities_reach_it() -> None:
    _, probabilities_K = next_token_candidates(torch.tensor([0.5, 0.25, 0.25]).log(), Sampling(top_p=0.5))
    assert probabilities_K.tolist() == [1.0, 0.0, 0.0]


def test_temperature_1_is_the_distribution_of_the_model(network: GPT) -> None:
    logits_V = read(network, PROMPT).logits([len(PROMPT) - 1])[0]
    ids_K, probabilities_K = next_token_candidates(logits_V, Sampling())
    torch.testing.assert_close(probabilities_K, logits_V.softmax(-1)[ids_K])
    assert sorted(ids_K.tolist()) == list(range(network.config.n_vocab))


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    probabilities = (0.6, 0.25, 0.1, 0.05)
    logits_V, generator, n = torch.tensor(probabilities).log(), torch.Generator().manual_seed(0), 4000
    counts = Counter(sample_token(logits_V, Sampling(), generator) for _ in range(n))
    for id, p in enumerate(probabilities):
        assert abs(counts[id] - n * p) < 4 * math.sqrt(n * p * (1 - p))  # four standard deviations


def test_excluded_tokens_are_never_drawn() -> None:
    logits_V, generator = torch.tensor([0.4, 0.3, 0.2, 0.1]).log(), torch.Generator().manual_seed(0)
    assert {sample_token(logits_V, Sampling(top_k=3), generator) for _ in range(300)} == {0, 1, 2}
    assert {sample_token(logits_V, Sampling(top_p=0.6), generator) for _ in range(300)} == {0, 1}


# --- seeds and batches ---


def test_the_same_seed_gives_the_same_text_and_a_different_seed_a_different_one(network: GPT) -> None:
    first, repeated, different = (continue_text(network, seeded(PROMPT, seed), 30) for seed in (1, 1, 2))
    assert first == repeated
    assert first != different


def test_a_text_generated_in_a_batch_equals_the_text_generated_alone(network: GPT) -> None:
    sampling = Sampling(temperature=0.7, top_k=20, top_p=0.9)
    prompt_ids = [PROMPT, [5], list(range(40)), PROMPT[:3]]
    alone = [continue_text(network, seeded(ids, seed, sampling), 20) for seed, ids in enumerate(prompt_ids)]
    assert continue_texts(network, [seeded(ids, seed, sampling) for seed, ids in enumerate(prompt_ids)], 20) == alone


def test_every_pass_yields_one_token_per_text(network: GPT) -> None:
    prompts = [Prompt(ids=PROMPT, sampling=GREEDY), Prompt(ids=[5], sampling=GREEDY)]
    assert [number for number, _ in generate(network, prompts, n_tokens=3)] == [0, 1, 0, 1, 0, 1]


# --- where a text ends ---


def test_a_text_ends_before_a_stop_id_and_the_others_continue(network: GPT) -> None:
    prompts = [Prompt(ids=PROMPT, sampling=GREEDY), Prompt(ids=[5, 8], sampling=GREEDY)]
    whole = continue_texts(network, prompts, 12)
    stop = whole[0][4]
    expected = [ids[: ids.index(stop)] if stop in ids else ids for ids in whole]
    assert continue_texts(network, prompts, 12, stop_ids=(stop,)) == expected
    assert len(expected[0]) <= 4


def test_a_text_that_stops_at_once_is_empty(network: GPT) -> None:
    assert continue_text(network, seeded(PROMPT, 0), 5, stop_ids=tuple(range(network.config.n_vocab))) == []


def test_a_text_may_fill_the_context(network: GPT) -> None:
    assert len(continue_text(network, seeded(PROMPT, 0), N_CONTEXT - len(PROMPT))) == N_CONTEXT - len(PROMPT)


def test_no_prompts_give_no_tokens(network: GPT) -> None:
    assert list(generate(network, [], n_tokens=3)) == []


# --- the cache ---


def test_with_and_without_a_cache_the_text_is_the_same(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    plain = continue_text(network, seeded(PROMPT, 3), 30)
    assert continue_texts(network, [seeded(PROMPT, 3)], 30, cache=cache)[0] == plain
    assert continue_texts(network, [seeded(PROMPT, 3)], 30, cache=cache)[0] == plain  # everything is cached


def count_rows(network: GPT) -> tuple[list[int], torch.utils.hooks.RemovableHandle]:
    """How many tokens each forward pass computes, from now on until the hook is removed."""
    n_rows: list[int] = []
    return n_rows, network.norm_final.register_forward_hook(lambda *call: n_rows.append(call[2].shape[1]))


def test_every_new_token_costs_one_row_and_cached_tokens_cost_none(network: GPT) -> None:
    cache, prompt = PrefixCache(10_000_000), Prompt(ids=PROMPT, sampling=GREEDY)
    n_rows, hook = count_rows(network)
    with hook:
        ids = continue_texts(network, [prompt], 5, cache=cache)[0]
        assert n_rows == [len(PROMPT), 1, 1, 1, 1]  # the fifth new token is drawn but not read
        n_rows.clear()
        continue_texts(network, [Prompt(ids=[*PROMPT, *ids, 7], sampling=GREEDY)], 2, cache=cache)
        assert n_rows == [2, 1]  # the fifth new token and the 7
        n_rows.clear()
        continue_texts(network, [prompt], 2, cache=cache)
        assert n_rows == [1]


def test_the_texts_of_a_batch_are_read_in_the_same_passes(network: GPT) -> None:
    prompts = [Prompt(ids=[id], sampling=GREEDY) for id in (5, 6, 7)]
    n_rows, hook = count_rows(network)
    with hook:
        continue_texts(network, prompts, 4)
    assert n_rows == [1, 1, 1, 3, 3, 3]


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.5}, "temperature is -0.5; it must be 0 or more, and finite"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
    ],
)
def test_sampling_refuses_numbers_outside_their_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "n_tokens", "message"),
    [
        ([], 4, "a prompt has no tokens; it needs at least 1"),
        ([1] * 61, 4, "a prompt of 61 tokens and 4 new ones are 65; this model reads at most 64"),
        ([1], 0, "n_tokens is 0; it must be at least 1"),
    ],
)
def test_an_impossible_request_is_refused_before_the_first_token(
    network: GPT, ids: list[int], n_tokens: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(network, [Prompt(ids=[5]), Prompt(ids=ids)], n_tokens=n_tokens)
