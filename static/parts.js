// The parts that lessons are made of -> Plotly figures, and tables of the same numbers. app/lessons/parts.py says what
// is in a part.

import { escaped } from "./figure.js";

const HEIGHT_PX = 260;
const shared = { showlegend: false, dragmode: false, hovermode: "closest" };
const FIXED = { fixedrange: true, zeroline: false, ticks: "" };

/** @type {Record<string, (part: object) => object>} */
const FIGURES = {
  heatmap({ rows, columns, values, scale }) {
    const reach = Math.max(1e-6, ...values.flat().map((value) => Math.abs(value ?? 0)));
    const isSigned = scale === "signed";
    const data = {
      type: "heatmap",
      x: columns.map(escaped),
      y: rows.map(escaped),
      z: values,
      zmin: isSigned ? -reach : 0,
      zmax: isSigned ? reach : 1,
      showscale: false,
      hovertemplate: "%{y} → %{x}: %{z:.4f}<extra></extra>",
    };
    const layout = {
      height: Math.min(620, Math.max(150, rows.length * 26 + 110)),
      margin: { l: 90, r: 10, t: 8, b: 70 },
      xaxis: { ...FIXED, type: "category", showgrid: false },
      yaxis: { ...FIXED, type: "category", autorange: "reversed", showgrid: false },
    };
    return { data: [data], layout, isSigned };
  },

  bars({ labels, values, chosen, share }) {
    const data = { type: "bar", x: labels.map(escaped), y: values, hovertemplate: "%{x}: %{y:.5g}<extra></extra>" };
    const layout = { margin: { l: 55, r: 10, t: 8, b: 60 }, xaxis: { ...FIXED, type: "category" }, yaxis: { ...FIXED, ...(share ? { range: [0, 1.05] } : {}) } };
    return { data: [data], layout, chosen };
  },

  curves({ x_axis, lines, here }) {
    const data = lines.map(({ name, x, y }) => ({ type: "scatter", mode: "lines", name, x, y, hovertemplate: `${name} %{y:.4f}<extra></extra>` }));
    const shapes = here === null ? [] : [{ type: "line", x0: here, x1: here, y0: 0, y1: 1, yref: "paper", line: { dash: "dot" } }];
    const layout = {
      shapes,
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: { l: 55, r: 10, t: 40, b: 50 },
      xaxis: { ...FIXED, title: { text: x_axis } },
      yaxis: { ...FIXED, rangemode: "tozero" },
    };
    return { data, layout };
  },
};

/**
 * The picture of a part; null where a part is but numbers.
 * @param {object} part @param {Record<string, string | string[]>} colours of bars and scales
 */
export function figureOf(part, colours) {
  if (!(part.kind in FIGURES)) return null;
  const { data, layout, isSigned, chosen } = FIGURES[part.kind](part);
  if (part.kind === "heatmap" && isSigned) data[0].colorscale = colours.diverging;
  if (part.kind === "bars") data[0].marker = { color: part.labels.map((_, i) => (i === chosen ? colours.accent : colours.violet)) };
  if (part.kind === "curves") data.forEach((line, i) => (line.line = { color: i ? colours.accent : colours.violet, width: 2 }));
  return { data, layout: { height: HEIGHT_PX, ...shared, ...layout, title: { text: "" } } };
}

/** The same numbers as rows of texts: of headings, then of a heading and numbers each. @param {object} part */
export function tableOf(part) {
  if (part.kind === "heatmap") return [["", ...part.columns], ...part.values.map((row, i) => [part.rows[i], ...row.map(words)])];
  if (part.kind === "curves") {
    const names = [part.x_axis, ...part.lines.map(({ name }) => name)];
    return [names, ...part.lines[0].x.map((x, i) => [words(x), ...part.lines.map(({ y }) => words(y[i]))])];
  }
  return [null, ...part.values.map((value, i) => [(part.labels ?? part.names)[i], words(value)])];
}

/** A number in four digits. */
export const words = (value) => (value === null ? "none" : String(Number(value.toPrecision(4))));
