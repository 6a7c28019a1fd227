// A model's training -> Plotly figures: what its heads did at each step, and its losses. Pure; colours are the theme's,
// which draws lines in threes: what is there, what is chosen, and where one stands.

/** @typedef {import("./course.js").Course} Course */
/** @typedef {import("./course.js").Pattern} Pattern */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {import("./types.js").PlotlyLayout} PlotlyLayout */
/** @typedef {import("./types.js").PlotlyTrace} PlotlyTrace */

/** @type {Record<Pattern, string>} */
const PATTERNS = { previous: "Previous token", induction: "Induction", first: "First token" };
const MARGIN = { l: 10, r: 10, t: 62, b: 10 }; // px; the top holds Plotly's buttons, and the title below them
const PANEL_PX = 96;
const GAP_PX = 34; // above a panel stands its name
const LOSS_PX = 150;
const AXIS_PX = 45; // below the last panel
const N_TICKS = 7; // at most

/**
 * Three panels, one below the other, over the steps, which are equally far apart because most are twice the one before.
 * @param {Course} course @param {number} place @param {{layer: number, head: number}} chosen
 * @returns {PlotlyFigure}
 */
export function patternsFigure(course, place, { layer, head }) {
  const names = /** @type {Pattern[]} */ (Object.keys(PATTERNS));
  const plotPx = names.length * (PANEL_PX + GAP_PX) - GAP_PX;
  const height = MARGIN.t + GAP_PX + plotPx + AXIS_PX;
  /** @type {object[]} */
  const annotations = [];
  /** @type {PlotlyLayout} */
  const layout = { ...shared(`${course.model} through its training`, height), annotations };
  layout.margin = { ...MARGIN, t: MARGIN.t + GAP_PX / 2 };
  const data = names.flatMap((name, i) => {
    const suffix = i ? i + 1 : "";
    const top = 1 - (i * (PANEL_PX + GAP_PX)) / plotPx;
    const values = course.checkpoints[place].patterns[name][layer]?.[head];
    const isLast = i === names.length - 1;
    layout[`xaxis${suffix}`] = { ...stepAxis(course, isLast), anchor: `y${suffix}` };
    layout[`yaxis${suffix}`] = { ...FIXED, domain: [Math.max(0, top - PANEL_PX / plotPx), top], range: [-0.03, 1.03], tickvals: [0, 0.5, 1] };
    annotations.push(
      { ...above(top), x: 0, xanchor: "left", text: PATTERNS[name] },
      { ...above(top), x: 1, xanchor: "right", text: `<b>layer ${layer}, head ${head}: ${values?.toFixed(2) ?? "–"}</b>` },
    );
    const axes = { xaxis: `x${suffix}`, yaxis: `y${suffix}` };
    return [
      { ...linesOf(course, name), ...axes, opacity: 0.4 },
      { ...linesOf(course, name, layer, head), ...axes },
      { ...mark([place, place], [0, 1]), ...axes },
    ];
  });
  return { data, layout };
}

/**
 * Loss and held-out loss over the tokens that were read; null where nobody knows them.
 * @param {Course} course @param {number} place @returns {PlotlyFigure | null}
 */
export function lossFigure(course, place) {
  const curve = course.curve.filter((point) => point.n_tokens > 0); // the logarithm of 0 is nowhere
  if (curve.length < 2) return null;
  /** @type {[number, number]} */
  const range = [Math.log10(curve[0].n_tokens) - 0.1, Math.log10(curve.at(-1).n_tokens) + 0.1];
  const line = (/** @type {string} */ name, /** @type {"loss" | "held_out_loss"} */ of) => ({
    ...LINE,
    name,
    x: curve.map((point) => point.n_tokens),
    y: curve.map((point) => point[of]),
    customdata: curve.map((point) => point.step.toLocaleString("en")),
    hovertemplate: `${name} %{y:.3f}<br>step %{customdata}, %{x:,} tokens<extra></extra>`,
  });
  const lines = [line("loss", "loss"), line("held-out loss", "held_out_loss")];
  const values = lines.flatMap(({ y }) => y);
  /** @type {PlotlyTrace[]} */
  const data = [...lines];
  const here = course.pointAt(place)?.n_tokens;
  if (here !== undefined) {
    const x = Math.max(here, 10 ** range[0]); // step 0 stands at the left edge
    data.push(mark([x, x], [Math.min(...values), Math.max(...values)]));
  }
  const layout = {
    ...drillsOf(course, range),
    ...shared(`${course.model} · loss`, MARGIN.t + LOSS_PX + AXIS_PX),
    xaxis: { ...FIXED, type: "log", range, title: { text: "tokens read" }, tickformat: "~s", dtick: range[1] - range[0] > 2 ? 1 : "D2" },
    yaxis: { ...FIXED },
    showlegend: true,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
  };
  return { data, layout };
}

