"""Plotly figures as plain dicts. Pure functions: no torch, no request.

A figure contains neither its numbers nor its token labels. The `meta` of a Plotly trace names the arrays to insert and
the axes that are labelled with tokens; static/figure.js inserts them, and so does `filled`, for Python. Colours come
from the page's theme, as Plotly's template.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from model.sites import Stage

FloatArray = NDArray[np.float32]
Attributes = dict[str, object]  # of Plotly, by their names


class Figure(TypedDict):
    """A figure as Plotly takes it."""

    data: list[Attributes]
    layout: Attributes


class FigureMeta(TypedDict, total=False):
    """Where a Plotly trace gets its numbers and labels; static/types.d.ts has the same."""

    z: str  # the array of the cells
    customdata: str  # the array of the numbers that hovering shows
    masked_from: int | None  # row r has no value from column r + masked_from + 1 on; None if nothing is masked
    signed: bool  # colours run from minus the largest magnitude to plus it
    shade: tuple[str, float]  # the function of the numbers that the colours show, as in SHADES
    x: list[int]  # first token, last token, tokens per cell
    y: list[int]


MARGIN = {"l": 10, "r": 10, "t": 62, "b": 10}  # px; above the figure are Plotly's buttons, and the title below them
GAP_PX = 26  # between the three norm panels
N_LABEL = 24  # characters of a token label on an axis, at most
MEAN_UNIT = 0.01  # means are shaded by asinh(mean / unit): linear below it, logarithmic far above
SMALLEST = 1e-12  # smaller numbers are replaced by this before taking the logarithm
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


def labels(tokens: Sequence[str], first: int = 0, last: int | None = None, step: int = 1) -> list[str]:
    """One axis label per cell. The position makes it unique, because Plotly draws equal categories as one.

    >>> labels(["the", "<b>", "the"])
    ['0 the', '1 &lt;b&gt;', '2 the']
    >>> labels(["the", "fat", "cat"], step=2)
    ['0–1 the', '2 cat']
    """
    labels = []
    for begin in range(first, end := len(tokens) if last is None else last, step):
        token = tokens[begin] if len(tokens[begin]) <= N_LABEL else tokens[begin][: N_LABEL - 1] + "…"
        until = min(begin + step, end) - 1
        labels.append(f"{begin}{f'–{until}' if until > begin else ''} {html.escape(token, quote=False)}")
    return labels


@dataclass(frozen=True)
class Window:
    """The part of a head that is shown, in tokens. Rows are queries, columns are keys."""

    top: int
    bottom: int  # after the last row
    left: int
    right: int  # after the last column
    cell_size: int = 1  # tokens per side of a cell; 1 shows every number

    @property
    def height(self) -> int:
        """Rows of cells."""
        return -(-(self.bottom - self.top) // self.cell_size)

    @property
    def width(self) -> int:
        """Columns of cells."""
        return -(-(self.right - self.left) // self.cell_size)


HeadMask = Literal["causal", "edited", "none"]  # "edited": causal, and perhaps more cells are masked


def head_figure(
    window: Window, stage: Stage, mask: HeadMask = "causal", *, model: str, layer: int, head: int
) -> Figure:
    """One stage of one head as a heatmap: one row per query, one column per key.

    Below a causal mask the masked scores are the scaled ones; of an edited head they are an array of their own.
    Weights are coloured from 0 to 1, scores around 0. Masked cells stay blank where the stage has no value for them,
    and are hatched at every stage. The theme's template holds both colour scales: the heatmap's own for weights, the
    automatic one for numbers around 0.
    """
    is_fine = max(window.height, window.width) <= 64
    hides_later = mask != "none" and stage in ("masked", "weights")
    name = f"{model} · layer {layer}, head {head} · {STAGE_NAMES[stage]}"
    if window.cell_size > 1:
        name += f" · each cell is the largest of {window.cell_size}×{window.cell_size}"
    meta: FigureMeta = {
        "z": "scaled" if stage == "masked" and window.cell_size == 1 and mask == "causal" else stage,
        "masked_from": (window.top - window.left) // window.cell_size if hides_later else None,
        "signed": stage != "weights",
        "x": [window.left, window.right, window.cell_size],
        "y": [window.top, window.bottom, window.cell_size],
    }
    trace: Attributes = {
        "type": "heatmap",
        "meta": meta,
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
    offset = (window.top - window.left) // window.cell_size
    path = "" if mask == "none" else hatch(window.height, window.width, offset)
    across, down = [-0.5, window.width - 0.5], [window.height - 0.5, -0.5]
    return {
        "data": [trace],
        "layout": {
            "title": _title(name),
            "xaxis": {**axis, "range": across, "side": "bottom", "title": {"text": "key"}, "tickangle": -60},
            "yaxis": {**axis, "range": down, "scaleanchor": "x", "title": {"text": "query"}},
            "shapes": [{"type": "path", "path": path, "layer": "above", "line": {"width": 1}}] if path else [],
            "margin": MARGIN,
        },
    }


def hatch(height: int, width: int, offset: int = 0) -> str:
    """Diagonal lines over the masked cells, as one SVG path in units of cells.

    Row y may attend to the columns up to y + `offset`. On each line row + column is constant. It runs from the top or
    right edge down to the staircase of the cells that are not masked.

    >>> hatch(2, 2)
    'M1,-0.5L0.5,0M1.5,-0.5L0.5,0.5M1.5,0L1,0.5'
    """
    step = max(0.5, max(height, width) / 32)
    lines = []
    for total in np.arange(step, height + width - 2, step):
        x0 = min(total + 0.5, width - 0.5)
        y0 = total - x0
        row = (total - offset) // 2
        below = total - offset - row - 0.5
        x1, y1 = (row + 0.5, below) if total - offset - 2 * row <= 1 else (below, row + 0.5)
        x1 = max(x1 + offset, total - height + 0.5, -0.5)
        y1 = total - x1
        if y1 > y0:
            lines.append(f"M{x0:g},{y0:g}L{x1:g},{y1:g}")
    return "".join(lines)


def norms_figure(n_tokens: int, sites: Sequence[str], statistics: Mapping[str, FloatArray], *, model: str) -> Figure:
    """Mean, variance and rms before every norm: three heatmaps, one row per token and one column per site.

    `statistics` are (T, S) each. The colours are logarithmic, because the first token of a trained model is often a
    thousand times the others; hovering shows the model's numbers.
    """
    n_panels = len(statistics)
    panel_px = min(max(16 * n_tokens, 90), 320)
    plot_px = n_panels * (panel_px + GAP_PX) - GAP_PX
    data: list[Attributes] = []
    layout: Attributes = {
        "title": _title(f"{model} · statistics before every norm"),
        "margin": MARGIN,
        "height": MARGIN["t"] + plot_px + 95,  # below the plot are the names of the sites
    }
    for number, (name, values_TS) in enumerate(statistics.items()):
        top = 1 - number * (panel_px + GAP_PX) / plot_px
        bottom = max(top - panel_px / plot_px, 0)
        suffix = "" if number == 0 else str(number + 1)
        data.append(_norm_panel(name, shaded(name, values_TS), sites, suffix, (bottom, top)))
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
    return {"data": data, "layout": layout}


def _norm_panel(
    name: str, shade_TS: FloatArray, sites: Sequence[str], suffix: str, domain: tuple[float, float]
) -> Attributes:
    """One of the heatmaps of `norms_figure`, between two heights of the plot."""
    bottom, top = domain
    limit = max(float(np.abs(shade_TS).max()), 1e-6)
    meta: FigureMeta = {"z": name, "customdata": name, "shade": SHADES[name], "y": [0, len(shade_TS), 1]}
    return {
        "type": "heatmap",
        "meta": meta,
        "x": list(sites),
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "zmin": -limit if name == "mean" else float(shade_TS.min()),
        "zmax": limit if name == "mean" else float(shade_TS.max()),
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


def shaded(name: str, values: FloatArray) -> FloatArray:
    """The numbers that the colours of a norm heatmap show: asinh of the mean, which has a sign, log10 of the others."""
    kind, unit = SHADES[name]
    return np.arcsinh(values / np.float32(unit)) if kind == "asinh" else np.log10(np.maximum(values, np.float32(unit)))


def filled(figure: Figure, arrays: Mapping[str, FloatArray], tokens: Sequence[str]) -> Figure:
    """The figure with its numbers and token labels, as Plotly draws it."""
    return {"data": [_fill(trace, arrays, tokens) for trace in figure["data"]], "layout": figure["layout"]}


def _fill(trace: Attributes, arrays: Mapping[str, FloatArray], tokens: Sequence[str]) -> Attributes:
    meta = cast(FigureMeta, trace["meta"])
    values = arrays[meta["z"]]
    if (offset := meta.get("masked_from")) is not None:
        values = np.where(np.tri(len(values), values.shape[1], offset, dtype=np.bool_), values, np.nan)
    if "shade" in meta:
        values = shaded(meta["z"], values)
    inserted: Attributes = {"z": values}
    axes: tuple[Literal["x", "y"], ...] = ("x", "y")
    inserted |= {axis: labels(tokens, *meta[axis]) for axis in axes if axis in meta}
    if meta.get("signed"):
        limit = max(float(np.nanmax(np.abs(values))), 1e-6)
        inserted |= {"zmin": -limit, "zmax": limit}
    if "customdata" in meta:
        inserted["customdata"] = arrays[meta["customdata"]]
    return trace | inserted


def _title(text: str) -> Attributes:
    below_the_buttons = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 34}}
    return {
        "text": html.escape(text, quote=False),
        "font": {"size": 13},
        "x": 0,
        "xanchor": "left",
    } | below_the_buttons


def _ticks(name: str, shade_TS: FloatArray) -> Attributes:
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
