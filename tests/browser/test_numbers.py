"""The page shows the numbers of the JSON API, and draws nothing for cells without a number."""

import numpy as np
import pytest

from tests.browser.conftest import Tab
from tests.browser.home import Matrix
from tests.browser.server import Server

TEXT = "the fat cat sat on the mat"
N = 7
MASKED = np.triu_indices(N, 1)
SEVEN_DIGITS = 5e-7

# The colour in the middle of every cell of every thumbnail: [layer, head, query, key] -> [r, g, b, alpha]
THUMBNAILS = """(canvas, [nLayers, nHeads, n]) => {
  const label = 22, gap = 2, scale = devicePixelRatio;
  const side = Math.round((canvas.width / scale - label) / nHeads) - gap;
  const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const list = (length, of) => Array.from({ length }, (_, i) => of(i));
  const middle = (cell) => Math.floor(((cell + 0.5) * side) / n);
  return list(nLayers, (layer) => list(nHeads, (head) => list(n, (query) => list(n, (key) => {
    const [x, y] = [label + head * (side + gap) + middle(key), label + layer * (side + gap) + middle(query)];
    return [...image.data.slice(4 * (y * image.width + x), 4 * (y * image.width + x) + 4)];
  }))));
}"""


def head_values(server: Server, layer: int, head: int, stage: str) -> Matrix:
    """The API's numbers of one head, queries down; `null` is NaN."""
    reply = server.post("attention", text=TEXT, layers=[layer], heads=[head], stage=stage)
    return np.array(reply["values"][0][0], dtype=np.float32).astype(np.float64)


def test_every_stage_shows_the_numbers_of_the_api_and_none_of_masked_cells(home: Tab, server: Server) -> None:
    home.switch_to(TEXT, layer=3, head=2)
    drawn = {}
    for stage in ("scores", "scaled", "masked", "weights"):
        home.choose_stage(stage)
        values = head_values(server, 3, 2, stage)
        z = drawn[stage] = home.z()
        if stage == "weights":
            assert (values[MASKED] == 0).all()
            values[MASKED] = np.nan  # drawn without a colour, not as weight 0
        assert z.shape == values.shape == (N, N)
        assert np.isnan(z[MASKED]).all() == (stage in ("masked", "weights"))
        np.testing.assert_allclose(z, values, rtol=SEVEN_DIGITS, atol=1e-30)
    assert len({np.nansum(z).round(6) for z in drawn.values()}) == 4


@pytest.mark.parametrize("stage", ["scores", "weights"])
def test_the_mask_is_hatched(home: Tab, stage: str) -> None:
    home.switch_to(TEXT, stage=stage)
    hatch = home.figure.locator(".shapelayer path").first.bounding_box()
    plot = home.figure.locator(".nsewdrag").bounding_box()
    assert hatch
    assert plot
    cell = plot["width"] / N
    assert hatch["x"] >= plot["x"] + 0.9 * cell  # the first key is not masked …
    assert hatch["y"] + hatch["height"] <= plot["y"] + plot["height"] - 0.9 * cell  # … and neither is the last query
    assert hatch["width"] >= 5 * cell
    assert hatch["height"] >= 5 * cell


def test_colours_of_weights_run_from_0_to_1_and_those_of_scores_around_0(home: Tab) -> None:
    def scale() -> tuple[float, float, list[str]]:
        limits: list[float] = home.figure.evaluate("(figure) => [figure._fullData[0].zmin, figure._fullData[0].zmax]")
        colours: list[str] = home.figure.evaluate("(figure) => figure._fullData[0].colorscale.map((stop) => stop[1])")
        return limits[0], limits[1], colours

    home.switch_to(TEXT, stage="weights")
    low, high, weights = scale()
    assert (low, high) == (0, 1)
    for stage in ("scores", "scaled", "masked"):
        home.choose_stage(stage)
        low, high, scores = scale()
        assert -low == high == pytest.approx(np.nanmax(np.abs(home.z())), rel=SEVEN_DIGITS)
        assert len(scores) % 2 == 1
        assert scores != weights


