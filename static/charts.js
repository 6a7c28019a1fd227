// Plotly figures of a model's training: what its heads did at each checkpoint, and its losses. Pure functions. The colours
// are those of the theme, in which lines come in threes: all heads, the chosen head, the current position.

/** @typedef {import("./history.js").TrainingHistory} TrainingHistory */
/** @typedef {import("./history.js").Pattern} Pattern */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */
/** @typedef {import("./types.js").PlotlyLayout} PlotlyLayout */
/** @typedef {import("./types.js").PlotlyTrace} PlotlyTrace */

/** @type {Record<Pattern, string>} */
const PATTERNS = { previous: "Previous token", induction: "Induction", first: "First token" };
const MARGIN = { l: 10, r: 10, t: 62, b: 10 }; // px; the top has Plotly's buttons, and below them the title
const PANEL_PX = 96;
const GAP_PX = 34; // above each panel, for its caption
const LOSS_PX = 150;
const AXIS_PX = 45; // below the last panel
const N_TICKS = 7; // at most

/**
 * Three panels, one below the other: each head's score of three attention patterns at each checkpoint. Checkpoints are
 * evenly spaced, because most are at twice the step of the one before.
 * @param {TrainingHistory} history @param {number} index of the current checkpoint
 * @param {{layer: number, head: number}} chosen
 * @returns {PlotlyFigure}
 */
export function patternsFigure(history, index, { layer, head }) {
  const names = /** @type {Pattern[]} */ (Object.keys(PATTERNS));
  const plotPx = names.length * (PANEL_PX + GAP_PX) - GAP_PX;
  const height = MARGIN.t + GAP_PX + plotPx + AXIS_PX;
  /** @type {object[]} */
  const annotations = [];
  /** @type {PlotlyLayout} */
  const layout = { ...baseLayout(`${history.model} · attention patterns during training`, height), annotations };
  layout.margin = { ...MARGIN, t: MARGIN.t + GAP_PX / 2 };
  const data = names.flatMap((name, i) => {
    const suffix = i ? i + 1 : "";
    const top = 1 - (i * (PANEL_PX + GAP_PX)) / plotPx;
    const score = history.checkpoints[index].patterns[name][layer]?.[head];
    const isLast = i === names.length - 1;
    layout[`xaxis${suffix}`] = { ...stepAxis(history, isLast), anchor: `y${suffix}` };
    layout[`yaxis${suffix}`] = { ...FIXED, domain: [Math.max(0, top - PANEL_PX / plotPx), top], range: [-0.03, 1.03], tickvals: [0, 0.5, 1] };
    annotations.push(
      { ...captionAt(top), x: 0, xanchor: "left", text: PATTERNS[name] },
      { ...captionAt(top), x: 1, xanchor: "right", text: `<b>layer ${layer}, head ${head}: ${score?.toFixed(2) ?? "–"}</b>` },
    );
    const axes = { xaxis: `x${suffix}`, yaxis: `y${suffix}` };
    return [
      { ...headLines(history, name), ...axes, opacity: 0.4 },
      { ...headLines(history, name, layer, head), ...axes },
      { ...positionLine([index, index], [0, 1]), ...axes },
    ];
  });
  return { data, layout };
}

/**
 * Loss and held-out loss by tokens read; null if fewer than two points are known.
 * @param {TrainingHistory} history @param {number} index of the current checkpoint @returns {PlotlyFigure | null}
 */
