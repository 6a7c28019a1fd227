// A figure of the server and the arrays of its frame -> Plotly. app/figures.py says what is in a figure.

import { rows } from "./frame.js";
import { template } from "./theme.js";

const CONFIG = {
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: "lookback" },
};

/** Plotly's script is large and comes last; until it is there, pictures wait. @type {Promise<object>} */
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
    this.latest = null; // the newest figure; an older one that still waits for Plotly is not drawn
    this.width = 0; // of what was drawn last, in px
    new ResizeObserver(() => this.element.clientWidth !== this.width && this.redraw()).observe(element);
  }

  /** Draw a figure with its numbers. @param {object} figure @param {Record<string, import("./frame.js").Tensor>} arrays */
  async draw(figure, arrays) {
    this.latest = [figure, arrays];
    const Plotly = await plotly;
    if (this.latest?.[0] !== figure) return;
    this.width = this.element.clientWidth;
    const height = figure.layout.height ?? Math.min(Math.max(this.width * 0.86, 320), 680);
    this.element.style.height = `${height}px`;
    await Plotly.react(
      this.element,
      figure.data.map((trace) => fill(trace, arrays)),
      { ...figure.layout, template: template(), height, width: this.width },
      { ...CONFIG, toImageButtonOptions: { ...CONFIG.toImageButtonOptions, height, width: this.width } },
    );
    this.element.dataset.drawn = figure.layout.title.text;
  }

  /** Draw the same again, in today's colours. */
  redraw() {
    if (this.latest) this.draw({ ...this.latest[0] }, this.latest[1]);
  }

  /** Hear Plotly's events, such as plotly_hover. */
  async on(event, listen) {
    await plotly;
    await new Promise((resolve) => {
      const wait = () => (this.element.on ? resolve() : setTimeout(wait, 50));
      wait();
    });
    this.element.on(event, listen);
  }
}

function fill(trace, arrays) {
  const { z, customdata, causal } = trace.meta;
  const matrix = rows(arrays[z]);
  return {
    ...trace,
    z: causal ? matrix.map((row, query) => row.subarray(0, query + 1)) : matrix, // a shorter row leaves its end blank
    ...(customdata ? { customdata: rows(arrays[customdata]) } : {}),
  };
}