def test_hovering_over_a_cell_shows_its_exact_numbers(home: Tab, server: Server) -> None:
    home.switch_to(TEXT, layer=11, head=7, stage="weights")
    values = {stage: head_values(server, 11, 7, stage) for stage in ("scores", "scaled", "weights")}
    for query, key in ((2, 1), (6, 0)):
        label = home.hover_cell(query, key).filter(has_text=f"weights {values['weights'][query, key]:.7g}")
        label.wait_for()
        assert home.labels("y")[query] in (label.text_content() or "")
        numbers = dict(part.rsplit(" ", 1) for part in (home.cell.text_content() or "").split(": ", 1)[1].split(", "))
        assert float(numbers["score"]) == pytest.approx(values["scores"][query, key], rel=SEVEN_DIGITS)
        assert float(numbers["scaled"]) == pytest.approx(values["scaled"][query, key], rel=SEVEN_DIGITS)
        assert float(numbers["masked"]) == pytest.approx(values["scaled"][query, key], rel=SEVEN_DIGITS)
        assert float(numbers["weight"]) == pytest.approx(values["weights"][query, key], rel=SEVEN_DIGITS)
    home.choose_stage("scores")
    home.hover_cell(2, 6).filter(has_text=f"scores {values['scores'][2, 6]:.7g}").wait_for()
    assert "masked −∞, weight 0.0" in (home.cell.text_content() or "")


def test_the_grid_is_darker_where_a_weight_is_larger_and_empty_where_it_is_masked(home: Tab, server: Server) -> None:
    home.switch_to(TEXT)
    weights = np.array(server.post("attention", text=TEXT)["values"])
    n_layers, n_heads = weights.shape[:2]
    home.page.locator("#layer").fill("0")  # so that the frame of the chosen head covers no other thumbnail
    home.page.locator("#head").fill("0")
    home.wait_until_shown(layer=0, head=0)
    pixels = np.array(home.grid.evaluate(THUMBNAILS, [n_layers, n_heads, N]))[1:, 1:]
    visible, weights = np.tri(N, dtype=bool), weights[1:, 1:]
    assert (pixels[..., ~visible, 3] == 0).all()
    assert (pixels[..., visible, 3] == 255).all()
    light = pixels[..., visible, :3].sum(-1).ravel()
    order = np.argsort(weights[..., visible].ravel())
    assert np.diff(light[order]).max() <= 1  # colours are rounded to bytes
    assert light.max() - light.min() > 400


def test_the_table_the_predictions_and_the_norms_are_those_of_the_api(home: Tab, server: Server) -> None:
    home.switch_to(TEXT, layer=3, head=2, query=4)
    weights = head_values(server, 3, 2, "weights")[4]
    np.testing.assert_allclose([float(line[3]) for line in home.row().values()], weights, atol=1.1e-6)  # six digits
    prediction = server.post("predictions", text=TEXT, positions="all")["predictions"][4]
    assert home.next_tokens() == [[token["text"], f"{100 * token['probability']:.2f} %"] for token in prediction["top"]]
    summary = home.page.locator("#next-summary").text_content() or ""
    assert f"entropy {prediction['entropy_bits']:.2f} bits" in summary
    assert f"the actual next token, ·the, has a surprisal of {prediction['surprisal_bits']:.2f} bits" in summary
    norms = server.post("norms", text=TEXT)["norms"]
    for name, values in home.norm_numbers().items():
        np.testing.assert_allclose(np.transpose(values), [site[name] for site in norms], rtol=SEVEN_DIGITS)


@pytest.mark.parametrize(("panel", "name"), [(0, "mean"), (1, "variance"), (2, "rms")])
def test_hovering_over_a_norm_shows_its_exact_number(home: Tab, server: Server, panel: int, name: str) -> None:
    home.switch_to(TEXT)
    norms = server.post("norms", text=TEXT)["norms"]
    site = norms[12]
    label = home.hover_norm(panel, token=0, site=12, n_sites=len(norms))
    label.filter(has_text=f"{site['site']}{name} {np.float32(site[name][0]):.7g}").wait_for()
