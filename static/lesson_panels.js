// The panels of a lesson as Plotly figures, and as tables of the same numbers. app/lessons/panels.py describes them.

import { escaped } from "./figure.js";

/** @typedef {import("./types.js").Palette} Palette */
/** @typedef {import("./types.js").Panel} Panel */
/** @typedef {import("./types.js").PanelKinds} PanelKinds */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {{[Kind in keyof PanelKinds]?: (panel: PanelKinds[Kind], palette: Palette) => {data: PlotlyFigure["data"], layout: object}}} Figures */

const HEIGHT_PX = 290;
const COMMON_LAYOUT = { showlegend: false, dragmode: false, hovermode: "closest" };
const N_STRUCK = 64; // at most so many empty rows of a cube are struck out: beyond that they are visibly empty
const BUTTONS_PX = 34; // above every picture, so that Plotly's buttons cover nothing
export const MARGIN = { l: 55, r: 10, t: BUTTONS_PX + 26, b: 50 }; // around a plane of points, in px; the legend is above it
const DASHES = ["solid", "solid", "dash", "dot"]; // lines differ by more than their colours
const FIXED = { fixedrange: true, zeroline: false, ticks: "" };

/** A category axis on which equal labels stay separate: its categories are numbers, displayed as the labels. @param {string[]} labels */
const labelled = (labels) => ({ ...FIXED, type: "category", labelalias: Object.fromEntries(labels.map(escaped).entries()) });
/** @param {string[]} labels */
const categories = (labels) => labels.map((_, i) => String(i));

/** @type {Figures} */
const FIGURES = {
  heatmap({ rows, columns, values, scale, limit: minimum }, { diverging }) {
    const limit = Math.max(minimum, ...values.flat().map((value) => Math.abs(value ?? 0)));
    const isSigned = scale === "signed";
    const data = {
      type: "heatmap",
      x: categories(columns),
      y: categories(rows),
      z: values,
      zmin: isSigned ? -limit : 0,
      zmax: isSigned ? limit : 1,
      showscale: false,
      hovertemplate: "%{y} → %{x}: %{z:.4f}<extra></extra>",
      ...(isSigned ? { colorscale: diverging } : {}),
    };
    const layout = {
      height: Math.min(620, Math.max(150, rows.length * 26 + 110)) + BUTTONS_PX,
      margin: { l: 90, r: 10, t: BUTTONS_PX, b: 70 },
      xaxis: { ...labelled(columns), showgrid: false },
      yaxis: { ...labelled(rows), autorange: "reversed", showgrid: false },
    };
    return { data: [data], layout };
  },

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

  // Sheets of cells, each shifted a little up and to the right of the sheet before it; the last one is drawn first.
  cube({ sheets, rows, columns, values }, { diverging, ink, paper }) {
    const [n, nRows, nColumns] = [sheets.length, values[0].length, columns.length];
    const [dx, dy] = [nColumns * 0.16, nRows * 0.28];
    const limit = Math.max(1e-6, ...values.flat(2).map((value) => Math.abs(value ?? 0)));
    const corner = (/** @type {number} */ sheet) => [sheet * dx, sheet * dy];
    const order = sheets.map((_, i) => n - 1 - i);
    const backing = (/** @type {number} */ sheet) => ({
      type: "heatmap",
      x0: corner(sheet)[0] + nColumns / 2,
      y0: corner(sheet)[1] + nRows / 2,
      dx: nColumns,
      dy: nRows,
      z: [[0]],
      showscale: false,
      colorscale: [[0, paper], [1, paper]],
      hoverinfo: "skip",
    });
    const cells = (/** @type {number} */ sheet) => ({
      type: "heatmap",
      name: escaped(sheets[sheet]),
      x0: corner(sheet)[0] + 0.5,
      y0: nRows - 0.5 + corner(sheet)[1],
      dx: 1,
      dy: -1,
      z: values[sheet],
      customdata: values[sheet].map((row, i) => row.map((_, j) => `${rows[sheet][i]}, ${columns[j]}`)).map((row) => row.map(escaped)),
      zmin: -limit,
      zmax: limit,
      showscale: false,
      colorscale: diverging,
      hovertemplate: "%{customdata}: %{z:.4f}<extra>%{fullData.name}</extra>",
    });
    const data = order.flatMap((sheet) => [backing(sheet), cells(sheet)]);
    /** @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
    const edge = (x0, y0, x1, y1) => ({ type: "line", x0, y0, x1, y1, line: { color: ink, width: 1 } });
    const frame = (/** @type {number} */ sheet) => {
      const [x, y] = corner(sheet);
      return { type: "rect", x0: x, y0: y, x1: x + nColumns, y1: y + nRows, line: { color: ink, width: 1 } };
    };
    // Empty rows are struck out.
    const struck = order.flatMap((sheet) =>
      values[sheet].flatMap((row, i) => {
        const [x, y] = corner(sheet);
        return row.some((value) => value !== null) ? [] : [edge(x, y + nRows - i - 1, x + nColumns, y + nRows - i)];
      }),
    );
    const [backX, backY] = corner(n - 1);
    const edges = [[0, nRows], [nColumns, nRows], [nColumns, 0]].map(([x, y]) => edge(x, y, x + backX, y + backY));
    const layout = {
      height: 360 + BUTTONS_PX,
      shapes: [...order.map(frame), ...struck.slice(0, N_STRUCK), ...edges],
      margin: { l: 10, r: 10, t: BUTTONS_PX, b: 45 },
      xaxis: { ...FIXED, showgrid: false, showticklabels: false, title: { text: `${nColumns} columns, ${nRows} rows, ${n} sheets` } },
      yaxis: { ...FIXED, showgrid: false, showticklabels: false },
    };
    return { data, layout };
  },
};

