"""A model through its training: what the slider says is what is drawn, and it is the API's."""

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

# Is the picture of this step, text and head drawn, and do the charts stand at this place?
_SHOWS = """([step, text, layer, head, place]) => {
  const shown = JSON.parse(document.body?.dataset.shown ?? "null");
  if (!shown || document.body.classList.contains("stale")) return false;
  const [figure, patterns, loss] = ["head", "patterns", "loss"].map((id) => document.getElementById(`${id}-figure`));
  const name = step === null ? shown[0] : `${shown[0]} at step ${step}`;
  return shown[1] === text && shown[2] === layer && shown[3] === head
    && figure.dataset.drawn?.startsWith(`${name} · layer ${layer}, head ${head} ·`)
    && patterns.data?.[2].x[0] === place && loss.data?.length === 3
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
    """The page of a model's training in one tab."""

    path = "/training"

    @property
    def slider(self) -> Locator:
        return self.page.locator("#slider")

    @property
    def patterns(self) -> Locator:
        return self.page.locator("#patterns-figure")

    def look(self, **state: Any) -> None:
        """Open the page at the address of this state, and wait until all of it is drawn."""
        state = {"model": MODEL, "text": TEXT, **state}
        self.go(**state)
        self.wait(state.get("step"), text=state["text"], layer=state.get("layer", 0), head=state.get("head", 0))

    def wait(self, step: int | None, *, text: str = TEXT, layer: int = 0, head: int = 0) -> None:
        place = STEPS.index(STEPS[-1] if step is None else step)
        self.page.wait_for_function(_SHOWS, arg=[step, text, layer, head, place], polling=20)

    def words(self) -> str:
        return self.page.locator("#step-words").text_content() or ""

    def point(self, panel: int, place: int, value: float) -> tuple[float, float]:
        """Where on the screen a point of a panel is, counted from the top."""
        self.patterns.scroll_into_view_if_needed()
        x, y = self.patterns.evaluate(_POINT, [panel and panel + 1, place, value])
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
    """A tab, wide and light; all tests have the same one."""
    shared_training.page.set_viewport_size(WIDE)
    shared_training.page.emulate_media(color_scheme="light")
    shared_training.page.mouse.move(0, 0)
    yield shared_training
    shared_training.check()


@pytest.fixture(scope="module")
def course(trained: Server) -> Any:
    return trained.get(f"/api/v1/models/{MODEL}/checkpoints")


def values(server: Server, **ask: Any) -> Matrix:
    """The API's weights of one head; what is behind the mask is NaN."""
    reply = server.post("attention", model=MODEL, **ask)
    found = np.array(reply["values"][0][0], dtype=np.float32).astype(np.float64)
    found[np.triu_indices(len(found), 1)] = np.nan
    return found


def test_dragging_the_slider_shows_the_model_as_it_was(training: Training, trained: Server, course: Any) -> None:
    training.look(layer=1, head=0)
    assert training.title() == "tiny-run · layer 1, head 0 · attention weights"
    box = training.slider.bounding_box()
    assert box
    thumb = 8  # px from the edge of the slider to the middle of its thumb, at either end
    along, middle = (box["width"] - 2 * thumb) / (len(STEPS) - 1), box["y"] + box["height"] / 2
    mouse = training.page.mouse
    mouse.move(box["x"] + box["width"] - thumb, middle)
    mouse.down()
    seen = [training.picture()]
    for place in (4, 2, 0, 3):
        mouse.move(box["x"] + thumb + place * along, middle)
        step = STEPS[place]
        training.wait(step, layer=1)  # the button is still down
        assert training.title() == f"tiny-run at step {step} · layer 1, head 0 · attention weights"
        np.testing.assert_allclose(
            training.z(), values(trained, text=TEXT, step=step, layers=[1], heads=[0]), rtol=5e-7, atol=1e-30
        )
        point = next(point for point in course["curve"] if point["step"] == step)
        words = f"tep {step}: {point['n_tokens']:,} tokens read, held-out loss {point['held_out_loss']:.2f}"
        assert training.words() == f"S{words}"
        assert training.slider.get_attribute("aria-valuetext") == f"s{words}"
        predicted = trained.post("predictions", model=MODEL, text=TEXT, step=step)["predictions"][0]["top"]
        assert training.next_tokens() == [[one["text"], f"{100 * one['probability']:.2f} %"] for one in predicted]
        assert training.picture() not in seen
        seen.append(training.picture())
    mouse.up()
    training.page.wait_for_function("() => new URLSearchParams(location.search).get('step') === '4'")


def test_arrow_keys_walk_from_step_to_step_and_the_last_has_no_number_in_the_address(training: Training) -> None:
    training.look(step=4)
    training.slider.press("ArrowRight")
    training.wait(8)
    training.slider.press("ArrowRight")
    training.wait(None)
    assert training.words().startswith("Step 12: ")
    training.page.wait_for_function("() => !new URLSearchParams(location.search).has('step')")
    training.slider.press("Home")
    training.wait(0)
    assert training.focused() == "slider"