/** The part of the training that read no text, where there was one: nobody expects held-out text to get easier there.
 *  @param {Course} course @param {[number, number]} range */
function drillsOf({ curve, nDrills }, [first]) {
  if (!nDrills) return {};
  const { step, n_tokens } = curve.at(-1);
  const end = (n_tokens / step) * nDrills;
  const band = { type: "rect", x0: 10 ** first, x1: end, y0: 0, y1: 1, yref: "paper", fillcolor: "rgba(128, 120, 160, .14)", line: { width: 0 } };
  const words = { text: "drills: no text yet", x: first, xanchor: "left", yref: "paper", y: 0, yanchor: "bottom", showarrow: false };
  return { shapes: [band], annotations: [words] };
}

const LINE = { type: "scatter", mode: "lines" };
const FIXED = { fixedrange: true, zeroline: false, ticks: "" }; // a finger that scrolls the page draws no box

const mark = (/** @type {number[]} */ x, /** @type {number[]} */ y) => ({ ...LINE, x, y, hoverinfo: "skip", showlegend: false });
const above = (/** @type {number} */ top) => ({ xref: "paper", yref: "paper", y: top, yanchor: "bottom", showarrow: false });

/** @param {string} title @param {number} height */
function shared(title, height) {
  return {
    title: { text: title, font: { size: 13 }, x: 0, xanchor: "left", y: 1, yref: "container", yanchor: "top", pad: { t: 34 } },
    height,
    margin: MARGIN,
    showlegend: false,
    hovermode: "closest",
    dragmode: false,
  };
}

/**
 * The lines of all heads as one, broken between two heads; or of one head.
 * @param {Course} course @param {Pattern} name @param {number | null} ofLayer @param {number | null} ofHead
 */
function linesOf(course, name, ofLayer = null, ofHead = null) {
  const { checkpoints } = course;
  const points = checkpoints[0].patterns[name].flatMap((heads, layer) =>
    heads.flatMap((_, head) => {
      if (ofLayer !== null && (layer !== ofLayer || head !== ofHead)) return [];
      const line = checkpoints.map(({ patterns }, i) => [i, patterns[name][layer][head], [layer, head, course.nameOf(i)]]);
      return [...line, [null, null, null]];
    }),
  );
  const [x, y, customdata] = [0, 1, 2].map((part) => points.map((point) => point[part]));
  const hovertemplate = "layer %{customdata[0]}, head %{customdata[1]}: %{y:.2f} at %{customdata[2]}<extra></extra>";
  return { ...LINE, x, y, customdata, hovertemplate };
}

/** Places of steps: too many names for the room leave some out, but never the last. @param {Course} course @param {boolean} isNamed */
function stepAxis({ checkpoints, last }, isNamed) {
  const every = Math.ceil(checkpoints.length / N_TICKS);
  const places = checkpoints.map((_, place) => place).filter((place) => (last - place) % every === 0);
  return {
    ...FIXED,
    range: [-0.3, last + 0.3],
    tickvals: places,
    ticktext: places.map((place) => checkpoints[place].step?.toLocaleString("en") ?? "end"),
    tickangle: 0,
    showticklabels: isNamed,
    ...(isNamed ? { title: { text: "step" } } : {}),
  };
}