/**
 * The picture of a panel; null if the panel is only numbers or words.
 * @param {Panel} panel @param {Palette} palette @returns {PlotlyFigure | null}
 */
export function figureOf(panel, palette) {
  const figure = /** @type {((panel: Panel, palette: Palette) => ReturnType<Figures["bars"]>) | undefined} */ (FIGURES[panel.kind]);
  if (!figure) return null;
  const { data, layout } = figure(panel, palette);
  return { data, layout: { height: HEIGHT_PX, ...COMMON_LAYOUT, ...layout, title: { text: "" } } };
}

/** What a click on a figure selects: pairs of a control's name and its new value.
 *  @param {Panel} panel @param {import("./types.js").PlotlyPoint} point @returns {[string, number][]} */
export function selectionOf(panel, { x, y, customdata }) {
  if (panel.kind === "points") return Object.entries(panel.points[Number(customdata)].selects);
  if (panel.kind === "bars") return panel.selects ? [[panel.selects, Number(x)]] : [];
  if (panel.kind !== "heatmap" || !panel.selects) return [];
  const [row, column] = panel.selects;
  return [[row, Number(y)], [column, Number(x)]];
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

/** A panel's numbers as rows of texts: first the column headings, or null; then each row's heading and numbers.
 *  @param {Exclude<Panel, PanelKinds["chips"]>} panel @returns {(string[] | null)[]} */
export function tableOf(panel) {
  if (panel.kind === "heatmap") return [["", ...panel.columns], ...panel.values.map((row, i) => [panel.rows[i], ...row.map(formatValue)])];
  if (panel.kind === "cube") {
    const lines = panel.values.flatMap((sheet, k) => sheet.map((row, i) => [`${panel.sheets[k]}: ${panel.rows[k][i]}`, ...row.map(formatValue)]));
    return [["", ...panel.columns], ...lines];
  }
  if (panel.kind === "curves") {
    const names = [panel.x_axis, ...panel.lines.map(({ name }) => name)];
    return [names, ...panel.lines[0].x.map((x, i) => [formatValue(x), ...panel.lines.map(({ y }) => formatValue(y[i]))])];
  }
  if (panel.kind === "points")
    return [["", panel.x_axis, panel.y_axis], ...panel.points.map(({ name, group, x, y }) => [`${group} ${name}`, formatValue(x), formatValue(y)])];
  const names = panel.kind === "bars" ? panel.labels : panel.names;
  return [null, ...panel.values.map((value, i) => [names[i], formatValue(value)])];
}

/** A value as text: whole numbers in full, others with four digits, words as they are. templating's format_value does the same.
 *  @param {number | string | null} value */
export function formatValue(value) {
  if (value === null) return "none";
  if (typeof value === "string") return value;
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}
