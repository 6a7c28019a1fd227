"""After any edits a client shows what a new client would be sent for the same text."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app import views
from app.figures import Window
from app.live import delta
from app.live.delta import ClientState, n_reusable_cells, thumbnail_plan, window_of
from app.models import LoadedModel, ModelInput
from app.schemas import PageRequest
from model.cache import PrefixCache
from model.edits import NO_EDITS
from model.reading import read, read_batch
from model.tokenizer import Token, Tokens
from model.trace import Trace
from tests.app.screen import Screen, tensors, thumbnails, to_first_token


def text(ids: list[int]) -> Tokens:
    return Tokens(tuple(Token(i, id, b"x", i, i + 1) for i, id in enumerate(ids)), ())


pytestmark = pytest.mark.usefixtures("small_frames")


class TypingClient:
    """A client that switches from text to text: its screen, its state on the server, and a prefix cache."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.state, self.screen, self.cache = ClientState(), Screen(), PrefixCache(100_000_000)

    def switch_text(self, ids: list[int], n_frames: int | None = None, **fields: Any) -> list[delta.Frame]:
        trace = self.cache.longest_prefix(self.model.network, tuple(ids))
        if trace.n_tokens < len(ids):
            trace = read_batch(self.model.network, [(trace, ids[trace.n_tokens :])])[0]
        self.cache.put(tuple(ids), trace)
        sent = []
        frames = delta.frames(
            trace, ModelInput(self.model, text(ids), NO_EDITS), PageRequest(text="x", **fields), self.state
        )
        for _, (header, arrays) in zip(range(n_frames or 1000), frames, strict=False):
            self.screen.apply(header, arrays)
            sent.append((header, arrays))
        return sent


def assert_same_state(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    assert shown["done"]
    assert shown["tokens"] == expected["tokens"]
    assert shown["cells"]["window"] == expected["cells"]["window"]
    cells, expected_cells = tensors(shown["head"]), tensors(expected["head"])
    assert set(cells) == set(expected_cells)
    for name, values in cells.items():
        np.testing.assert_allclose(values, expected_cells[name], atol=1e-5, err_msg=name)
    for name, values in tensors(shown["norms"]["arrays"]).items():
        np.testing.assert_allclose(values, tensors(expected["norms"]["arrays"])[name], atol=1e-5, rtol=1e-5)
    difference = thumbnails(shown).astype(int) - thumbnails(expected).astype(int)
    assert np.abs(difference).max() <= 1  # a half may round up
    np.testing.assert_allclose(to_first_token(shown), to_first_token(expected), atol=1e-6)
    assert shown["mean_to_first_token"] == pytest.approx(expected["mean_to_first_token"], abs=1e-6)
    likeliest, expected_likeliest = (
        client_state["header"]["prediction"]["top"][0] for client_state in (shown, expected)
    )
    assert likeliest["logit"] == pytest.approx(expected_likeliest["logit"], abs=1e-4)


def assert_no_wrong_pixels(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    """While thumbnails are incomplete, their complete rows of pixels are right; an incomplete row, which also covers
    tokens that are not sent yet, has no pixel that is larger than it will be."""
    step = shown["pixelSize"]
    for layer, rows in zip(shown["layers"], thumbnails(expected).astype(int), strict=False):
        n_whole, n_drawn, side = layer["nTokens"] // step, -(-layer["nTokens"] // step), layer["side"]
        n_columns = min(side, rows.shape[-1])
        pixels = layer["pixels"].reshape(-1, side, side)[:, :n_drawn, :n_columns]
        excess = pixels - rows[:, :n_drawn, :n_columns]
        assert excess.max(initial=0) <= 1
        assert excess[:, :n_whole].min(initial=0) >= -1


def fresh_state(tiny_model: LoadedModel, ids: list[int], head: int) -> dict[str, Any]:
    """What a client without any earlier text shows."""
    client = TypingClient(tiny_model)
    client.switch_text(ids, head=head)
    return client.screen.client_state


IDS = st.lists(st.integers(0, 3), min_size=1, max_size=64)  # few ids, so that texts often share a prefix
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["append", "cut", "change", "replace"]),
        st.lists(st.integers(0, 9), min_size=1, max_size=40),
        st.integers(0, 2),
        st.sampled_from([None, 1, 2]),
    ),
    min_size=1,
    max_size=8,
)


