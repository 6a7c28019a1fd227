"""The training page: it draws the step that the slider shows, with the numbers of the API."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, ViewportSize

from tests.browser.conftest import PHONE, WIDE, Tab, tab_of
from tests.browser.home import Matrix
from tests.browser.server import Server, serving

MODEL = "tiny-run"
TEXT = "the fat cat sat, and the fat cat"
STEPS = [0, 1, 2, 4, 8, 12]
PATTERNS = ["previous", "induction", "first"]

# Is everything drawn for this step, text and head, and are the charts at this index?
_SHOWS = """([step, text, layer, head, index]) => {
  const shown = JSON.parse(document.body?.dataset.shown ?? "null");
  if (!shown || document.body.classList.contains("stale")) return false;
  const [figure, patterns, loss] = ["head", "patterns", "loss"].map((id) => document.getElementById(`${id}-figure`));
  const name = step === null ? shown[0] : `${shown[0]} at step ${step}`;
  return shown[1] === text && shown[2] === layer && shown[3] === head
    && figure.dataset.drawn?.startsWith(`${name} · layer ${layer}, head ${head} ·`)
    && patterns.data?.[2].x[0] === index && loss.data?.length === 3
    && patterns.layout.annotations[1].text.includes(`layer ${layer}, head ${head}:`);
}"""
_LINES = "(figure) => figure.data.map(({ x, y, customdata }) => ({ x, y, customdata }))"
_POINT = """(figure, [panel, index, value]) => {
  const [x, y] = [figure._fullLayout[`xaxis${panel || ""}`], figure._fullLayout[`yaxis${panel || ""}`]];
  const box = figure.getBoundingClientRect();
  return [box.x + x._offset + x.d2p(index), box.y + y._offset + y.d2p(value)];
}"""
_FOLLOWED = """() => ["head", "patterns", "loss"].every((id) => {
  const figure = document.getElementById(`${id}-figure`);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const width = figure.querySelector(".main-svg").width.baseVal.value;
  return figure.layout.template.layout.font.color === ink && Math.abs(width - figure.clientWidth) <= 1;
})"""


class Training(Tab):
    """The training page in a tab."""

    path = "/training"

    @property
    def slider(self) -> Locator:
        return self.page.locator("#slider")

    @property
    def patterns(self) -> Locator:
        return self.page.locator("#patterns-figure")

    def open_at(self, **state: Any) -> None:
        """Open the page at the address of this state, and wait until everything is drawn."""
        state = {"model": MODEL, "text": TEXT, **state}
        self.go(**state)
        self.wait(state.get("step"), text=state["text"], layer=state.get("layer", 0), head=state.get("head", 0))

    def wait(self, step: int | None, *, text: str = TEXT, layer: int = 0, head: int = 0) -> None:
        index = STEPS.index(STEPS[-1] if step is None else step)
        self.page.wait_for_function(_SHOWS, arg=[step, text, layer, head, index], polling=20)

    def description(self) -> str:
        return self.page.locator("#step-description").text_content() or ""

    def point(self, panel: int, index: int, value: float) -> tuple[float, float]:
        """The screen coordinates of a point of a panel; panels are counted from the top."""
        self.patterns.scroll_into_view_if_needed()
        x, y = self.patterns.evaluate(_POINT, [panel and panel + 1, index, value])
        return x, y


@pytest.fixture(scope="module")
def trained(tiny_run: Path) -> Iterator[Server]:
    with serving("--model", str(tiny_run)) as server:
        yield server


@pytest.fixture(scope="module")
def shared_training(browser: Browser, trained: Server) -> Iterator[Training]:
    with tab_of(Training, browser, trained.url) as opened:
        yield opened


@pytest.fixture
def training(shared_training: Training) -> Iterator[Training]:
    """A wide tab in light colours; all tests use the same one."""
    shared_training.page.set_viewport_size(WIDE)
    shared_training.page.emulate_media(color_scheme="light")
    shared_training.page.mouse.move(0, 0)
    yield shared_training
    shared_training.check()


@pytest.fixture(scope="module")
def history(trained: Server) -> Any:
    return trained.get(f"/api/v2/models/{MODEL}/checkpoints")


def values(server: Server, **request: Any) -> Matrix:
    """The weights of one head from the API; masked ones are NaN."""
    reply = server.post("attention", model=MODEL, **request)
    weights = np.array(reply["values"][0][0], dtype=np.float32).astype(np.float64)
    weights[np.triu_indices(len(weights), 1)] = np.nan
    return weights


def test_dragging_the_slider_shows_the_model_as_it_was(training: Training, trained: Server, history: Any) -> None:
    training.open_at(layer=1, head=0)
    assert training.title() == "tiny-run · layer 1, head 0 · attention weights"
    box = training.slider.bounding_box()
    assert box
    thumb = 8  # px from either end of the slider to the middle of its thumb there
    along, middle = (box["width"] - 2 * thumb) / (len(STEPS) - 1), box["y"] + box["height"] / 2
    mouse = training.page.mouse
    mouse.move(box["x"] + box["width"] - thumb, middle)
    mouse.down()
    drawn = [training.grid_image()]
    for index in (4, 2, 0, 3):
        mouse.move(box["x"] + thumb + index * along, middle)
        step = STEPS[index]
        training.wait(step, layer=1)  # the button is still down
        assert training.title() == f"tiny-run at step {step} · layer 1, head 0 · attention weights"
        np.testing.assert_allclose(
            training.z(), values(trained, text=TEXT, step=step, layers=[1], heads=[0]), rtol=5e-7, atol=1e-30
        )
        point = next(point for point in history["curve"] if point["step"] == step)
        description = f"tep {step}: {point['n_tokens']:,} tokens read, held-out loss {point['held_out_loss']:.2f}"
        assert training.description() == f"S{description}"
        assert training.slider.get_attribute("aria-valuetext") == f"s{description}"
        predicted = trained.post("predictions", model=MODEL, text=TEXT, step=step)["predictions"][0]["top"]
        assert training.next_tokens() == [[token["text"], f"{100 * token['probability']:.2f} %"] for token in predicted]
        assert training.grid_image() not in drawn
        drawn.append(training.grid_image())
    mouse.up()
    training.page.wait_for_function("() => new URLSearchParams(location.search).get('step') === '4'")


def test_arrow_keys_go_from_step_to_step_and_the_last_is_not_in_the_address(training: Training) -> None:
    training.open_at(step=4)
    training.slider.press("ArrowRight")
    training.wait(8)
    training.slider.press("ArrowRight")
    training.wait(None)
    assert training.description().startswith("Step 12: ")
    training.page.wait_for_function("() => !new URLSearchParams(location.search).has('step')")
    training.slider.press("Home")
    training.wait(0)
    assert training.focused() == "slider"


def test_the_charts_hold_the_numbers_of_the_api(training: Training, history: Any) -> None:
    training.open_at(step=2, layer=1, head=1)
    lines = training.patterns.evaluate(_LINES)
    for panel, pattern in enumerate(PATTERNS):
        scores = np.array([checkpoint["patterns"][pattern] for checkpoint in history["checkpoints"]])
        every, chosen, position = lines[3 * panel : 3 * panel + 3]
        assert chosen["y"][: len(STEPS)] == scores[:, 1, 1].tolist()
        assert position["x"] == [2, 2]
        points = [(tuple(label), y) for label, y in zip(every["customdata"], every["y"], strict=True) if y is not None]
        steps = [f"step {step}" for step in STEPS]
        assert points == [
            ((layer, head, step), scores[index, layer, head])
            for layer in range(2)
            for head in range(2)
            for index, step in enumerate(steps)
        ]
        label = training.patterns.locator(".annotation-text").nth(2 * panel + 1).text_content()
        assert label == f"layer 1, head 1: {scores[2, 1, 1]:.2f}"
    ticks = training.patterns.locator(".x3tick text").all_text_contents()
    assert ticks == [str(step) for step in STEPS]
    loss, held_out, position = training.page.locator("#loss-figure").evaluate(_LINES)
    curve = [point for point in history["curve"] if point["n_tokens"]]
    assert loss["y"] == [point["loss"] for point in curve]
    assert held_out["y"] == [point["held_out_loss"] for point in curve]
    assert position["x"] == [next(point["n_tokens"] for point in curve if point["step"] == 2)] * 2


def test_hovering_names_a_line_and_a_click_chooses_its_head(training: Training, history: Any) -> None:
    spread = json.loads(json.dumps(history))  # after 12 steps the lines of all heads are within two pixels
    for checkpoint in spread["checkpoints"]:
        checkpoint["patterns"] = {name: [[0.05, 0.35], [0.65, 0.95]] for name in PATTERNS}
    training.page.route("**/checkpoints", lambda route: route.fulfill(json=spread))
    try:
        training.open_at(step=8)
    finally:
        training.page.unroute("**/checkpoints")
    point = training.point(2, 3, 0.65)
    training.page.mouse.move(*point)
    label = training.patterns.locator(".hoverlayer .hovertext")
    label.filter(has_text="layer 1, head 0: 0.65 at step 4").wait_for()
    training.page.mouse.click(*point)
    training.wait(8, layer=1)
    assert training.page.locator("#head-title").text_content() == "Layer 1, head 0"


def test_a_head_is_chosen_in_the_grid_and_by_its_number(training: Training, trained: Server) -> None:
    training.open_at(step=8)
    box = training.grid.bounding_box()
    assert box
    label = 22  # px; the numbers of layers and heads at the edges
    position = {"x": label + 0.25 * (box["width"] - label), "y": label + 0.75 * (box["height"] - label)}
    training.grid.click(position={"x": position["x"], "y": position["y"]})
    training.wait(8, layer=1, head=0)
    np.testing.assert_allclose(
        training.z(), values(trained, text=TEXT, step=8, layers=[1], heads=[0]), rtol=5e-7, atol=1e-30
    )
    training.page.locator("#head").fill("1")
    training.wait(8, layer=1, head=1)
    training.grid.press("ArrowUp")
    training.wait(8, layer=0, head=1)


def test_what_is_typed_is_read_at_the_chosen_step(training: Training, trained: Server) -> None:
    training.open_at(step=1)
    training.text.press("Control+End")
    training.page.keyboard.type(" sat")
    training.wait(1, text=f"{TEXT} sat")
    assert training.token_labels() == [
        token["text"] for token in trained.post("tokens", model=MODEL, text=f"{TEXT} sat")["tokens"]
    ]
    training.choose_query(3)
    expected = values(trained, text=f"{TEXT} sat", step=1, layers=[0], heads=[0])
    np.testing.assert_allclose([float(line[3]) for line in training.row().values()][:4], expected[3, :4], atol=1.1e-6)
    training.slider.press("End")
    training.wait(None, text=f"{TEXT} sat")
    assert training.page.locator(".token[aria-current]").get_attribute("value") == "3"  # the query is kept


def test_play_shows_one_step_after_another_and_stops_at_the_last(training: Training) -> None:
    training.open_at(step=4)
    button = training.page.locator("#play")
    button.click()
    assert button.text_content() == "Stop"
    training.wait(8)
    training.wait(None)
    training.page.locator("#play", has_text="Play").wait_for()
    button.click()  # at the last step it starts again
    training.wait(0)
    training.wait(1)
    button.click()
    assert button.text_content() == "Play"
    training.page.wait_for_timeout(1_200)
    training.wait(1)


def test_moving_the_slider_stops_playing(training: Training) -> None:
    training.open_at(step=0)
    training.page.locator("#play").click()
    training.slider.press("End")
    training.wait(None)
    assert training.page.locator("#play").text_content() == "Play"


def test_an_address_restores_everything(browser: Browser, training: Training, trained: Server) -> None:
    training.open_at()
    training.text.fill("the dog & <cat>\n saw")
    training.slider.fill("3")
    training.wait(4, text="the dog & <cat>\n saw")
    training.page.locator("#layer").fill("1")
    training.page.locator("[data-stage=scaled]").click()
    training.choose_query(2)
    training.page.wait_for_function("() => new URLSearchParams(location.search).get('query') === '2'")
    training.wait(4, text="the dog & <cat>\n saw", layer=1)
    with tab_of(Training, browser, trained.url) as second_tab:
        second_tab.page.goto(training.page.url, wait_until="commit")
        second_tab.wait(4, text="the dog & <cat>\n saw", layer=1)
        assert second_tab.shown() == training.shown() == [MODEL, "the dog & <cat>\n saw", 1, 0, "scaled"]
        assert second_tab.description() == training.description()
        assert second_tab.row() == training.row()
        assert second_tab.z().tolist() == training.z().tolist()


def test_an_example_keeps_the_step_and_back_restores_the_text(training: Training) -> None:
    training.open_at(step=2)
    example = training.page.locator(".examples a").first
    text = example.get_attribute("data-text") or ""
    example.click()
    training.wait(2, text=text)
    training.page.go_back()
    training.wait(2)
    assert training.page.url.partition("?")[0].endswith("/training")


def test_a_step_that_does_not_exist_is_explained_and_the_slider_still_works(training: Training) -> None:
    training.monitor.allow("status of 422")
    training.go(model=MODEL, text=TEXT, step=3)
    training.page.locator("body.stale").wait_for()
    training.page.locator("#slider:enabled").wait_for()
    assert "tiny-run has no parameters of step 3. Saved steps: 0, 1, 2, 4, 8" in (training.notice.text_content() or "")
    assert training.text.input_value() == TEXT
    training.slider.press("ArrowRight")
    training.wait(4)
    assert training.notice.is_hidden()


def test_a_text_that_is_too_long_is_explained_and_kept(training: Training) -> None:
    training.monitor.allow("status of 422")
    training.open_at(step=2)
    training.text.fill("cat " * 70)
    training.notice.wait_for()
    assert "tiny-run reads 64" in (training.notice.text_content() or "")
    assert training.text.input_value() == "cat " * 70
    training.text.fill(TEXT)
    training.wait(2)
    assert training.notice.is_hidden()


def test_a_model_without_steps_says_so_and_links_to_one_with_steps(training: Training) -> None:
    training.monitor.allow("status of 503")  # while it is loaded
    training.open_at(step=8)
    training.page.locator("#model").select_option("smollm2-135m")
    note = training.page.locator("#no-steps")
    note.wait_for(timeout=60_000)
    assert "smollm2-135m came without training steps" in (note.text_content() or "")
    assert "lookback train" in (note.text_content() or "")
    assert training.slider.is_hidden()
    assert training.patterns.is_hidden()
    training.page.wait_for_function("() => document.querySelector('#head-figure').dataset.drawn.startsWith('smollm2')")
    assert "model=lookback-gpt" in (note.locator(".shipped").get_attribute("href") or "")
    training.page.locator("#model").select_option(MODEL)
    training.wait(None)  # the steps of the other model are gone
    assert note.is_hidden()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    training: Training, size: ViewportSize, scheme: Literal["light", "dark"], screenshots: Path
) -> None:
    training.open_at(step=8, layer=1)
    training.page.set_viewport_size(size)
    training.page.emulate_media(color_scheme=scheme)
    training.page.wait_for_function(_FOLLOWED)
    name = "wide" if size is WIDE else "phone"
    training.page.screenshot(path=screenshots / f"training-{name}-{scheme}.png", full_page=True)
    report = Axe().run(training.page)
    assert report.violations_count == 0, report.generate_report()
    assert training.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_without_scripts_the_steps_are_links_and_the_numbers_are_there(browser: Browser, trained: Server) -> None:
    with tab_of(Training, browser, trained.url, java_script_enabled=False) as plain:
        plain.go(model=MODEL, text=TEXT, layer=1)
        links = plain.page.locator("#steps-table a")
        assert links.all_text_contents() == [str(step) for step in STEPS]
        assert plain.page.locator("#steps-table [aria-current]").text_content() == "12"
        links.nth(3).click()
        plain.page.wait_for_url(re.compile("step=4"))
        weights = values(trained, text=TEXT, step=4, layers=[1], heads=[0])[-1]
        np.testing.assert_allclose([float(line[3]) for line in plain.row().values()], weights, atol=1.1e-6)
        plain.text.fill("the dog")
        plain.page.locator("#text-form button").click()
        plain.page.wait_for_url(re.compile("text=the\\+dog"))
        assert plain.page.url.startswith(f"{trained.url}/training?")
        assert plain.address()["step"] == "4"
        assert plain.page.locator("#steps-table [aria-current]").text_content() == "4"


def test_the_home_page_can_show_a_step_too(training: Training, trained: Server) -> None:
    training.page.goto(f"{trained.url}/?model={MODEL}&text=the+cat&step=4", wait_until="commit")
    training.page.wait_for_function(
        "() => document.querySelector('#head-figure')?.dataset.drawn?.startsWith('tiny-run at step 4 ·')"
    )
    training.text.fill("the dog")
    training.page.wait_for_function("() => location.search.includes('the+dog')")
    assert training.address()["step"] == "4"
    training.page.locator("#facts", has_text="tiny-run at step 4 ·").wait_for()
    training.page.get_by_role("link", name="show the finished model").click()
    training.page.wait_for_function(
        "() => document.querySelector('#head-figure')?.dataset.drawn?.startsWith('tiny-run ·')"
    )
    assert "step" not in training.address()
