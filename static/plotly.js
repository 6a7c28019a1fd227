// Plotly's script. It is large (4.8 MB), so it is loaded by the first figure that a page draws with it, after the page has
// been painted. The page names its address, which contains its version.

/** @typedef {import("./types.js").PlotlyScript} PlotlyScript */

/** @type {Promise<PlotlyScript> | null} */
let loading = null;

/** Plotly, once its script has loaded. */
export function loadPlotly() {
  loading ??= load();
  return loading;
}

/** @returns {Promise<PlotlyScript>} */
async function load() {
  await nextPaint();
  const script = document.createElement("script");
  script.src = /** @type {HTMLMetaElement} */ (document.querySelector('meta[name="plotly"]')).content;
  await new Promise((resolve, reject) => {
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error("Plotly's script could not be loaded: reload the page")));
    document.head.append(script);
  });
  return window.Plotly;
}

/** What is on the page now has been painted, or will not be, because nobody sees it. @returns {Promise<void>} */
const nextPaint = () => new Promise((resolve) => (document.hidden ? resolve() : requestAnimationFrame(() => setTimeout(resolve))));
