// Colours of the pictures, light and dark after the system; on paper always light. The page's own colours are in app.css.
//
// Two scales, both readable without seeing hue: one runs from the paper to violet (weights, 0 to 1), one from orange
// over the paper to violet (scores, around 0).

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

/** Be told when colours or sizes change: another scheme, another screen or zoom, printing. @param {() => void} redraw */
export function onLook(redraw) {
  if (!listeners.size) watch();
  listeners.add(redraw);
}

/** @type {Set<() => void>} */
const listeners = new Set();
const changed = () => listeners.forEach((redraw) => redraw());

function watch() {
  dark.addEventListener("change", changed);
  followResolution();
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
}

/** Canvases hold pixels of the screen, and how many there are to a CSS pixel can change. */
function followResolution() {
  const now = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
  now.addEventListener("change", () => { followResolution(); changed(); }, { once: true });
}

/** What is printed is drawn for paper before the browser takes it: light, and as narrow as app.css makes it then.
 *  @param {boolean} begins */
function print(begins) {
  isPrinting = begins;
  document.documentElement.classList.toggle("printing", begins);
  changed();
}
/** The scale of weights as 256 colours, [r, g, b] each. */
export function shades() {
  const stops = SEQUENTIAL[scheme()].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    return stops[left].map((from, i) => Math.round(from + (stops[left + 1][i] - from) * (place - left)));
  });
}

/** What Plotly calls a template: everything in a figure that is a matter of theme. */
export function template() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = { color: colour("--ink"), linecolor: colour("--line"), gridcolor: colour("--line"), automargin: true };
  return {
    data: {
      heatmap: [{ colorscale: spread(SEQUENTIAL[scheme()]) }],
      // lines come in threes: what is there, what is chosen, and where one stands
      scatter: [
        { line: { color: colour("--faint"), width: 1 } },
        { line: { color: colour("--violet"), width: 2.5 } },
        { line: { color: colour("--accent"), width: 2 } },
      ],
    },
    layout: {
      paper_bgcolor: colour("--paper"), // a picture that is taken away keeps its ground, and can be read on any other
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colour("--font"), size: 12, color: colour("--ink") },
      colorscale: { diverging: spread(DIVERGING[scheme()]), sequential: spread(SEQUENTIAL[scheme()]) },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      shapedefaults: { line: { color: colour("--hatch"), width: 1 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--accent") },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

/** @param {string[]} colours @returns {[number, string][]} */
const spread = (colours) => colours.map((colour, i) => [i / (colours.length - 1), colour]);