def test_the_charts_hold_the_numbers_of_the_api(training: Training, course: Any) -> None:
    training.look(step=2, layer=1, head=1)
    lines = training.patterns.evaluate(_LINES)
    for panel, pattern in enumerate(PATTERNS):
        scores = np.array([checkpoint["patterns"][pattern] for checkpoint in course["checkpoints"]])
        every, chosen, here = lines[3 * panel : 3 * panel + 3]
        assert chosen["y"][: len(STEPS)] == scores[:, 1, 1].tolist()
        assert here["x"] == [2, 2]
        found = [(tuple(who), y) for who, y in zip(every["customdata"], every["y"], strict=True) if y is not None]
        steps = [f"step {step}" for step in STEPS]
        assert found == [
            ((layer, head, step), scores[place, layer, head])
            for layer in range(2)
            for head in range(2)
            for place, step in enumerate(steps)
        ]
        label = training.patterns.locator(".annotation-text").nth(2 * panel + 1).text_content()
        assert label == f"layer 1, head 1: {scores[2, 1, 1]:.2f}"
    ticks = training.patterns.locator(".x3tick text").all_text_contents()
    assert ticks == [str(step) for step in STEPS]
    loss, held_out, here = training.page.locator("#loss-figure").evaluate(_LINES)
    curve = [point for point in course["curve"] if point["n_tokens"]]
    assert loss["y"] == [point["loss"] for point in curve]
    assert held_out["y"] == [point["held_out_loss"] for point in curve]
    assert here["x"] == [next(point["n_tokens"] for point in curve if point["step"] == 2)] * 2


def test_a_line_is_named_under_the_pointer_and_chosen_by_a_click(training: Training, course: Any) -> None:
    apart = json.loads(json.dumps(course))  # 12 steps of training leave the lines of all heads within a pixel or two
    for checkpoint in apart["checkpoints"]:
        checkpoint["patterns"] = {name: [[0.05, 0.35], [0.65, 0.95]] for name in PATTERNS}
    training.page.route("**/checkpoints", lambda route: route.fulfill(json=apart))
    try:
        training.look(step=8)
    finally:
        training.page.unroute("**/checkpoints")
    place = training.point(2, 3, 0.65)
    training.page.mouse.move(*place)
    label = training.patterns.locator(".hoverlayer .hovertext")
    label.filter(has_text="layer 1, head 0: 0.65 at step 4").wait_for()
    training.page.mouse.click(*place)
    training.wait(8, layer=1)
    assert training.page.locator("#head-title").text_content() == "Layer 1, head 0"


def test_a_head_is_chosen_in_the_grid_and_by_its_number(training: Training, trained: Server) -> None:
    training.look(step=8)
    box = training.grid.bounding_box()
    assert box
    label = 22  # px; the numbers of layers and heads on the edges
    place = {"x": label + 0.25 * (box["width"] - label), "y": label + 0.75 * (box["height"] - label)}
    training.grid.click(position={"x": place["x"], "y": place["y"]})
    training.wait(8, layer=1, head=0)
    np.testing.assert_allclose(
        training.z(), values(trained, text=TEXT, step=8, layers=[1], heads=[0]), rtol=5e-7, atol=1e-30
    )
    training.page.locator("#head").fill("1")
    training.wait(8, layer=1, head=1)
    training.grid.press("ArrowUp")
    training.wait(8, layer=0, head=1)


def test_what_is_typed_is_read_at_the_chosen_step(training: Training, trained: Server) -> None:
    training.look(step=1)
    training.text.press("Control+End")
    training.page.keyboard.type(" sat")
    training.wait(1, text=f"{TEXT} sat")
    assert training.pieces() == [
        token["text"] for token in trained.post("tokens", model=MODEL, text=f"{TEXT} sat")["tokens"]
    ]
    training.choose_query(3)
    expected = values(trained, text=f"{TEXT} sat", step=1, layers=[0], heads=[0])
    np.testing.assert_allclose([float(line[3]) for line in training.row().values()][:4], expected[3, :4], atol=1.1e-6)
    training.slider.press("End")
    training.wait(None, text=f"{TEXT} sat")
    assert training.page.locator(".token[aria-current]").get_attribute("value") == "3"  # the query is kept


def test_play_walks_through_the_training_and_stops_at_its_end(training: Training) -> None:
    training.look(step=4)
    button = training.page.locator("#play")
    button.click()
    assert button.text_content() == "Stop"
    training.wait(8)
    training.wait(None)
    training.page.locator("#play", has_text="Play").wait_for()
    button.click()  # from the end it begins anew
    training.wait(0)
    training.wait(1)
    button.click()
    assert button.text_content() == "Play"
    training.page.wait_for_timeout(1_200)
    training.wait(1)


def test_who_takes_the_slider_stops_the_walk(training: Training) -> None:
    training.look(step=0)
    training.page.locator("#play").click()
    training.slider.press("End")
    training.wait(None)
    assert training.page.locator("#play").text_content() == "Play"


