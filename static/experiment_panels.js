// The panels of a lesson as pictures: heatmaps on canvases, and Plotly figures. app/lessons/panels.py describes them.

import { MARGIN, makeDraggable } from "./drag.js";
import { Figure, escaped } from "./figure.js";
import { Heatmap } from "./heatmap.js";
import { Sheets } from "./sheets.js";

/** @typedef {import("./types.js").Palette} Palette */
/** @typedef {import("./types.js").Panel} Panel */
/** @typedef {import("./types.js").PanelKinds} PanelKinds */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {{[Kind in keyof PanelKinds]?: (panel: PanelKinds[Kind], palette: Palette) => {data: PlotlyFigure["data"], layout: object}}} Figures */

const HEIGHT_PX = 290;
const COMMON_LAYOUT = { showlegend: false, dragmode: false, hovermode: "closest" };
const BUTTONS_PX = 34; // above every picture, so that Plotly's buttons cover nothing
const DASHES = ["solid", "solid", "dash", "dot"]; // lines differ by more than their colours
const FIXED = { fixedrange: true, zeroline: false, ticks: "" };

/** A category axis on which equal labels stay separate: its categories are numbers, displayed as the labels. @param {string[]} labels */
const labelled = (labels) => ({ ...FIXED, type: "category", labelalias: Object.fromEntries(labels.map(escaped).entries()) });
/** @param {string[]} labels */
const categories = (labels) => labels.map((_, i) => String(i));

/** @type {Figures} */
const FIGURES = {
  bars({ labels, values, chosen, probabilities }, { colours }) {
    const marker = { color: labels.map((_, i) => colours[i === chosen ? 1 : 0]) };
    const data = { type: "bar", x: categories(labels), y: values, marker, hovertemplate: "%{x}: %{y:.5g}<extra></extra>" };
    const layout = { margin: { l: 55, r: 10, t: BUTTONS_PX, b: 60 }, xaxis: labelled(labels), yaxis: { ...FIXED, ...(probabilities ? { range: [0, 1.05] } : {}) } };
    return { data: [data], layout };
  },

  curves({ x_axis, lines, marker, log }, { colours }) {
    const data = lines.map(({ name, x, y }, i) => ({ type: "scatter", mode: "lines", line: { color: colours[i % colours.length], width: 2, dash: DASHES[i % DASHES.length] }, name, x, y, hovertemplate: `${name} %{y:.4f}<extra></extra>` }));
    const shapes = marker === null ? [] : [{ type: "line", x0: marker, x1: marker, y0: 0, y1: 1, yref: "paper", line: { dash: "dot" } }];
    const layout = {
      shapes,
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: MARGIN,
      xaxis: { ...FIXED, type: log ? "log" : "linear", title: { text: x_axis } },
      yaxis: { ...FIXED, rangemode: "tozero" },
    };
    return { data, layout };
  },

  points({ x_axis, y_axis, points, arrows, limit }, { colours, ink }) {
    const groups = [...new Set(points.map(({ group }) => group))];
    const data = groups.map((group, i) => {
      const members = points.filter((point) => point.group === group);
      return {
        type: "scatter",
        mode: "markers+text",
        name: group,
        x: members.map(({ x }) => x),
        y: members.map(({ y }) => y),
        text: members.map(({ name }) => escaped(name)),
        customdata: members.map((point) => points.indexOf(point)),
        textposition: "top center",
        marker: { color: colours[i % colours.length], size: arrows ? 12 : 8 },
        hovertemplate: "%{text}: %{x:.4f}, %{y:.4f}<extra></extra>",
      };
    });
    const end = limit ?? 1.15 * Math.max(1e-6, ...points.flatMap(({ x, y }) => [Math.abs(x), Math.abs(y)]));
    const stem = (/** @type {import("./types.js").Point} */ { x, y, group }) => ({ type: "line", x0: 0, y0: 0, x1: x, y1: y, line: { color: colours[groups.indexOf(group) % colours.length], width: 3 } });
    const axis = { ...FIXED, zeroline: true, zerolinecolor: ink, automargin: false };
    // Both axes have the same scale, so that angles and distances look right.
    const scaled = limit === null ? { ...axis, autorange: true } : { ...axis, range: [-end, end], constrain: "domain" };
    const layout = {
      height: 400,
      shapes: arrows ? points.map(stem) : [],
      showlegend: groups.length > 1,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: MARGIN,
      xaxis: { ...scaled, title: { text: x_axis } },
      yaxis: { ...scaled, title: { text: y_axis }, scaleanchor: "x" },
    };
    return { data, layout };
  },
};

