"""What is drawn of a reading -> Plotly figures, as plain dicts. Pure: no torch, no request.

Numbers do not travel inside a figure. A trace's `meta` names the arrays of the frame that belong in it, and
static/figure.js puts them there; so does `filled`, for everybody who has the arrays in Python. Colours come from the
page's theme, as Plotly's template.
"""

import html
from collections.abc import Mapping, Sequence
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

STAGE_NAMES: dict[Stage, str] = {
    "scores": "scores q·k",
    "scaled": "scaled scores q·k/√d",
    "masked": "masked scores",
    "weights": "attention weights",
}


def labels(pieces: Sequence[str]) -> list[str]:
    """One axis label a token. The position makes it unique: Plotly would draw equal categories as one.

    >>> labels(["the", "<b>", "the"])
    ['0 the', '1 &lt;b&gt;', '2 the']
    """
    short = (piece if len(piece) <= N_LABEL else piece[: N_LABEL - 1] + "…" for piece in pieces)
    return [f"{position} {html.escape(piece, quote=False)}" for position, piece in enumerate(short)]


def head(pieces: Sequence[str], stage: Stage, values_TT: Array, *, model: str, layer: int, index: int) -> Figure:
    """One stage of one head as a heatmap: queries down, keys across.

    Weights are coloured from 0 to 1, scores around 0. Cells behind the mask stay blank where the stage has no value
    for them, and are hatched at every stage. The theme's template holds the two colour scales: a heatmap's own runs
    one way, the automatic one around 0.
    """
    causal = stage in ("masked", "weights")
    seen = values_TT[np.tri(len(pieces), dtype=np.bool_)] if causal else values_TT
    reach = 1.0 if stage == "weights" else max(float(np.abs(seen).max()), 1e-6)
    n = len(pieces)
    name = f"{model} · layer {layer}, head {index} · {STAGE_NAMES[stage]}"
    trace = {
        "type": "heatmap",
        "meta": {"z": "scaled" if stage == "masked" else stage, "causal": causal},
        "x": labels(pieces),
        "y": labels(pieces),
        "zmin": 0 if stage == "weights" else -reach,
        "zmax": reach,
        "autocolorscale": stage != "weights",
        "xgap": 1 if n <= 64 else 0,
        "ygap": 1 if n <= 64 else 0,
        "hoverongaps": False,
        "hovertemplate": f"query %{{y}}<br>key %{{x}}<br>{stage} %{{z:.7~g}}<extra></extra>",
        "colorbar": {"thickness": 10, "len": 0.6, "outlinewidth": 0, "title": {"text": stage, "side": "right"}},
    }
    axis = {"type": "category", "showgrid": False, "zeroline": False, "ticks": "", "constrain": "domain"}
    return {
        "data": [trace],
        "layout": {
            "title": _title(name),
            "xaxis": {**axis, "range": [-0.5, n - 0.5], "side": "bottom", "title": {"text": "key"}, "tickangle": -60},
            "yaxis": {**axis, "range": [n - 0.5, -0.5], "scaleanchor": "x", "title": {"text": "query"}},
            "shapes": [{"type": "path", "path": hatch(n), "layer": "above", "line": {"width": 1}}] if n > 1 else [],
            "margin": MARGIN,
        },
    }


def hatch(n_tokens: int) -> str:
    """Slanted lines over the cells behind the causal mask, as one SVG path in units of cells.

    On each line row + column is constant. It runs from the top or right edge down to the staircase that the visible
    cells make.

    >>> hatch(2)
    'M1,-0.5L0.5,0M1.5,-0.5L0.5,0.5M1.5,0L1,0.5'
    """
    step = max(0.5, n_tokens / 32)
    lines = []
    for total in np.arange(step, 2 * (n_tokens - 1), step):
        right = min(total + 0.5, n_tokens - 0.5)
        row = total // 2
        below = total - row - 0.5
        x, y = (row + 0.5, below) if total - 2 * row <= 1 else (below, row + 0.5)
        lines.append(f"M{right:g},{total - right:g}L{x:g},{y:g}")
    return "".join(lines)


def norms(pieces: Sequence[str], sites: Sequence[str], shades: Mapping[str, Array], *, model: str) -> Figure:
    """Mean, variance and rms before every norm: three heatmaps, tokens down and sites across.

    The colours are logarithmic, because a trained model's first token is often a thousand times the others; the
    numbers on hover are the model's.
    """
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    n_panels = len(shades)
    panel_px = min(max(16 * len(pieces), 90), 320)
    plot_px = n_panels * (panel_px + GAP_PX) - GAP_PX
    for number, (name, shade_TS) in enumerate(shades.items()):
        suffix = "" if number == 0 else str(number + 1)
        top = 1 - number * (panel_px + GAP_PX) / plot_px
        bottom = max(top - panel_px / plot_px, 0)
        reach = max(float(np.abs(shade_TS).max()), 1e-6)
        data.append(
            {
                "type": "heatmap",
                "meta": {"z": f"{name}_shade", "customdata": name},
                "x": list(sites),
                "y": labels(pieces),
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
            "range": [len(pieces) - 0.5, -0.5],
            "title": {"text": name},
            "ticks": "",
            "showgrid": False,
            **({"matches": "y"} if number else {}),
        }
    layout["title"] = _title(f"{model} · what every norm finds in every token")
    layout |= {"margin": MARGIN, "height": MARGIN["t"] + plot_px + 95}  # the sites' names stand below
    return {"data": data, "layout": layout}


def shades(statistics: Mapping[str, Array]) -> dict[str, Array]:
    """The numbers that colour the norm heatmaps: asinh for the mean, which has a sign, and log10 for the others."""
    return {
        name: np.arcsinh(values / MEAN_UNIT) if name == "mean" else np.log10(np.maximum(values, 1e-12))
        for name, values in statistics.items()
    }


def filled(figure: Figure, arrays: Mapping[str, Array]) -> Figure:
    """The figure with its numbers in it, as Plotly draws it."""
    data = []
    for trace in figure["data"]:
        values = arrays[trace["meta"]["z"]]
        if trace["meta"].get("causal"):
            values = np.where(np.tri(len(values), dtype=np.bool_), values, np.nan)
        custom = trace["meta"].get("customdata")
        data.append(trace | {"z": values} | ({"customdata": arrays[custom]} if custom else {}))
    return {"data": data, "layout": figure["layout"]}


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