export function lossFigure(history, index) {
  const curve = history.curve.filter((point) => point.n_tokens > 0); // the axis is logarithmic
  if (curve.length < 2) return null;
  /** @type {[number, number]} */
  const range = [Math.log10(curve[0].n_tokens) - 0.1, Math.log10(curve.at(-1).n_tokens) + 0.1];
  const line = (/** @type {string} */ name, /** @type {"loss" | "held_out_loss"} */ field) => ({
    ...LINE,
    name,
    x: curve.map((point) => point.n_tokens),
    y: curve.map((point) => point[field]),
    customdata: curve.map((point) => point.step.toLocaleString("en")),
    hovertemplate: `${name} %{y:.3f}<br>step %{customdata}, %{x:,} tokens<extra></extra>`,
  });
  const lines = [line("loss", "loss"), line("held-out loss", "held_out_loss")];
  const losses = lines.flatMap(({ y }) => y);
  /** @type {PlotlyTrace[]} */
  const data = [...lines];
  const nTokens = history.pointAt(index)?.n_tokens;
  if (nTokens !== undefined) {
    const x = Math.max(nTokens, 10 ** range[0]); // step 0 is drawn at the left edge
    data.push(positionLine([x, x], [Math.min(...losses), Math.max(...losses)]));
  }
  const layout = {
    ...curriculumBand(history, range),
    ...baseLayout(`${history.model} · loss`, MARGIN.t + LOSS_PX + AXIS_PX),
    xaxis: { ...FIXED, type: "log", range, title: { text: "tokens read" }, tickformat: "~s", dtick: range[1] - range[0] > 2 ? 1 : "D2" },
    yaxis: { ...FIXED },
    showlegend: true,
    legend: { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
  };
  return { data, layout };
}

/** A band over the steps of the curriculum, if there were any. They train on repeated random tokens instead of text, so
 *  the held-out loss is not expected to fall there. @param {TrainingHistory} history @param {[number, number]} range */
function curriculumBand({ curve, nCurriculumSteps }, [first]) {
  if (!nCurriculumSteps) return {};
  const { step, n_tokens } = curve.at(-1);
  const end = (n_tokens / step) * nCurriculumSteps;
  const band = { type: "rect", x0: 10 ** first, x1: end, y0: 0, y1: 1, yref: "paper", fillcolor: "rgba(128, 120, 160, .14)", line: { width: 0 } };
  const caption = { text: "repeated tokens, no text yet", x: first, xanchor: "left", yref: "paper", y: 0, yanchor: "bottom", showarrow: false };
  return { shapes: [band], annotations: [caption] };
}

const LINE = { type: "scatter", mode: "lines" };
const FIXED = { fixedrange: true, zeroline: false, ticks: "" }; // no zooming, so that a finger can scroll the page

const positionLine = (/** @type {number[]} */ x, /** @type {number[]} */ y) => ({ ...LINE, x, y, hoverinfo: "skip", showlegend: false });
const captionAt = (/** @type {number} */ y) => ({ xref: "paper", yref: "paper", y, yanchor: "bottom", showarrow: false });

/** What the layouts of both figures have in common. @param {string} title @param {number} height */
function baseLayout(title, height) {
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
 * The lines of all heads as one trace, with a gap after each; or the line of one head.
 * @param {TrainingHistory} history @param {Pattern} name @param {number | null} onlyLayer @param {number | null} onlyHead
 */
function headLines(history, name, onlyLayer = null, onlyHead = null) {
  const { checkpoints } = history;
  const points = checkpoints[0].patterns[name].flatMap((heads, layer) =>
    heads.flatMap((_, head) => {
      if (onlyLayer !== null && (layer !== onlyLayer || head !== onlyHead)) return [];
      const line = checkpoints.map(({ patterns }, i) => [i, patterns[name][layer][head], [layer, head, history.nameOf(i)]]);
      return [...line, [null, null, null]];
    }),
  );
  const [x, y, customdata] = [0, 1, 2].map((column) => points.map((point) => point[column]));
  const hovertemplate = "layer %{customdata[0]}, head %{customdata[1]}: %{y:.2f} at %{customdata[2]}<extra></extra>";
  return { ...LINE, x, y, customdata, hovertemplate };
}

/** An axis of checkpoints. If there are too many to label them all, some are skipped, but never the last.
 *  @param {TrainingHistory} history @param {boolean} hasLabels */
function stepAxis({ checkpoints, last }, hasLabels) {
  const stride = Math.ceil(checkpoints.length / N_TICKS);
  const ticks = checkpoints.map((_, index) => index).filter((index) => (last - index) % stride === 0);
  return {
    ...FIXED,
    range: [-0.3, last + 0.3],
    tickvals: ticks,
    ticktext: ticks.map((index) => checkpoints[index].step?.toLocaleString("en") ?? "last"),
    tickangle: 0,
    showticklabels: hasLabels,
    ...(hasLabels ? { title: { text: "step" } } : {}),
  };
}