/**
 * A place on the page in which the pictures of one panel are drawn, each in place of the one before.
 * @param {HTMLElement} element
 * @param {{onSelect: (control: string, value: number) => void, onDrag: (control: string, values: number[]) => void}} listeners
 *   `onSelect` is called with the new value of a control when a cell, a bar or a point is chosen, `onDrag` with the new
 *   coordinates of an arrow's tip
 * @returns {{draw(panel: Panel, palette: Palette, name: string): void}} `name` is that of the downloaded file
 */
export function makePanelView(element, { onSelect, onDrag }) {
  /** @type {Panel} */
  let panel;
  /** @type {((palette: Palette, name: string) => void) | null} */
  let drawPanel = null;
  const select = (/** @type {Parameters<typeof selectionOf>[1]} */ point) => selectionOf(panel, point).forEach(([control, value]) => onSelect(control, value));
  /** @type {Record<string, () => NonNullable<typeof drawPanel>>} */
  const creators = {
    heatmap() {
      const heatmap = new Heatmap(element, { onSelect: ({ row, column }) => select({ x: column, y: row }) });
      return (_, name) => heatmap.draw(/** @type {PanelKinds["heatmap"]} */ (panel), { name });
    },
    cube() {
      const sheets = new Sheets(element);
      return (_, name) => sheets.draw(/** @type {PanelKinds["cube"]} */ (panel), { name });
    },
    figure() {
      const figure = new Figure(element);
      figure.on("plotly_click", ({ points: [point] }) => select(point));
      if (panel.kind === "points") makeDraggable(element, () => panel, onDrag);
      return (palette, name) => figure.draw({ ...figureOf(panel, palette), name });
    },
  };
  return {
    draw(newPanel, palette, name) {
      panel = newPanel;
      drawPanel ??= (creators[panel.kind] ?? creators.figure)();
      drawPanel(palette, name);
      element.classList.toggle("selects", isSelectable(panel));
    },
  };
}

/** Does a click on the picture of a panel select something? @param {Panel} panel */
function isSelectable(panel) {
  if (panel.kind === "points") return panel.points.some(({ selects }) => Object.keys(selects).length > 0);
  return "selects" in panel && Boolean(panel.selects);
}

/**
 * The Plotly figure of a panel; null if it has none.
 * @param {Panel} panel @param {Palette} palette @returns {PlotlyFigure | null}
 */
export function figureOf(panel, palette) {
  const figure = /** @type {((panel: Panel, palette: Palette) => ReturnType<Figures["bars"]>) | undefined} */ (FIGURES[panel.kind]);
  if (!figure) return null;
  const { data, layout } = figure(panel, palette);
  return { data, layout: { height: HEIGHT_PX, ...COMMON_LAYOUT, ...layout, title: { text: "" } } };
}

/** What a click on a picture selects: pairs of a control's name and its new value.
 *  @param {Panel} panel @param {{x?: string | number, y?: string | number, customdata?: unknown}} point @returns {[string, number][]} */
export function selectionOf(panel, { x, y, customdata }) {
  if (panel.kind === "points") return Object.entries(panel.points[Number(customdata)].selects);
  if (panel.kind === "bars") return panel.selects ? [[panel.selects, Number(x)]] : [];
  if (panel.kind !== "heatmap" || !panel.selects) return [];
  const [row, column] = panel.selects;
  return /** @type {[string, number][]} */ ([[row, Number(y)], [column, Number(x)]]).filter(([control]) => control);
}

/** The rows of a panel of chips, as elements. @param {PanelKinds["chips"]} part */
export function chipsOf({ rows }) {
  return rows.map(({ name, chips }) => {
    const [line, head] = [document.createElement("p"), document.createElement("b")];
    head.textContent = name;
    line.append(head, " ", ...chips.flatMap((chip) => [chipOf(chip), " "]));
    return line;
  });
}

/** @param {import("./types.js").Chip} chip */
function chipOf({ text, about, faded }) {
  const chip = document.createElement("span");
  chip.className = faded ? "chip faded" : "chip";
  chip.textContent = text;
  if (!about) return chip;
  const small = document.createElement("small");
  small.textContent = about;
  chip.append(" ", small);
  return chip;
}
