// A figure of the server, the arrays and the tokens -> Plotly. app/figures.py says what is in a figure, and its `filled`
// does the same in Python.

import { rows } from "./frame.js";
import { template } from "./theme.js";

/** @typedef {import("./frame.js").Tensor} Tensor */
/** @typedef {import("./types.js").PlotlyElement} PlotlyElement */
/** @typedef {import("./types.js").PlotlyEvents} PlotlyEvents */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {import("./types.js").PlotlyScript} PlotlyScript */
/** @typedef {import("./types.js").PlotlyTrace} PlotlyTrace */
/** @typedef {[figure: PlotlyFigure, arrays: Record<string, Tensor>, pieces: string[]]} Drawing */

const N_LABEL = 24; // characters of a token's label on an axis, at most

const CONFIG = {
  doubleClick: false, // Plotly would go back to the ranges of the first figure that was drawn here
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetScale2d", "toImage"],
};

/** Plotly's script is large and comes last; until it is there, pictures wait. @type {Promise<PlotlyScript>} */
const plotly = new Promise((resolve) => {
  const script = document.getElementById("plotly");
  if (window.Plotly) resolve(window.Plotly);
  else script.addEventListener("load", () => resolve(window.Plotly));
});

/** A place on the page where one figure after another is drawn. */
export class Figure {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    /** @type {Drawing | null} */
    this.latest = null; // what `draw` was given last
    this.busy = false;
    this.width = 0; // of what was drawn last, in px
    /** @type {object[] | null} */
    this.buttons = null; // the same ones always: Plotly makes a figure anew whose configuration has changed
    new ResizeObserver(() => this.element.clientWidth !== this.width && this.redraw()).observe(element);
  }

  /**
   * Draw a figure with its numbers, which some have in them. While one is drawn, only the newest of the next ones waits.
   * @param {PlotlyFigure} figure @param {Record<string, Tensor>} arrays @param {string[]} pieces
   */
  async draw(figure, arrays = {}, pieces = []) {
    this.latest = [figure, arrays, pieces];
    if (this.busy) return;
    this.busy = true;
    try {
      const Plotly = await plotly;
      let drawn = /** @type {Drawing | null} */ (null);
      while (drawn !== this.latest) {
        drawn = this.latest;
        await this.put(Plotly, ...drawn);
      }
    } finally {
      this.busy = false;
    }
  }

  /** @param {PlotlyScript} Plotly @param {Drawing} drawing */
  async put(Plotly, ...[figure, arrays, pieces]) {
    this.width = this.element.clientWidth;
    const height = figure.layout.height ?? Math.min(Math.max(this.width * 0.86, 320), 680);
    this.element.style.height = `${height}px`;
    this.buttons ??= this.makeButtons(Plotly);
    const canZoom = axesOf(figure).some(([, axis]) => !axis.fixedrange);
    const element = await Plotly.react(
      this.element,
      figure.data.map((trace) => filled(trace, arrays, pieces)),
      { ...structuredClone(figure.layout), template: template(), height, width: this.width }, // Plotly writes into it
      { ...CONFIG, modeBarButtonsToAdd: canZoom ? this.buttons : this.buttons.slice(0, 1) },
    );
    if (!("drawn" in element.dataset)) element.on("plotly_doubleclick", () => this.reset(Plotly));
    element.dataset.drawn = figure.layout.title.text;
  }

  /** For Plotly's buttons that do not fit: its download has one name for all, its reset knows the first figure's ranges.
   *  @param {PlotlyScript} Plotly */
  makeButtons(Plotly) {
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

  /** Back to the ranges of the figure that is drawn. @param {PlotlyScript} Plotly */
  reset(Plotly) {
    const whole = axesOf(this.latest[0])
      .filter(([, axis]) => !axis.fixedrange)
      .map(([name, { range }]) => (range ? [`${name}.range`, [...range]] : [`${name}.autorange`, true]));
    if (whole.length) Plotly.relayout(this.element, Object.fromEntries(whole));
  }

  /** Draw the same again, in today's colours. */
  redraw() {
    if (this.latest) this.draw(...this.latest);
  }

  /**
   * Hear Plotly's events, such as plotly_hover.
   * @template {keyof PlotlyEvents} Name
   * @param {Name} event @param {(data: PlotlyEvents[Name]) => void} listen
   */
  async on(event, listen) {
    await plotly;
    const element = /** @type {PlotlyElement} */ (this.element);
    await new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      const wait = () => (element.on ? resolve() : setTimeout(wait, 50));
      wait();
    });
    element.on(event, listen);
  }
}

/** The axes of a figure by their names. @param {PlotlyFigure} figure */
const axesOf = ({ layout }) =>
  /** @type {[string, import("./types.js").PlotlyAxis][]} */ (Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name)));

/** A file's name: what is drawn, in letters, digits and hyphens. @param {string} title */
const fileName = (title) => (title.match(/[\p{L}\p{N}.]+/gu) ?? ["lookback"]).join("-").slice(0, 120);

/** What colours numbers of many magnitudes: app/figures.py, `shaded`. @type {Record<string, (unit: number) => (value: number) => number>} */
const SHADES = {
  asinh: (unit) => (value) => Math.asinh(value / unit),
  log10: (smallest) => (value) => Math.log10(Math.max(value, smallest)),
};

/** @param {PlotlyTrace} trace @param {Record<string, Tensor>} arrays @param {string[]} pieces @returns {PlotlyTrace} */
function filled(trace, arrays, pieces) {
  if (!trace.meta) return trace; // it has its numbers
  const { z, customdata, masked_from: maskedFrom = null, signed, shade, x, y } = trace.meta;
  let matrix = rows(arrays[z]);
  if (shade) matrix = matrix.map((row) => row.map(SHADES[shade[0]](shade[1])));
  // a shorter row leaves its end blank
  if (maskedFrom !== null) matrix = matrix.map((row, i) => row.subarray(0, Math.max(0, i + maskedFrom + 1)));
  return {
    ...trace,
    z: matrix,
    ...(x ? { x: labels(pieces, ...x) } : {}),
    ...(y ? { y: labels(pieces, ...y) } : {}),
    ...(signed ? around(matrix) : {}),
    ...(customdata ? { customdata: rows(arrays[customdata]) } : {}),
  };
}

/** One axis label a cell. The position makes it unique: Plotly would draw equal categories as one.
 *  @param {string[]} pieces @param {number} first @param {number} last @param {number} step */
function labels(pieces, first, last, step) {
  return Array.from({ length: Math.ceil((last - first) / step) }, (_, i) => {
    const begin = first + i * step;
    const until = Math.min(begin + step, last) - 1;
    return `${begin}${until > begin ? `–${until}` : ""} ${escaped(short(pieces[begin]))}`;
  });
}

/** @param {string} piece */
function short(piece) {
  if (piece.length <= N_LABEL) return piece;
  const characters = [...piece]; // not in the middle of one
  return characters.length <= N_LABEL ? piece : `${characters.slice(0, N_LABEL - 1).join("")}…`;
}

/** @type {Record<string, string>} */
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" }; // Plotly takes a few tags in its texts for its own
/** A text as Plotly shows it as it is. @param {string} piece */
export const escaped = (piece) => piece.replace(/[&<>]/g, (character) => ENTITIES[character]);

/** A scale with 0 in its middle. @param {Iterable<number>[]} matrix */
function around(matrix) {
  let reach = 1e-6;
  for (const row of matrix) for (const value of row) reach = Math.max(reach, Math.abs(value));
  return { zmin: -reach, zmax: reach };
}
