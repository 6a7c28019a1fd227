"""The page as its visitor has it: opens it, types, chooses, and reads what is drawn."""

import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page

Matrix = NDArray[np.float64]

# Is everything drawn, and is it what is wanted? `document.body.dataset.shown` says what was drawn last.
_SHOWS = """(wanted) => {
  const shown = document.body?.dataset.shown; // a page that has just been asked for has no body yet
  if (!shown || document.body.classList.contains("stale")) return false;
  const [model, text, layer, head, stage] = JSON.parse(shown);
  const is = { model, text, layer, head, stage };
  if (Object.keys(wanted).some((name) => wanted[name] !== is[name])) return false;
  const name = { scores: "scores q·k", scaled: "scaled scores q·k/√d", masked: "masked scores",
    weights: "attention weights" }[stage];
  const [one, norms] = ["head-figure", "norms-figure"].map((id) => document.getElementById(id));
  const n = document.querySelectorAll("#tokens .token").length;
  if (!one.data || !norms.data || document.querySelector(".late")) return false;
  const [from, to, step] = one.data[0].meta.x;
  const closely = step > 1 ? ` · a cell is the largest of ${step}×${step}` : "";
  return one.dataset.drawn === `${model} · layer ${layer}, head ${head} · ${name}${closely}`
    && one.data[0].x.length === Math.ceil((to - from) / step) && to <= n && norms.data[0].y.length === n;
}"""

_Z = "(figure) => figure.data[0].z.map((row) => Array.from(row, (value) => value ?? null))"
_NORMS = """(figure) => Object.fromEntries(
  figure.data.map((one) => [one.meta.customdata, one.customdata.map((row) => [...row])]))"""
_LABELS = """(texts, axis) => texts.map((text) => [text.getBoundingClientRect(), text.textContent])
  .sort(([a], [b]) => (axis === "x" ? a.right - b.right : a.top - b.top)).map(([, label]) => label)"""
# In one call each: 256 rows, each asked for twice, take two seconds of processor time.
_ROWS = """(rows) => rows.map((row) => [row.querySelector("th").textContent,
  [...row.querySelectorAll("td")].map((cell) => cell.textContent)])"""
_SPANS = """(lines) => lines.map((line) => [...line.querySelectorAll("span")].map((span) => span.textContent))"""
_SHOW = """async (state) => {
  document.activeElement.blur();
  (await import("/static/address.js")).show(state);
}"""

MODEL = "small-llama"  # of the server that the tests share
FIRST = {"model": MODEL, "layer": 11, "head": 7, "query": None, "stage": "weights", "window": None}


class Home:
    """One page in one tab."""

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
        """Open the page at the address of this state, and wait until all of it is drawn."""
        self.go(**state)
        self.wait_until_shown(**{name: value for name, value in state.items() if name not in ("query", "window")})

    def go(self, **state: Any) -> None:
        """Open the page, and wait for nothing."""
        query = f"?{urlencode(state)}" if state else ""
        self.page.goto(f"{self.url}{self.path}{query}", wait_until="commit")

    def turn_to(self, text: str, **state: Any) -> None:
        """The same as `open`, without loading anew a page that is there already. What is not named is as at first."""
        if self.page.url.partition("?")[0] != f"{self.url}{self.path}":
            self.go()
            self.wait_until_shown()
        wanted = {**FIRST, "text": text, **state}
        self.page.evaluate(_SHOW, wanted)
        query = wanted.pop("query")
        del wanted["window"]
        self.wait_until_shown(**wanted)
        self.wait_until_chosen(query)

    def wait_until_shown(self, **wanted: Any) -> None:
        """Wait until all of this is drawn: any of model, text, layer, head and stage."""
        self.page.wait_for_function(_SHOWS, arg=wanted, polling=20)

    def type(self, text: str) -> None:
        """Put this text into the box in place of what is there, and wait until it is drawn."""
        self.text.fill(text)
        self.wait_until_shown(text=text)

    def choose_stage(self, stage: str) -> None:
        self.page.locator(f"[data-stage={stage}]").click()
        self.wait_until_shown(stage=stage)

    def choose_query(self, position: int) -> None:
        self.chips.nth(position).click()
        self.wait_until_chosen(position)

    def wait_until_chosen(self, position: int | None) -> None:
        """Wait until the chip of this position is marked, or the last one."""
        which = "li:last-child" if position is None else f"li:nth-child({position + 1})"
        self.page.locator(f"#tokens {which} [aria-current]").wait_for()

    def shown(self) -> list[Any]:
        """Model, text, layer, head and stage of the picture."""
        found: list[Any] = json.loads(self.page.locator("body").get_attribute("data-shown") or "null")
        return found

    def pieces(self) -> list[str]:
        return self.chips.all_text_contents()

    def z(self) -> Matrix:
        """The head figure's numbers, queries down; a cell that has none is NaN."""
        rows: list[list[float | None]] = self.figure.evaluate(_Z)
        z = np.full((len(rows), max(map(len, rows))), np.nan)
        for query, row in enumerate(rows):
            z[query, : len(row)] = [np.nan if value is None else value for value in row]
        return z

    def norm_numbers(self) -> dict[str, list[list[float]]]:
        """The norm figure's numbers, a row a token: mean, variance and rms."""
        found: dict[str, list[list[float]]] = self.norms.evaluate(_NORMS)
        return found

    def title(self) -> str:
        return self.figure.locator(".gtitle").text_content() or ""

    def labels(self, axis: str) -> list[str]:
        """What a reader sees on the head figure's x or y axis, in the order of reading."""
        found: list[str] = self.figure.locator(f".{axis}tick text").evaluate_all(_LABELS, axis)
        return found

    def row(self) -> dict[str, list[str]]:
        """The table of the chosen query: the key's name -> score, scaled, masked, weight."""
        return dict(self.page.locator("#row tbody tr").evaluate_all(_ROWS))

    def next_tokens(self) -> list[list[str]]:
        """The likeliest next tokens, with what stands beside each."""
        found: list[list[str]] = self.page.locator("#next li").evaluate_all(_SPANS)
        return found

    def picture(self) -> str:
        """The grid's pixels."""
        found: str = self.grid.evaluate("(canvas) => canvas.toDataURL()")
        return found

    def hover_cell(self, query: int, key: int) -> Locator:
        """Put the pointer on a cell of the head figure. The label that Plotly then shows."""
        n = self.chips.count()
        return self._hover(self.figure, self.figure.locator(".nsewdrag"), (query + 0.5) / n, (key + 0.5) / n)

    def hover_norm(self, panel: int, token: int, site: int, n_sites: int) -> Locator:
        """Put the pointer on a cell of a norm panel, counted from the top."""
        where = self.norms.locator(".nsewdrag").nth(panel)
        return self._hover(self.norms, where, (token + 0.5) / self.chips.count(), (site + 0.5) / n_sites)

    def _hover(self, figure: Locator, where: Locator, down: float, across: float) -> Locator:
        where.scroll_into_view_if_needed()
        box = where.bounding_box()
        assert box
        self.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        return figure.locator(".hoverlayer .hovertext")

    def focused(self) -> str:
        """What the keyboard is on: an element's id, its stage, its first class, or its tag."""
        found: str = self.page.evaluate(
            "(({ id, dataset, classList, tagName }) => id || dataset.stage || classList[0] || tagName)"
            "(document.activeElement)"
        )
        return found

    def address(self) -> dict[str, str]:
        """The state that the address holds."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}
