// Colours of the pictures: light or dark, as the system is set, and always light when printed. The colours of the page
// itself are in app.css.
//
// There are two colour scales. Both differ in brightness, so that they can be read without telling hues apart: from the
// background to violet (weights, 0 to 1), and from orange over the background to violet (scores, around 0).

const dark = matchMedia("screen and (prefers-color-scheme: dark)");
let isPrinting = false;

const SEQUENTIAL = {
  light: ["#f1eff9", "#d6cff0", "#ab9de0", "#7b67c8", "#4d37a0", "#241159"],
  dark: ["#1d1b2a", "#3a3168", "#6250ab", "#9a88e0", "#cdc0fb", "#fff8e0"],
};
const DIVERGING = {
  light: ["#8a3b00", "#d0762a", "#f3c492", "#f4f3f6", "#b9aee6", "#7b67c8", "#3a2586"],
  dark: ["#ffc27a", "#d9812f", "#7d4a1d", "#201f2b", "#4b3f86", "#8b78d6", "#d3c8ff"],
};

/** @returns {"light" | "dark"} */
export const scheme = () => (dark.matches && !isPrinting ? "dark" : "light");

/** Subscribe to changes of colours or resolution: another colour scheme, screen or zoom, or printing.
 *  @param {() => void} redraw */
export function onThemeChange(redraw) {
  if (!subscribers.size) watchTheme();
  subscribers.add(redraw);
}

/** Do pictures need more than colours? Browsers with forced colours or more contrast say so. */
const highContrast = matchMedia("(forced-colors: active), (prefers-contrast: more)");
export const isHighContrast = () => highContrast.matches && !isPrinting;
/** Are pictures drawn for paper? They must be complete, because nobody can scroll it. */
export const isForPaper = () => isPrinting;

/** @type {Set<() => void>} */
const subscribers = new Set();
const redrawAll = () => subscribers.forEach((redraw) => redraw());

function watchTheme() {
  dark.addEventListener("change", redrawAll);
  highContrast.addEventListener("change", redrawAll);
  watchResolution();
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}

/** Redraw when the number of screen pixels per CSS pixel changes, because canvases are drawn in screen pixels. */
function watchResolution() {
  const resolution = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
  resolution.addEventListener("change", () => { watchResolution(); redrawAll(); }, { once: true });
}

/** Redraw in light colours and at the width of the paper (app.css) before the browser prints, and as before afterwards.
 *  @param {boolean} begins */
function print(begins) {
  isPrinting = begins;
  document.documentElement.classList.toggle("printing", begins);
  redrawAll();
}

/** The colour scale of weights: 256 colours, each [r, g, b]. */
export const weightColours = () => interpolated(SEQUENTIAL[scheme()]);

/** The colour scale of signed numbers, with 0 in its middle: 256 colours, each [r, g, b]. */
export const signedColours = () => interpolated(DIVERGING[scheme()]);

/** 256 colours between evenly spaced ones. @param {string[]} colours */
function interpolated(colours) {
  const stops = colours.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, value) => {
    const position = (value / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(position), stops.length - 2);
    return stops[left].map((from, i) => Math.round(from + (stops[left + 1][i] - from) * (position - left)));
  });
}

/** A Plotly template: the colours and the font of all figures. */
export function template() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = { color: colour("--ink"), linecolor: colour("--line"), gridcolor: colour("--line"), automargin: true };
  return {
    data: {
      heatmap: [{ colorscale: colourScale(SEQUENTIAL[scheme()]) }],
      // the lines of charts.js come in threes: all heads, the chosen head, the current position
      scatter: [
        { line: { color: colour("--faint"), width: 1 } },
        { line: { color: colour("--violet"), width: 2.5 } },
        { line: { color: colour("--accent"), width: 2 } },
      ],
    },
    layout: {
      paper_bgcolor: colour("--paper"), // so that a downloaded picture can be read on any background
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colour("--font"), size: 12, color: colour("--ink") },
      colorscale: { diverging: colourScale(DIVERGING[scheme()]), sequential: colourScale(SEQUENTIAL[scheme()]) },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      shapedefaults: { line: { color: colour("--hatch"), width: 1 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--accent") },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

/** A Plotly colour scale of evenly spaced colours. @param {string[]} colours @returns {[number, string][]} */
const colourScale = (colours) => colours.map((colour, i) => [i / (colours.length - 1), colour]);
