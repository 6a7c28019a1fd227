"""Under edits, the pictures and frames of a text are those of the changed model."""

import numpy as np
import pytest

from app import views
from app.figures import Window
from app.live import delta
from app.live.delta import ClientState
from app.models import LoadedModel, ModelInput
from app.schemas import PageRequest
from model.edits import NO_EDITS, Cut, Drop, Edit, Edits, NoMask, Temperature
from model.reading import read
from tests.app.screen import Screen
from tests.app.test_delta import assert_same_state, text

IDS = [5, 9, 20, 9, 31, 5, 39, 17, 0, 26, 44]
N = len(IDS)
EDITS = [
    Edits((Cut(1, 2, 7, 3), Cut(1, 3, 4, 4))),
    Edits((Temperature(None, (1,), 0.5), Edit("scores", 0, (2,), first=3, scale=-1.0))),
    Edits((Drop("weights", (1,), 0.3, 7), Edit("context", 0, (1,), scale=0.0))),
    Edits((NoMask(1, (0, 2)),)),
    Edits((NoMask(None, None), Cut(0, 0, 2, 9))),
]


@pytest.mark.parametrize("edits", EDITS, ids=str)
def test_thumbnails_are_the_weights_of_the_changed_model(tiny_model: LoadedModel, edits: Edits) -> None:
    trace = read(tiny_model.network, IDS, edits)
    pixels_LHTT, to_first_LT = views.thumbnails(trace, range(3))
    for layer in range(3):
        weight_HTT = trace.stage("weights", layer, range(4))
        expected_HTT = (weight_HTT * 255).round().clamp(max=255).numpy()  # dropout makes some more than 1
        assert np.abs(pixels_LHTT[layer].astype(int) - expected_HTT).max() <= 1
        np.testing.assert_allclose(to_first_LT[layer], weight_HTT[..., 0].mean(0), atol=1e-6)


def test_the_thumbnails_of_layers_that_no_edit_touches_are_bit_equal(tiny_model: LoadedModel) -> None:
    plain, edited = (read(tiny_model.network, IDS, edits) for edits in (NO_EDITS, Edits((Cut(2, 2, 7, 3),))))
    for number in range(2):  # pictures, weights of the first token
        assert np.array_equal(views.thumbnails(edited, range(2))[number], views.thumbnails(plain, range(2))[number])


@pytest.mark.parametrize("edits", EDITS, ids=str)
def test_cells_and_rows_are_those_of_the_changed_model(tiny_model: LoadedModel, edits: Edits) -> None:
    trace = read(tiny_model.network, IDS, edits)
    weight_TT = trace.stage("weights", 1, [2])[0].numpy()
    cells = views.head_cells(trace, 1, 2, Window(2, 9, 1, N, 1))
    np.testing.assert_allclose(cells["weights"], weight_TT[2:9, 1:], atol=1e-6)
    np.testing.assert_allclose(views.row(trace, 1, 2, 4)["row_weights"], weight_TT[4], atol=1e-6)


@pytest.mark.parametrize("edits", EDITS, ids=str)
def test_a_client_that_types_or_changes_the_edits_shows_what_a_new_client_is_sent(
    tiny_model: LoadedModel, edits: Edits
) -> None:
    def show(screen: Screen, state: ClientState, n_tokens: int, shown: Edits) -> None:
        ids = IDS[:n_tokens]
        trace = read(tiny_model.network, ids, shown)
        given = ModelInput(tiny_model, text(ids), shown)
        for header, arrays in delta.frames(trace, given, PageRequest(text="x", layer=1, head=2), state):
            screen.apply(header, arrays)

    screen, state = Screen(), ClientState()
    for n_tokens, shown in ((10, NO_EDITS), (10, edits), (11, edits), (10, edits), (10, NO_EDITS)):
        show(screen, state, n_tokens, shown)
        fresh = Screen()
        show(fresh, ClientState(), n_tokens, shown)
        assert_same_state(screen.client_state, fresh.client_state)
