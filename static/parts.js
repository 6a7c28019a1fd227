// The parts that lessons are made of -> Plotly figures, and tables of the same numbers. app/lessons/parts.py says what
// is in a part.

import { escaped } from "./figure.js";

/** @typedef {import("./types.js").Palette} Palette */
/** @typedef {import("./types.js").Part} Part */
/** @typedef {import("./types.js").PartKinds} PartKinds */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {{[Kind in keyof PartKinds]?: (part: PartKinds[Kind], palette: Palette) => {data: PlotlyFigure["data"], layout: object}}} Figures */

const HEIGHT_PX = 290;
const shared = { showlegend: false, dragmode: false, hovermode: "closest" };
const N_STRUCK = 64; // empty rows of a cube that are struck out; more are seen to be empty
const BUTTONS_PX = 34; // above every picture, for Plotly's buttons: they lie on nothing that is drawn
export const ROOM = { l: 55, r: 10, t: BUTTONS_PX + 26, b: 50 }; // around a plane of points, in px; the legend is above it
const DASHES = ["solid", "solid", "dash", "dot"]; // lines are told apart by more than their colours
const FIXED = { fixedrange: true, zeroline: false, ticks: "" };

/** A category axis on which equal labels stay apart: its categories are numbers, shown as the labels. @param {string[]} labels */
const labelled = (labels) => ({ ...FIXED, type: "category", labelalias: Object.fromEntries(labels.map(escaped).entries()) });
/** @param {string[]} labels */
const categories = (labels) => labels.map((_, i) => String(i));

