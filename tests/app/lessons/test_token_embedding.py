"""S10: the rows are those of the table, and NumPy finds the same neighbours."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.experiments.panels import Bars, Chips, Heatmap
from app.lessons.token_embedding import TokenEmbeddingWork, similarities
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, named, values


def table(loaded: LoadedModel) -> NDArray[np.float64]:
    """E, from the parameters of the network."""
    return loaded.network.embed.weight.detach().double().numpy()


def test_similarities_that_can_be_checked_in_the_head() -> None:
    table_VM, x_M = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0], [0.0, 0.0]]), torch.tensor([3.0, 4.0])
    assert similarities(table_VM, x_M, "dot product").tolist() == [6, 4, 25, 0]
    assert_near(similarities(table_VM, x_M, "cosine"), [0.6, 0.8, 1, 0])


def test_the_vectors_are_the_rows_of_the_ids(loaded: LoadedModel) -> None:
    panels, ids = panels_of(make_work(loaded, "token-embedding", LONG)), loaded.tokens(LONG).ids
    chips = panels["token_ids"]
    assert isinstance(chips, Chips)
    assert [chip.about for chip in chips.rows[0].chips] == [f"row {id}" for id in ids]
    assert values(panels["vectors"]).tolist() == table(loaded)[list(ids[:32]), :64].tolist()


def test_broken_reads_the_row_of_the_next_id(loaded: LoadedModel) -> None:
    panels, ids = panels_of(make_work(loaded, "token-embedding", SENTENCE, broken=True)), loaded.tokens(SENTENCE).ids
    assert values(panels["vectors"]).tolist() == table(loaded)[[id + 1 for id in ids], :64].tolist()


@pytest.mark.parametrize("id", [0, 1, 200, 399])
def test_seven_rows_are_shown_around_the_chosen_one_and_only_its_factor_is_1(loaded: LoadedModel, id: int) -> None:
    n_vocab = loaded.network.config.n_vocab
    work = make_work(loaded, "token-embedding", SENTENCE, token=0)
    assert isinstance(work, TokenEmbeddingWork)
    work.row_T = torch.tensor([id] * len(work.tokens))
    panel, first = work.table_rows(), min(max(id - 3, 0), n_vocab - 7)
    assert panel.rows == [f"{1 if row == id else 0} × {row}" for row in range(first, first + 7)]
    assert values(panel).tolist() == table(loaded)[first : first + 7, :64].tolist()


def test_a_product_with_a_one_hot_vector_multiplies_every_number_of_the_table(loaded: LoadedModel) -> None:
    facts = named(panels_of(make_work(loaded, "token-embedding", SENTENCE))["one_hot_facts"])
    n_vocab, n_features = table(loaded).shape
    assert list(facts.values()) == [n_vocab * n_features, n_features, n_features, 0]


@pytest.mark.parametrize("similarity", ["cosine", "dot product"])
def test_the_neighbours_are_those_that_numpy_sorts_to_the_front(loaded: LoadedModel, similarity: str) -> None:
    work = make_work(loaded, "token-embedding", SENTENCE, token=2, similarity=similarity, n_neighbours=5)
    bars, id, rows = panels_of(work)["neighbours"], work.tokens.ids[2], table(loaded)
    assert isinstance(bars, Bars)
    expected = rows @ rows[id]
    if similarity == "cosine":
        expected = expected / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(rows[id]), 1e-12)
    order = np.argsort(-expected)[:5]
    assert_near(values(bars), expected[order])
    assert bars.labels == [f"{rank} {loaded.tokenizer.label(int(id))}" for rank, id in enumerate(order)]
    assert bars.chosen == (list(order).index(id) if id in order else None)


def test_a_pair_is_two_rows_and_their_difference(loaded: LoadedModel) -> None:
    work = make_work(loaded, "token-embedding", SENTENCE, token=1, other_token=4)
    panels, first, second = panels_of(work), work.tokens.ids[1], work.tokens.ids[4]
    x, y = table(loaded)[[first, second]]
    assert_near(values(panels["pair"]), np.stack([x, y, x - y])[:, :64])
    lengths = [np.linalg.norm(x), np.linalg.norm(y)]
    expected = [first, second, np.abs(x - y).max(), x @ y / np.prod(lengths), *lengths]
    assert_near(list(named(panels["pair_facts"]).values()), expected)


def test_equal_tokens_are_paired_by_themselves_and_a_token_that_occurs_once_stands_alone(
    lookback_gpt: LoadedModel,
) -> None:
    again, once = (panels_of(make_work(lookback_gpt, "token-embedding", SENTENCE, token=token)) for token in (0, 1))
    assert isinstance(again["pair"], Heatmap)
    assert isinstance(once["pair"], Heatmap)
    assert again["pair"].rows == ["0 ·the", "5 ·the", "difference"]
    assert set(again["pair"].values[2]) == {0}
    assert once["pair"].rows == ["1 ·fat"]
    assert list(named(once["pair_facts"])) == ["the same token again"]
