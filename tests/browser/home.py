"""The home page as a user does: open it, type, choose, and read what is drawn."""

import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page

Matrix = NDArray[np.float64]

# Is everything drawn, and as wanted? `document.body.dataset.shown` describes what was drawn last.
_SHOWS = """(wanted) => {
  const shown = document.body?.dataset.shown; // a page that is just being loaded has no body yet
  if (!shown || document.body.classList.contains("stale")) return false;
  const [model, text, layer, head, stage] = JSON.parse(shown);
  const actual = { model, text, layer, head, stage };
  if (Object.keys(wanted).some((name) => wanted[name] !== actual[name])) return false;
  const name = { scores: "scores q·k", scaled: "scaled scores q·k/√d", masked: "masked scores",
    weights: "attention weights" }[stage];
  const [figure, norms] = ["head-figure", "norms-figure"].map((id) => document.getElementById(id));
  const n = document.querySelectorAll("#tokens .token").length;
  if (!figure.data || !norms.data || document.querySelector(".outdated")) return false;
  const [from, to, step] = figure.data[0].meta.x;
  const pooling = step > 1 ? ` · each cell is the largest of ${step}×${step}` : "";
  return figure.dataset.drawn === `${model} · layer ${layer}, head ${head} · ${name}${pooling}`
    && figure.data[0].x.length === Math.ceil((to - from) / step) && to <= n && norms.data[0].y.length === n;
}"""

_Z = "(figure) => figure.data[0].z.map((row) => Array.from(row, (value) => value ?? null))"
_NORMS = """(figure) => Object.fromEntries(
  figure.data.map((trace) => [trace.meta.customdata, trace.customdata.map((row) => [...row])]))"""
_LABELS = """(texts, axis) => texts.map((text) => [text.getBoundingClientRect(), text.textContent])
  .sort(([a], [b]) => (axis === "x" ? a.right - b.right : a.top - b.top)).map(([, label]) => label)"""
# One call for all rows: with two calls per row, 256 rows take two seconds of processor time.
_ROWS = """(rows) => rows.map((row) => [row.querySelector("th").textContent,
  [...row.querySelectorAll("td")].map((cell) => cell.textContent)])"""
_SPANS = """(lines) => lines.map((line) => [...line.querySelectorAll("span")].map((span) => span.textContent))"""
_UPDATE = """async (state) => {
  document.activeElement.blur();
  (await import("/static/address.js")).update(state);
}"""

MODEL = "small-llama"  # of the server that the tests share
INITIAL = {"model": MODEL, "layer": 11, "head": 7, "query": None, "stage": "weights", "window": None}


