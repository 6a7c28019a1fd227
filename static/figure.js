// Draws figures with Plotly: inserts the arrays and token labels into a figure of the server. app/figures.py describes
// figures; its function `filled` does the same in Python.

import { fileName } from "./download.js";
import { rows } from "./frame.js";
import { loadPlotly } from "./plotly.js";
import { template } from "./theme.js";

/** @typedef {import("./frame.js").Tensor} Tensor */
/** @typedef {import("./types.js").PlotlyElement} PlotlyElement */
/** @typedef {import("./types.js").PlotlyEvents} PlotlyEvents */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {import("./types.js").PlotlyScript} PlotlyScript */
/** @typedef {import("./types.js").PlotlyTrace} PlotlyTrace */
/** @typedef {[figure: PlotlyFigure, arrays: Record<string, Tensor>, tokenLabels: string[]]} Drawing */

const MAX_LABEL = 24; // characters of a token on an axis

const CONFIG = {
  doubleClick: false, // Plotly would return to the ranges of the first figure that was drawn here
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetScale2d", "toImage"],
};

/** An element in which figures are drawn, each in place of the one before. */
export class Figure {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    /** @type {Drawing | null} */
    this.latest = null; // the newest arguments of `draw`
    this.isDrawing = false;
    this.width = 0; // px, of what was drawn last
    /** @type {object[] | null} */
    this.buttons = null; // created once: Plotly rebuilds the whole figure when its configuration changes
    new ResizeObserver(() => this.element.clientWidth !== this.width && this.redraw()).observe(element);
  }

  /**
   * Draw a figure. Figures that arrive while one is being drawn are skipped, except for the newest.
   * @param {PlotlyFigure} figure @param {Record<string, Tensor>} arrays empty for a figure that contains its numbers
   * @param {string[]} tokenLabels
   */
  async draw(figure, arrays = {}, tokenLabels = []) {
    this.latest = [figure, arrays, tokenLabels];
    if (this.isDrawing) return;
    this.isDrawing = true;
    try {
      const Plotly = await loadPlotly();
      let drawn = /** @type {Drawing | null} */ (null);
      while (drawn !== this.latest) {
        drawn = this.latest;
        await this.render(Plotly, ...drawn);
      }
    } finally {
      this.isDrawing = false;
    }
  }

  /** @param {PlotlyScript} Plotly @param {Drawing} drawing */
  async render(Plotly, ...[figure, arrays, tokenLabels]) {
    this.width = this.element.clientWidth;
    const height = figure.layout.height ?? Math.min(Math.max(this.width * 0.86, 320), 680);
    this.element.style.height = `${height}px`;
    this.buttons ??= this.createButtons(Plotly);
    const canZoom = axesOf(figure).some(([, axis]) => !axis.fixedrange);
    const element = await Plotly.react(
      this.element,
      figure.data.map((trace) => filled(trace, arrays, tokenLabels)),
      { ...structuredClone(figure.layout), template: template(), height, width: this.width }, // Plotly changes the layout it is given
      { ...CONFIG, modeBarButtonsToAdd: canZoom ? this.buttons : this.buttons.slice(0, 1) },
    );
    if (!("drawn" in element.dataset)) element.on("plotly_doubleclick", () => this.reset(Plotly));
    element.dataset.drawn = figure.layout.title.text;
  }

  /** Replacements for two buttons of Plotly: its download always uses the same file name, and its reset returns to the
   *  ranges of the first figure. @param {PlotlyScript} Plotly */
  createButtons(Plotly) {
    const download = { name: "download", title: "Download plot", icon: Plotly.Icons.camera, click: () => this.download(Plotly) };
    const reset = { name: "reset", title: "Reset axes", icon: Plotly.Icons.home, click: () => this.reset(Plotly) };
    return [download, reset];
  }

  /** @param {PlotlyScript} Plotly */
  download(Plotly) {
    const [{ name, layout }] = this.latest;
    const { clientWidth: width, clientHeight: height } = this.element;
    Plotly.downloadImage(this.element, { format: "svg", filename: fileName(name ?? layout.title.text), width, height });
  }

  /** Return to the axis ranges of the current figure. @param {PlotlyScript} Plotly */
  reset(Plotly) {
    const ranges = axesOf(this.latest[0])
      .filter(([, axis]) => !axis.fixedrange)
      .map(([name, { range }]) => (range ? [`${name}.range`, [...range]] : [`${name}.autorange`, true]));
    if (ranges.length) Plotly.relayout(this.element, Object.fromEntries(ranges));
  }

  /** Draw the same figure again, in the current colours and size. */
  redraw() {
    if (this.latest) this.draw(...this.latest);
  }

  /**
   * Subscribe to an event of Plotly, such as plotly_hover.
   * @template {keyof PlotlyEvents} Name
   * @param {Name} event @param {(data: PlotlyEvents[Name]) => void} listener
   */
  async on(event, listener) {
    await loadPlotly();
    const element = /** @type {PlotlyElement} */ (this.element);
    await new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      const poll = () => (element.on ? resolve() : setTimeout(poll, 50)); // Plotly adds `on` with the first figure
      poll();
    });
    element.on(event, listener);
  }
}

