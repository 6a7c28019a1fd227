"""What is drawn of a reading -> Plotly figures, as plain dicts. Pure: no torch, no request.

Numbers do not travel inside a figure, and neither do tokens. A trace's `meta` names the arrays that belong in it and
the axes along which tokens stand, and static/figure.js puts them there; so does `filled`, for everybody who has the
arrays in Python. Colours come from the page's theme, as Plotly's template.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.trace import Stage

Figure = dict[str, Any]
Array = NDArray[np.float32]

MARGIN = {"l": 10, "r": 10, "t": 62, "b": 10}  # px; the top holds Plotly's buttons, and the title below them
GAP_PX = 26  # between the three norm panels
N_LABEL = 24  # characters of a token's label on an axis, at most
MEAN_UNIT = 0.01  # means are shaded by asinh(mean / unit): linear below it, logarithmic far above
SMALLEST = 1e-12  # the logarithm of nothing smaller is taken
SHADES: dict[str, tuple[str, float]] = {
    "mean": ("asinh", MEAN_UNIT),
    "variance": ("log10", SMALLEST),
    "rms": ("log10", SMALLEST),
}

STAGE_NAMES: dict[Stage, str] = {
    "scores": "scores q·k",
    "scaled": "scaled scores q·k/√d",
    "masked": "masked scores",
    "weights": "attention weights",
}


def labels(pieces: Sequence[str], first: int = 0, last: int | None = None, step: int = 1) -> list[str]:
    """One axis label a cell. The position makes it unique: Plotly would draw equal categories as one.

    >>> labels(["the", "<b>", "the"])
    ['0 the', '1 &lt;b&gt;', '2 the']
    >>> labels(["the", "fat", "cat"], step=2)
    ['0–1 the', '2 cat']
    """
    made = []
    for begin in range(first, end := len(pieces) if last is None else last, step):
        piece = pieces[begin] if len(pieces[begin]) <= N_LABEL else pieces[begin][: N_LABEL - 1] + "…"
        until = min(begin + step, end) - 1
        made.append(f"{begin}{f'–{until}' if until > begin else ''} {html.escape(piece, quote=False)}")
    return made


@dataclass(frozen=True)
class Window:
    """Which cells of a head are shown, and how closely. Rows are queries, columns are keys."""

    top: int
    bottom: int  # behind the last row
    left: int
    right: int  # behind the last column
    step: int = 1  # tokens a side of a cell; 1 shows every number

    @property
    def height(self) -> int:
        return -(-(self.bottom - self.top) // self.step)

    @property
    def width(self) -> int:
        return -(-(self.right - self.left) // self.step)


def head(window: Window, stage: Stage, *, model: str, layer: int, index: int) -> Figure:
    """One stage of one head as a heatmap: queries down, keys across.

    Weights are coloured from 0 to 1, scores around 0. Cells behind the mask stay blank where the stage has no value
    for them, and are hatched at every stage. The theme's template holds the two colour scales: a heatmap's own runs
    one way, the automatic one around 0.
    """
    is_fine = max(window.height, window.width) <= 64
    name = f"{model} · layer {layer}, head {index} · {STAGE_NAMES[stage]}"
    if window.step > 1:
        name += f" · a cell is the largest of {window.step}×{window.step}"
    trace = {
        "type": "heatmap",
        "meta": {
            "z": "scaled" if stage == "masked" and window.step == 1 else stage,
            "behind": (window.top - window.left) // window.step if stage in ("masked", "weights") else None,
            "reach": stage != "weights",
            "x": [window.left, window.right, window.step],
            "y": [window.top, window.bottom, window.step],
        },
        "zmin": 0,
        "zmax": 1,
        "autocolorscale": stage != "weights",
        "xgap": 1 if is_fine else 0,
        "ygap": 1 if is_fine else 0,
        "hoverongaps": False,
        "hovertemplate": f"query %{{y}}<br>key %{{x}}<br>{stage} %{{z:.7~g}}<extra></extra>",
        "colorbar": {"thickness": 10, "len": 0.6, "outlinewidth": 0, "title": {"text": stage, "side": "right"}},
    }
    axis = {"type": "category", "showgrid": False, "zeroline": False, "ticks": "", "constrain": "domain"}
    across, down = [-0.5, window.width - 0.5], [window.height - 0.5, -0.5]
    return {
        "data": [trace],
        "layout": {
            "title": _title(name),
            "xaxis": {**axis, "range": across, "side": "bottom", "title": {"text": "key"}, "tickangle": -60},
            "yaxis": {**axis, "range": down, "scaleanchor": "x", "title": {"text": "query"}},
            "shapes": [{"type": "path", "path": path, "layer": "above", "line": {"width": 1}}]
            if (path := hatch(window.height, window.width, (window.top - window.left) // window.step))
            else [],
            "margin": MARGIN,
        },
    }


def hatch(height: int, width: int, ahead: int = 0) -> str:
    """Slanted lines over the cells behind the causal mask, as one SVG path in units of cells.

    Row y sees the columns up to y + `ahead`. On each line row + column is constant. It runs from the top or right edge
    down to the staircase that the visible cells make.

    >>> hatch(2, 2)
    'M1,-0.5L0.5,0M1.5,-0.5L0.5,0.5M1.5,0L1,0.5'
    """
    step = max(0.5, max(height, width) / 32)
    lines = []
    for total in np.arange(step, height + width - 2, step):
        x0 = min(total + 0.5, width - 0.5)
        y0 = total - x0
        row = (total - ahead) // 2
        below = total - ahead - row - 0.5
        x1, y1 = (row + 0.5, below) if total - ahead - 2 * row <= 1 else (below, row + 0.5)
        x1 = max(x1 + ahead, total - height + 0.5, -0.5)
        y1 = total - x1
        if y1 > y0:
            lines.append(f"M{x0:g},{y0:g}L{x1:g},{y1:g}")
    return "".join(lines)


def norms(n_tokens: int, sites: Sequence[str], statistics: Mapping[str, Array], *, model: str) -> Figure:
    """Mean, variance and rms before every norm: three heatmaps, tokens down and sites across.

    The colours are logarithmic, because a trained model's first token is often a thousand times the others; the
    numbers on hover are the model's.
    """
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    n_panels = len(statistics)
    panel_px = min(max(16 * n_tokens, 90), 320)
    plot_px = n_panels * (panel_px + GAP_PX) - GAP_PX
    for number, (name, values_TS) in enumerate(statistics.items()):
        shade_TS = shaded(name, values_TS)
        suffix = "" if number == 0 else str(number + 1)
        top = 1 - number * (panel_px + GAP_PX) / plot_px
        bottom = max(top - panel_px / plot_px, 0)
        reach = max(float(np.abs(shade_TS).max()), 1e-6)
        data.append(
            {
                "type": "heatmap",
                "meta": {"z": name, "customdata": name, "shade": SHADES[name], "y": [0, n_tokens, 1]},
                "x": list(sites),
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "zmin": -reach if name == "mean" else float(shade_TS.min()),
                "zmax": reach if name == "mean" else float(shade_TS.max()),
                "autocolorscale": name == "mean",
                "hovertemplate": f"token %{{y}}<br>%{{x}}<br>{name} %{{customdata:.7~g}}<extra></extra>",
                "colorbar": {
                    "thickness": 10,
                    "outlinewidth": 0,
                    "y": (top + bottom) / 2,
                    "len": top - bottom,
                    **_ticks(name, shade_TS),
                },
            }
        )
        layout[f"xaxis{suffix}"] = {
            "type": "category",
            "anchor": f"y{suffix}",
            "showticklabels": number == n_panels - 1,
            "dtick": max(2, 2 * round(len(sites) / 24)),
            "tick0": 0,
            "tickangle": -60,
            "ticks": "",
            "showgrid": False,
            **({"matches": "x"} if number else {}),
        }
        layout[f"yaxis{suffix}"] = {
            "type": "category",
            "anchor": f"x{suffix}",
            "domain": [bottom, top],
            "range": [n_tokens - 0.5, -0.5],
            "title": {"text": name},
            "ticks": "",
            "showgrid": False,
            **({"matches": "y"} if number else {}),
        }
    layout["title"] = _title(f"{model} · what every norm finds in every token")
    layout |= {"margin": MARGIN, "height": MARGIN["t"] + plot_px + 95}  # the sites' names stand below
    return {"data": data, "layout": layout}


def shaded(name: str, values: Array) -> Array:
    """The numbers that colour a norm heatmap: asinh for the mean, which has a sign, and log10 for the others."""
    kind, unit = SHADES[name]
    return np.arcsinh(values / np.float32(unit)) if kind == "asinh" else np.log10(np.maximum(values, np.float32(unit)))


def filled(figure: Figure, arrays: Mapping[str, Array], pieces: Sequence[str]) -> Figure:
    """The figure with its numbers and tokens in it, as Plotly draws it."""
    return {"data": [_fill(trace, arrays, pieces) for trace in figure["data"]], "layout": figure["layout"]}


def _fill(trace: Mapping[str, Any], arrays: Mapping[str, Array], pieces: Sequence[str]) -> dict[str, Any]:
    meta = trace["meta"]
    values = arrays[meta["z"]]
    if meta.get("behind") is not None:
        values = np.where(np.tri(len(values), values.shape[1], meta["behind"], dtype=np.bool_), values, np.nan)
    if "shade" in meta:
        values = shaded(meta["z"], values)
    more: dict[str, Any] = {"z": values}
    more |= {axis: labels(pieces, *meta[axis]) for axis in ("x", "y") if axis in meta}
    if meta.get("reach"):
        reach = max(float(np.nanmax(np.abs(values))), 1e-6)
        more |= {"zmin": -reach, "zmax": reach}
    if "customdata" in meta:
        more["customdata"] = arrays[meta["customdata"]]
    return dict(trace) | more


def _title(words: str) -> dict[str, Any]:
    below_the_buttons = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 34}}
    return {
        "text": html.escape(words, quote=False),
        "font": {"size": 13},
        "x": 0,
        "xanchor": "left",
    } | below_the_buttons


def _ticks(name: str, shade_TS: Array) -> dict[str, Any]:
    """A few ticks of a colour bar, at powers of ten of the true numbers."""
    low, high = float(shade_TS.min()), float(shade_TS.max())
    if name == "mean":
        largest = np.floor(np.log10(MEAN_UNIT * np.sinh(max(abs(low), abs(high))) + 1e-12))
        values = [-(10.0**largest), 0.0, 10.0**largest]
        places = [float(np.arcsinh(value / MEAN_UNIT)) for value in values]
    else:
        exponents = np.arange(np.ceil(low), np.floor(high) + 1)
        exponents = exponents[:: max(1, -(-len(exponents) // 4))]
        places, values = exponents.tolist(), (10.0**exponents).tolist()
    return {"tickvals": places, "ticktext": [f"{value:,.10g}" for value in values]}