def test_a_link_restores_everything(browser: Browser, training: Training, trained: Server) -> None:
    training.look()
    training.text.fill("the dog & <cat>\n saw")
    training.slider.fill("3")
    training.wait(4, text="the dog & <cat>\n saw")
    training.page.locator("#layer").fill("1")
    training.page.locator("[data-stage=scaled]").click()
    training.choose_query(2)
    training.page.wait_for_function("() => new URLSearchParams(location.search).get('query') === '2'")
    training.wait(4, text="the dog & <cat>\n saw", layer=1)
    with tab_of(Training, browser, trained.url) as stranger:
        stranger.page.goto(training.page.url, wait_until="commit")
        stranger.wait(4, text="the dog & <cat>\n saw", layer=1)
        assert stranger.shown() == training.shown() == [MODEL, "the dog & <cat>\n saw", 1, 0, "scaled"]
        assert stranger.words() == training.words()
        assert stranger.row() == training.row()
        assert stranger.z().tolist() == training.z().tolist()


def test_an_example_keeps_the_step_and_back_undoes_it(training: Training) -> None:
    training.look(step=2)
    example = training.page.locator(".examples a").first
    text = example.get_attribute("data-text") or ""
    example.click()
    training.wait(2, text=text)
    training.page.go_back()
    training.wait(2)
    assert training.page.url.partition("?")[0].endswith("/training")


def test_a_step_that_is_not_there_is_explained_and_the_slider_leads_on(training: Training) -> None:
    training.watch.allow("status of 422")
    training.go(model=MODEL, text=TEXT, step=3)
    training.page.locator("body.stale").wait_for()
    training.page.locator("#slider:enabled").wait_for()
    assert "tiny-run has no parameters of step 3. Saved steps: 0, 1, 2, 4, 8" in (training.notice.text_content() or "")
    assert training.text.input_value() == TEXT
    training.slider.press("ArrowRight")
    training.wait(4)
    assert training.notice.is_hidden()


def test_a_text_that_is_too_long_is_explained_and_kept(training: Training) -> None:
    training.watch.allow("status of 422")
    training.look(step=2)
    training.text.fill("cat " * 70)
    training.notice.wait_for()
    assert "tiny-run reads 64" in (training.notice.text_content() or "")
    assert training.text.input_value() == "cat " * 70
    training.text.fill(TEXT)
    training.wait(2)
    assert training.notice.is_hidden()


def test_a_model_without_steps_says_so_and_leads_to_one_with_steps(training: Training) -> None:
    training.watch.allow("status of 503")  # while it is loaded
    training.look(step=8)
    training.page.locator("#model").select_option("smollm2-135m")
    said = training.page.locator("#no-steps")
    said.wait_for(timeout=60_000)
    assert "smollm2-135m came without steps of its training" in (said.text_content() or "")
    assert "lookback train" in (said.text_content() or "")
    assert training.slider.is_hidden()
    assert training.patterns.is_hidden()
    training.page.wait_for_function("() => document.querySelector('#head-figure').dataset.drawn.startsWith('smollm2')")
    assert "model=lookback-gpt" in (said.locator(".shipped").get_attribute("href") or "")
    training.page.locator("#model").select_option(MODEL)
    training.wait(None)  # another model's steps are not this one's
    assert said.is_hidden()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    training: Training, size: ViewportSize, scheme: Literal["light", "dark"], screenshots: Path
) -> None:
    training.look(step=8, layer=1)
    training.page.set_viewport_size(size)
    training.page.emulate_media(color_scheme=scheme)
    training.page.wait_for_function(_FOLLOWED)
    name = "wide" if size is WIDE else "phone"
    training.page.screenshot(path=screenshots / f"training-{name}-{scheme}.png", full_page=True)
    found = Axe().run(training.page)
    assert found.violations_count == 0, found.generate_report()
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
        plain.page.locator("#ask button").click()
        plain.page.wait_for_url(re.compile("text=the\\+dog"))
        assert plain.page.url.startswith(f"{trained.url}/training?")
        assert plain.address()["step"] == "4"
        assert plain.page.locator("#steps-table [aria-current]").text_content() == "4"


def test_the_first_page_looks_at_a_step_too(training: Training, trained: Server) -> None:
    training.page.goto(f"{trained.url}/?model={MODEL}&text=the+cat&step=4", wait_until="commit")
    training.page.wait_for_function(
        "() => document.querySelector('#head-figure')?.dataset.drawn?.startsWith('tiny-run at step 4 ·')"
    )
    training.text.fill("the dog")
    training.page.wait_for_function("() => location.search.includes('the+dog')")
    assert training.address()["step"] == "4"
    training.page.locator("#facts", has_text="tiny-run at step 4 ·").wait_for()
    training.page.get_by_role("link", name="see the end of its training").click()
    training.page.wait_for_function(
        "() => document.querySelector('#head-figure')?.dataset.drawn?.startsWith('tiny-run ·')"
    )
    assert "step" not in training.address()