/** The axes of a figure with their names. @param {PlotlyFigure} figure */
const axesOf = ({ layout }) =>
  /** @type {[string, import("./types.js").PlotlyAxis][]} */ (Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name)));

/** The functions by which numbers of many magnitudes are coloured: SHADES in app/figures.py.
 *  @type {Record<string, (unit: number) => (value: number) => number>} */
const SHADES = {
  asinh: (unit) => (value) => Math.asinh(value / unit),
  log10: (smallest) => (value) => Math.log10(Math.max(value, smallest)),
};

/** A trace with its numbers and labels inserted.
 *  @param {PlotlyTrace} trace @param {Record<string, Tensor>} arrays @param {string[]} tokenLabels @returns {PlotlyTrace} */
function filled(trace, arrays, tokenLabels) {
  if (!trace.meta) return trace; // it contains its numbers
  const { z, customdata, masked_from: maskedFrom = null, signed, shade, x, y } = trace.meta;
  let matrix = rows(arrays[z]);
  if (shade) matrix = matrix.map((row) => row.map(SHADES[shade[0]](shade[1])));
  // Plotly leaves the cells after the end of a shorter row blank.
  if (maskedFrom !== null) matrix = matrix.map((row, i) => row.subarray(0, Math.max(0, i + maskedFrom + 1)));
  return {
    ...trace,
    z: matrix,
    ...(x ? { x: axisLabels(tokenLabels, ...x) } : {}),
    ...(y ? { y: axisLabels(tokenLabels, ...y) } : {}),
    ...(signed ? symmetricRange(matrix) : {}),
    ...(customdata ? { customdata: rows(arrays[customdata]) } : {}),
  };
}

/** One axis label per cell. The position makes it unique, because Plotly draws equal categories as one.
 *  @param {string[]} tokenLabels @param {number} first @param {number} last @param {number} step */
function axisLabels(tokenLabels, first, last, step) {
  return Array.from({ length: Math.ceil((last - first) / step) }, (_, i) => {
    const begin = first + i * step;
    const end = Math.min(begin + step, last) - 1;
    return `${begin}${end > begin ? `–${end}` : ""} ${escaped(truncated(tokenLabels[begin]))}`;
  });
}

/** @param {string} label */
function truncated(label) {
  if (label.length <= MAX_LABEL) return label;
  const characters = [...label]; // so that no surrogate pair is split
  return characters.length <= MAX_LABEL ? label : `${characters.slice(0, MAX_LABEL - 1).join("")}…`;
}

/** @type {Record<string, string>} */
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
/** A text in which Plotly finds no markup. @param {string} text */
export const escaped = (text) => text.replace(/[&<>]/g, (character) => ENTITIES[character]);

/** A colour range with 0 in its middle. @param {Iterable<number>[]} matrix */
function symmetricRange(matrix) {
  let limit = 1e-6;
  for (const row of matrix) for (const value of row) limit = Math.max(limit, Math.abs(value));
  return { zmin: -limit, zmax: limit };
}