/** @type {Figures} */
const FIGURES = {
  heatmap({ rows, columns, values, scale, reach: least }, { diverging }) {
    const reach = Math.max(least, ...values.flat().map((value) => Math.abs(value ?? 0)));
    const isSigned = scale === "signed";
    const data = {
      type: "heatmap",
      x: categories(columns),
      y: categories(rows),
      z: values,
      zmin: isSigned ? -reach : 0,
      zmax: isSigned ? reach : 1,
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

  bars({ labels, values, chosen, share }, { colours }) {
    const marker = { color: labels.map((_, i) => colours[i === chosen ? 1 : 0]) };
    const data = { type: "bar", x: categories(labels), y: values, marker, hovertemplate: "%{x}: %{y:.5g}<extra></extra>" };
    const layout = { margin: { l: 55, r: 10, t: BUTTONS_PX, b: 60 }, xaxis: labelled(labels), yaxis: { ...FIXED, ...(share ? { range: [0, 1.05] } : {}) } };
    return { data: [data], layout };
  },

  curves({ x_axis, lines, here, log }, { colours }) {
    const data = lines.map(({ name, x, y }, i) => ({ type: "scatter", mode: "lines", line: { color: colours[i % colours.length], width: 2, dash: DASHES[i % DASHES.length] }, name, x, y, hovertemplate: `${name} %{y:.4f}<extra></extra>` }));
    const shapes = here === null ? [] : [{ type: "line", x0: here, x1: here, y0: 0, y1: 1, yref: "paper", line: { dash: "dot" } }];
    const layout = {
      shapes,
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: ROOM,
      xaxis: { ...FIXED, type: log ? "log" : "linear", title: { text: x_axis } },
      yaxis: { ...FIXED, rangemode: "tozero" },
    };
    return { data, layout };
  },

  points({ x_axis, y_axis, points, arrows, reach }, { colours, ink }) {
    const groups = [...new Set(points.map(({ group }) => group))];
    const data = groups.map((group, i) => {
      const own = points.filter((point) => point.group === group);
      return {
        type: "scatter",
        mode: "markers+text",
        name: group,
        x: own.map(({ x }) => x),
        y: own.map(({ y }) => y),
        text: own.map(({ name }) => escaped(name)),
        customdata: own.map((point) => points.indexOf(point)),
        textposition: "top center",
        marker: { color: colours[i % colours.length], size: arrows ? 12 : 8 },
        hovertemplate: "%{text}: %{x:.4f}, %{y:.4f}<extra></extra>",
      };
    });
    const end = reach ?? 1.15 * Math.max(1e-6, ...points.flatMap(({ x, y }) => [Math.abs(x), Math.abs(y)]));
    const stem = (/** @type {import("./types.js").Point} */ { x, y, group }) => ({ type: "line", x0: 0, y0: 0, x1: x, y1: y, line: { color: colours[groups.indexOf(group) % colours.length], width: 3 } });
    const axis = { ...FIXED, zeroline: true, zerolinecolor: ink, automargin: false };
    // equal axes, for angles and distances to look like what they are
    const scaled = reach === null ? { ...axis, autorange: true } : { ...axis, range: [-end, end], constrain: "domain" };
    const layout = {
      height: 400,
      shapes: arrows ? points.map(stem) : [],
      showlegend: groups.length > 1,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: ROOM,
      xaxis: { ...scaled, title: { text: x_axis } },
      yaxis: { ...scaled, title: { text: y_axis }, scaleanchor: "x" },
    };
    return { data, layout };
  },

  // Sheets of cells, each a little up and to the right of the one before it; the last one is drawn first.
  cube({ sheets, rows, columns, values }, { diverging, ink, paper }) {
    const [n, nRows, nColumns] = [sheets.length, values[0].length, columns.length];
    const [dx, dy] = [nColumns * 0.16, nRows * 0.28];
    const reach = Math.max(1e-6, ...values.flat(2).map((value) => Math.abs(value ?? 0)));
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
      zmin: -reach,
      zmax: reach,
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
    // An empty row is struck out.
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
 * The picture of a part; null where a part is but numbers or words.
 * @param {Part} part @param {Palette} palette @returns {PlotlyFigure | null}
 */
export function figureOf(part, palette) {
  const figure = /** @type {((part: Part, palette: Palette) => ReturnType<Figures["bars"]>) | undefined} */ (FIGURES[part.kind]);
  if (!figure) return null;
  const { data, layout } = figure(part, palette);
  return { data, layout: { height: HEIGHT_PX, ...shared, ...layout, title: { text: "" } } };
}

/** What a click on a figure chooses: pairs of a control's name and a number.
 *  @param {Part} part @param {import("./types.js").PlotlyPoint} hit @returns {[string, number][]} */
export function picked(part, { x, y, customdata }) {
  if (part.kind === "points") return Object.entries(part.points[Number(customdata)].picks);
  if (part.kind === "bars") return part.picks ? [[part.picks, Number(x)]] : [];
  if (part.kind !== "heatmap" || !part.picks) return [];
  const [row, column] = part.picks;
  return [[row, Number(y)], [column, Number(x)]];
}

/** Rows of boxes. @param {PartKinds["chips"]} part */
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

/** The same numbers as rows of texts: of headings, then of a heading and numbers each.
 *  @param {Exclude<Part, PartKinds["chips"]>} part @returns {(string[] | null)[]} */
export function tableOf(part) {
  if (part.kind === "heatmap") return [["", ...part.columns], ...part.values.map((row, i) => [part.rows[i], ...row.map(words)])];
  if (part.kind === "cube") {
    const lines = part.values.flatMap((sheet, k) => sheet.map((row, i) => [`${part.sheets[k]}: ${part.rows[k][i]}`, ...row.map(words)]));
    return [["", ...part.columns], ...lines];
  }
  if (part.kind === "curves") {
    const names = [part.x_axis, ...part.lines.map(({ name }) => name)];
    return [names, ...part.lines[0].x.map((x, i) => [words(x), ...part.lines.map(({ y }) => words(y[i]))])];
  }
  if (part.kind === "points")
    return [["", part.x_axis, part.y_axis], ...part.points.map(({ name, group, x, y }) => [`${group} ${name}`, words(x), words(y)])];
  const names = part.kind === "bars" ? part.labels : part.names;
  return [null, ...part.values.map((value, i) => [names[i], words(value)])];
}

/** A value as it is said: whole numbers in full, others in four digits, a word as it is. app/lesson_routes.py does the same.
 *  @param {number | string | null} value */
export function words(value) {
  if (value === null) return "none";
  if (typeof value === "string") return value;
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}
