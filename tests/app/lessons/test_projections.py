"""S05: the matrix is the model's, and what it does to lengths, distances and dimensions is what NumPy says."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from app.experiments.panels import Points
from app.lessons.projections import N_MATRIX_ROWS, N_POINTS, Projection, ProjectionsWork
from app.models import LoadedModel
from tests.app.experiments import make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, lines, named, number, values

MATRICES = ("query", "key", "value", "feed-forward up", "unembedding")


def made(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> ProjectionsWork:
    work = make_work(loaded, "projections", text, **controls)
    assert isinstance(work, ProjectionsWork)
    return work


def seen(loaded: LoadedModel, text: str, matrix: str, layer: int, head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weights and output of a matrix, as hooks see them in the model."""
    network, config = loaded.network, loaded.network.config
    block = network.blocks[layer]
    name = {"feed-forward up": "mlp.up"}.get(matrix, f"attention.{matrix}")
    module = network.unembed if matrix == "unembedding" else block.get_submodule(name)
    x_TI, y_TO = captured(loaded, text, module)
    weight_OI = module.get_parameter("weight").double()
    if matrix not in ("query", "key", "value"):
        return x_TI, weight_OI, y_TO
    head = head if matrix == "query" else head * config.n_kv_heads // config.n_heads
    rows = slice(head * config.d_head, (head + 1) * config.d_head)
    return x_TI, weight_OI[rows], y_TO[:, rows]


def test_a_shadow_can_be_checked_in_the_head() -> None:
    projection = Projection(["a", "b"], torch.tensor([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]]), torch.eye(3)[:2], 1.0)
    assert projection.y_TO.tolist() == [[4.0, 1.0], [1.0, 3.0]]
    assert projection.singular_R.tolist() == [1.0, 1.0]
    assert projection.null_TI.tolist() == [[0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]  # the third feature is lost


@pytest.mark.parametrize("matrix", MATRICES)
def test_vectors_distances_and_losses_are_those_of_the_matrix_in_the_model(loaded: LoadedModel, matrix: str) -> None:
    panels = panels_of(made(loaded, LONG, matrix=matrix, layer=1, head=1, token=3, other_token=5))
    x_TI, weight_OI, y_TO = seen(loaded, LONG, matrix, 1, 1)
    before_TT, after_TT = (torch.cdist(z[:N_POINTS], z[:N_POINTS]) for z in (x_TI, y_TO))
    distinct = ~torch.eye(len(before_TT), dtype=torch.bool)
    assert_near(values(panels["distance_ratios"])[distinct], (after_TT / before_TT)[distinct], relative=1e-3)
    facts = panels["pair_facts"]
    assert number(facts, "distance before") == pytest.approx(before_TT[3, 5].item(), rel=1e-4)
    assert number(facts, "distance after") == pytest.approx(after_TT[3, 5].item(), rel=1e-3)
    assert number(facts, "distance after / distance before") == pytest.approx(
        (after_TT / before_TT)[3, 5].item(), rel=1e-3
    )
    first, second = y_TO[3].numpy(), y_TO[5].numpy()
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert number(facts, "cosine similarity after") == pytest.approx(cosine, rel=1e-3, abs=1e-4)
    solved_TI = (torch.linalg.pinv(weight_OI) @ weight_OI @ x_TI.T).T  # the part that can be recovered from W x
    lost_T = (x_TI - solved_TI).norm(dim=1) / x_TI.norm(dim=1)
    assert_close(values(panels["lost"]), lost_T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("matrix", MATRICES)
def test_singular_values_and_rank_are_those_of_numpy(loaded: LoadedModel, matrix: str) -> None:
    panels = panels_of(made(loaded, matrix=matrix))
    _, weight_OI, y_TO = seen(loaded, SENTENCE, matrix, 0, 0)
    expected_R = np.linalg.svd(weight_OI[:N_MATRIX_ROWS].numpy(), compute_uv=False)
    (shown_R,) = lines(panels["singular_values"]).values()
    largest = expected_R[0]
    # from the square of the matrix, small ones are only exact to within √eps of the largest
    assert_close(shown_R, torch.from_numpy(expected_R), rtol=1e-3, atol=float(1e-3 * largest))
    facts, rank = panels["facts"], int((expected_R > 1e-3 * largest).sum())
    n_outputs, n_inputs = weight_OI.shape
    assert [number(facts, f"features {side}") for side in ("before", "after")] == [n_inputs, n_outputs]
    assert number(facts, "rank") == rank
    assert number(facts, "directions lost: features before − rank") == n_inputs - rank
    assert number(facts, "largest singular value") == pytest.approx(largest, rel=1e-4)
    assert number(facts, "first token, first feature after") == pytest.approx(y_TO[0, 0].item(), rel=1e-3, abs=1e-4)


def test_the_planes_hold_the_principal_components_of_numpy(loaded: LoadedModel) -> None:
    panels = panels_of(made(loaded, LONG, token=1))
    x_TI, _, y_TO = seen(loaded, LONG, "query", 0, 0)
    for name, vectors in (("inputs", x_TI), ("outputs", y_TO)):
        picture = panels[name]
        assert isinstance(picture, Points)
        assert {point.group for point in picture.points[1:3]} == {"chosen"}
        centred = (vectors[:N_POINTS] - vectors[:N_POINTS].mean(0)).numpy()
        singular = np.linalg.svd(centred, compute_uv=False)
        shown = np.array([(point.x, point.y) for point in picture.points])
        assert np.linalg.norm(shown, axis=0) == pytest.approx(singular[:2], rel=1e-2, abs=1e-3)
        ratio = singular[0] ** 2 / (singular**2).sum()
        assert picture.x_axis == f"principal component 1, {ratio:.0%} of the variance"


def test_the_book_s_query_of_the_second_word_is_printed_in_the_book(lookback_gpt: LoadedModel) -> None:
    work = made(lookback_gpt, matrix="the book's query", token=1)
    outputs = panels_of(work)["outputs"]
    assert isinstance(outputs, Points)
    point = outputs.points[1]
    assert (point.name, round(point.x, 4), round(point.y, 4)) == ("1 journey", 0.4306, 1.4551)
    assert named(panels_of(work)["facts"])["features after"] == 2.0


def test_a_key_of_grouped_heads_is_that_of_its_group(tiny_llama_model: LoadedModel) -> None:
    config = tiny_llama_model.network.config
    n_per_group = config.n_heads // config.n_kv_heads
    assert n_per_group > 1
    for matrix, is_shared in (("key", True), ("value", True), ("query", False)):
        first, second = (made(tiny_llama_model, matrix=matrix, head=head).projection for head in (0, n_per_group - 1))
        assert torch.equal(first.weight_OI, second.weight_OI) == is_shared