def edited(ids: list[int], edit: str, new: list[int]) -> list[int]:
    at = new[0] * len(ids) // 10
    texts = {
        "append": ids + new,
        "cut": ids[: max(1, len(ids) - len(new))],
        "change": [*ids[:at], *new, *ids[at + 1 :]],
        "replace": new,
    }
    return texts[edit][:64]


@given(IDS, EDITS)
@settings(max_examples=60, deadline=None)
def test_after_any_edits_the_screen_is_that_of_a_new_client(
    tiny_model: LoadedModel, ids: list[int], edits: list[Any]
) -> None:
    client = TypingClient(tiny_model)
    client.switch_text(ids)
    for edit, new, head, n_frames in edits:
        ids = edited(ids, edit, new)
        client.switch_text(ids, n_frames, head=head)
        if n_frames:
            assert_no_wrong_pixels(client.screen.client_state, fresh_state(tiny_model, ids, head))
    client.switch_text(ids, head=head)
    assert_same_state(client.screen.client_state, fresh_state(tiny_model, ids, head))


@pytest.fixture(scope="module")
def small_frames() -> Any:
    """Heatmaps, thumbnails and frames so small that texts of 64 tokens reach all their limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "N_THUMBNAIL", 8)
        patch.setattr(views, "N_BLOCK", 900)
        patch.setattr(delta, "N_CELLS", 16)
        patch.setattr(delta, "N_POOLED", 16)
        patch.setattr(delta, "FRAME_WEIGHTS", 3_000)
        yield


@pytest.fixture
def trace(tiny_model: LoadedModel) -> Trace:
    return read(tiny_model.network, [(7 * i * i + i) % 400 for i in range(50)])


def test_a_pixel_is_the_largest_weight_it_covers(trace: Trace) -> None:
    grid, to_first_LT = views.thumbnails(trace, range(3))
    weights = torch.stack([trace.stage("weights", layer, range(4)) for layer in range(3)]).numpy()
    assert grid.shape == (3, 4, 7, 7)  # 50 tokens, 8 per pixel
    for row in range(7):
        for column in range(7):
            largest = weights[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].max((2, 3))
            np.testing.assert_array_equal(grid[:, :, row, column], np.round(largest * 255))
    np.testing.assert_allclose(to_first_LT, weights[..., 0].mean(1), atol=1e-6)


def test_the_screen_shows_the_models_numbers(tiny_model: LoadedModel) -> None:
    """A text typed in three parts, compared with the stages of its trace."""
    ids = [7 * i % 400 for i in range(14)]
    client = TypingClient(tiny_model)
    for n in (1, 5, 14):
        client.switch_text(ids[:n], layer=1, head=2)
    client_state = client.screen.client_state
    trace = read(tiny_model.network, ids)
    assert [token["id"] for token in client_state["tokens"]] == ids
    for name, values in tensors(client_state["head"]).items():
        if not name.startswith("row_"):
            expected = trace.stage(name, 1, [2])[0]  # type: ignore[arg-type]
            np.testing.assert_allclose(values, expected, atol=1e-5, err_msg=name)
    first = np.stack([trace.stage("weights", layer, range(4))[:, 1:, 0] for layer in range(3)])
    assert client_state["mean_to_first_token"] == pytest.approx(first.mean(), abs=1e-6)


def test_cells_of_a_small_window_are_numbers_and_cells_of_a_large_one_are_maxima(trace: Trace) -> None:
    weights = trace.stage("weights", 1, [2])[0].numpy()
    exact = views.head_cells(trace, 1, 2, window_of((30, 45, 20, 36), 50))
    np.testing.assert_allclose(exact["weights"], weights[30:45, 20:36], atol=1e-7)
    pooled = views.head_cells(trace, 1, 2, window_of(None, 50))
    assert pooled["scores"].shape == (13, 13)  # 4 tokens per cell
    np.testing.assert_allclose(pooled["weights"][3, 1], weights[12:16, 4:8].max(), atol=1e-7)
    masked = trace.stage("masked", 1, [2])[0].numpy()
    largest = masked[12:16, 12:16].max()  # of the cells that are not masked
    np.testing.assert_allclose(pooled["masked"][3, 3], largest, atol=1e-6)
    assert pooled["masked"][3, 3] < pooled["scaled"][3, 3] or largest == pooled["scaled"][3, 3]


def test_for_an_appended_token_only_new_rows_and_columns_are_sent(tiny_model: LoadedModel) -> None:
    client = TypingClient(tiny_model)
    client.switch_text([1, 2, 3, 4])
    ((header, arrays),) = client.switch_text([1, 2, 3, 4, 5])
    assert [token["id"] for token in header["tokens"]] == [5]
    assert header["heatmap"]
    assert (header["n_shared"], header["heatmap"]["from"], header["grid"]["from"], header["done"]) == (4, 4, 4, True)
    assert arrays["grid"].shape == (3, 4, 1, 5)  # every head's new row
    assert arrays["weights"].shape == (1, 5)
    assert arrays["scores_columns"].shape == (4, 1)  # how earlier queries match the new key
    assert arrays["mean"].shape == (1, 7)


def test_for_another_head_of_the_same_text_only_its_heatmap_is_sent(tiny_model: LoadedModel) -> None:
    client = TypingClient(tiny_model)
    client.switch_text([1, 2, 3, 4])
    ((header, arrays),) = client.switch_text([1, 2, 3, 4], head=2)
    assert "grid" not in header
    assert "norms" not in header
    assert arrays["weights"].shape == (4, 4)
    assert header["tokens"] == []


def test_for_another_query_of_the_same_head_only_its_row_is_sent(tiny_model: LoadedModel) -> None:
    client = TypingClient(tiny_model)
    client.switch_text([1, 2, 3])
    ((header, arrays),) = client.switch_text([1, 2, 3], query=1)
    assert header["heatmap"] is None
    assert set(arrays) == {"row_scores", "row_scaled", "row_weights"}


def test_for_another_model_everything_is_sent_again(tiny_model: LoadedModel) -> None:
    client = TypingClient(tiny_model)
    client.switch_text([1, 2, 3])
    client.model = LoadedModel("other", tiny_model.network, tiny_model.tokenizer, 64)
    header, arrays = client.switch_text([1, 2, 3])[0]
    assert header["heatmap"]
    assert header["n_shared"] == header["norms"]["from"] == header["heatmap"]["from"] == header["grid"]["from"] == 0
    assert len(arrays["mean"]) == 3  # the tokens are the same, the norms are not


@given(st.integers(1, 3_000), st.tuples(*[st.integers(0, 3_000)] * 4))
def test_a_window_lies_inside_the_text_and_has_a_limited_number_of_cells(
    n: int, requested: tuple[int, int, int, int]
) -> None:
    window = window_of(requested, n)
    assert 0 <= window.top < window.bottom <= n
    assert 0 <= window.left < window.right <= n
    assert max(window.height, window.width) <= delta.N_CELLS + 1
    assert window.top % window.cell_size == window.left % window.cell_size == 0


@pytest.mark.parametrize(
    ("before", "wanted", "n_shared", "n"),
    [
        (Window(0, 5, 0, 5), Window(0, 6, 0, 6), 5, 5),  # one token more
        (Window(0, 5, 0, 5), Window(0, 5, 0, 5), 4, 4),  # the last token changed
        (Window(0, 5, 0, 5), Window(0, 3, 0, 3), 3, 3),  # two tokens less
        (Window(0, 512, 0, 512, 2), Window(0, 512, 0, 512, 2), 511, 255),  # half of the last cell changed
        (Window(0, 256, 0, 256), Window(0, 257, 0, 257, 2), 256, 0),  # the cells cover more tokens
        (Window(2, 9, 0, 9), Window(2, 9, 0, 9), 9, 9),  # a part of the text, unchanged
        (Window(2, 9, 0, 9), Window(2, 9, 0, 9), 8, 0),  # a changed part is sent whole
    ],
)
def test_unchanged_cells_of_a_heatmap_are_reused(before: Window, wanted: Window, n_shared: int, n: int) -> None:
    assert n_reusable_cells(before, wanted, n_shared) == n


def test_the_thumbnails_of_a_long_text_come_in_frames_of_a_few_layers(tiny_model: LoadedModel) -> None:
    n_weights = 4 * 38 * 38 // 2  # of the 4 heads of one layer, for 38 tokens
    assert n_weights <= delta.FRAME_WEIGHTS < 2 * n_weights
    state = ClientState("tiny", pixel_size=8, n_sent=[0, 0, 8])
    assert thumbnail_plan(tiny_model.network.config, 38, state) == [(range(1), 0), (range(1, 2), 0), (range(2, 3), 8)]