class Home:
    """The home page in a tab."""

    path = "/"

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.text = page.locator("#text")
        self.notice = page.locator("#notice")
        self.chips = page.locator("#tokens .token")
        self.grid = page.locator("#grid")
        self.figure = page.locator("#head-figure")
        self.norms = page.locator("#norms-figure")
        self.cell = page.locator("#cell")

    def open(self, **state: Any) -> None:
        """Open the page at the address of this state, and wait until everything is drawn."""
        self.go(**state)
        self.wait_until_shown(**{name: value for name, value in state.items() if name not in ("query", "window")})

    def go(self, **state: Any) -> None:
        """Open the page without waiting for it."""
        query = f"?{urlencode(state)}" if state else ""
        self.page.goto(f"{self.url}{self.path}{query}", wait_until="commit")

    def switch_to(self, text: str, **state: Any) -> None:
        """The same as `open`, but without a reload. Fields that are not given get their initial values."""
        if self.page.url.partition("?")[0] != f"{self.url}{self.path}":
            self.go()
            self.wait_until_shown()
        wanted = {**INITIAL, "text": text, **state}
        self.page.evaluate(_UPDATE, wanted)
        query = wanted.pop("query")
        del wanted["window"]
        self.wait_until_shown(**wanted)
        self.wait_until_chosen(query)

    def wait_until_shown(self, **wanted: Any) -> None:
        """Wait until these are drawn: any of model, text, layer, head and stage."""
        self.page.wait_for_function(_SHOWS, arg=wanted, polling=20)

    def type(self, text: str) -> None:
        """Replace the text in the box, and wait until it is drawn."""
        self.text.fill(text)
        self.wait_until_shown(text=text)

    def choose_stage(self, stage: str) -> None:
        self.page.locator(f"[data-stage={stage}]").click()
        self.wait_until_shown(stage=stage)

    def choose_query(self, position: int) -> None:
        self.chips.nth(position).click()
        self.wait_until_chosen(position)

    def wait_until_chosen(self, position: int | None) -> None:
        """Wait until the chip of this position is marked; None is the last one."""
        item = "li:last-child" if position is None else f"li:nth-child({position + 1})"
        self.page.locator(f"#tokens {item} [aria-current]").wait_for()

    def shown(self) -> list[Any]:
        """Model, text, layer, head and stage of what is drawn."""
        shown: list[Any] = json.loads(self.page.locator("body").get_attribute("data-shown") or "null")
        return shown

    def token_labels(self) -> list[str]:
        return self.chips.all_text_contents()

    def z(self) -> Matrix:
        """The numbers of the head figure, one row per query; a blank cell is NaN."""
        rows: list[list[float | None]] = self.figure.evaluate(_Z)
        z = np.full((len(rows), max(map(len, rows))), np.nan)
        for query, row in enumerate(rows):
            z[query, : len(row)] = [np.nan if value is None else value for value in row]
        return z

    def norm_numbers(self) -> dict[str, list[list[float]]]:
        """The numbers of the norm figure by statistic (mean, variance, rms), one row per token."""
        numbers: dict[str, list[list[float]]] = self.norms.evaluate(_NORMS)
        return numbers

    def title(self) -> str:
        return self.figure.locator(".gtitle").text_content() or ""

    def labels(self, axis: str) -> list[str]:
        """The labels that are visible on the head figure's x or y axis, in the order of reading."""
        labels: list[str] = self.figure.locator(f".{axis}tick text").evaluate_all(_LABELS, axis)
        return labels

    def row(self) -> dict[str, list[str]]:
        """The table of the chosen query: from the name of a key to its score, scaled score, masked score and weight."""
        return dict(self.page.locator("#query-table tbody tr").evaluate_all(_ROWS))

    def next_tokens(self) -> list[list[str]]:
        """The most probable next tokens, each with its probability."""
        tokens: list[list[str]] = self.page.locator("#next li").evaluate_all(_SPANS)
        return tokens

    def grid_image(self) -> str:
        """The pixels of the grid, as a data URL."""
        image: str = self.grid.evaluate("(canvas) => canvas.toDataURL()")
        return image

    def hover_cell(self, query: int, key: int) -> Locator:
        """Move the pointer to a cell of the head figure, and return the label that Plotly shows."""
        n = self.chips.count()
        return self._hover(self.figure, self.figure.locator(".nsewdrag"), (query + 0.5) / n, (key + 0.5) / n)

    def hover_norm(self, panel: int, token: int, site: int, n_sites: int) -> Locator:
        """Move the pointer to a cell of a norm panel, counted from the top, and return the label."""
        plot = self.norms.locator(".nsewdrag").nth(panel)
        return self._hover(self.norms, plot, (token + 0.5) / self.chips.count(), (site + 0.5) / n_sites)

    def _hover(self, figure: Locator, plot: Locator, down: float, across: float) -> Locator:
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        return figure.locator(".hoverlayer .hovertext")

    def focused(self) -> str:
        """The element with the focus: its id, its stage, its first class, or its tag."""
        name: str = self.page.evaluate(
            "(({ id, dataset, classList, tagName }) => id || dataset.stage || classList[0] || tagName)"
            "(document.activeElement)"
        )
        return name

    def address(self) -> dict[str, str]:
        """The state in the address."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}
