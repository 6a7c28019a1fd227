// What the page has of a text, and how a frame of the server changes it. Knows nothing of how frames come.
//
// A frame holds only what is new (app/live/delta.py). Nothing that was handed out is ever changed: what is on the screen
// stays whole while frames of a text that is on its way to the next one are taken in.

/** @typedef {import("./frame.js").Tensor} Tensor */
/** @typedef {Record<string, Tensor>} Arrays */
/** @typedef {import("./types.js").FirstHeader} FirstHeader */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */

/**
 * A layer's thumbnails, as far as they have come.
 * @typedef {object} Thumbnails
 * @property {number} nTokens the tokens that they show
 * @property {number} side pixels of a row
 * @property {Uint8Array} pixels head × row × column; 255 is a weight of 1
 * @property {Float32Array} toFirstToken the weight that each token gives the first one, averaged over heads
 */

/** What `head` of a picture holds; a cell is step² numbers. @typedef {{window: import("./address.js").Window, step: number}} Cells */

/** @typedef {{figure: PlotlyFigure, arrays: Arrays}} Norms */

/**
 * @typedef {object} Picture
 * @property {FirstHeader} header the latest answer's: model, n_tokens, layer, head, stage, query, prediction, figure, timings, …
 * @property {import("./types.js").Token[]} tokens all of them
 * @property {Arrays} head scores, scaled and weights in the window, and the chosen query's rows
 * @property {Cells | null} cells what `head` covers
 * @property {Norms | null} norms
 * @property {number} step tokens a pixel of the thumbnails
 * @property {(Thumbnails | undefined)[]} layers
 * @property {boolean} done nothing of it is missing
 */

/** @type {Readonly<Picture>} */
export const NOTHING = Object.freeze({
  header: /** @type {FirstHeader} */ ({}), tokens: [], head: {}, cells: null, norms: null, step: 0, layers: [], done: false,
});

const ROWS = ["row_scores", "row_scaled", "row_weights"];
const STAGES = ["scores", "scaled", "masked", "weights"]; // masked ones only where a cell is several numbers

/**
 * What the page has after a frame.
 * @param {Readonly<Picture>} had @param {{header: import("./types.js").FrameHeader, arrays: Arrays}} frame
 * @returns {Readonly<Picture>}
 */
export function applied(had, { header, arrays }) {
  const begun = "n_shared" in header ? switched(had, header, arrays) : had;
  const { grid, done, timings } = header;
  const before = grid && grid.step !== begun.step ? [] : begun.layers; // thumbnails of another scale begin anew
  const layers = grid ? filledIn(before, grid, arrays) : before;
  return Object.freeze({ ...begun, header: { ...begun.header, timings }, step: grid?.step ?? begun.step, layers, done });
}

/** The mean share of its attention that a later token gives the first one; null where there is none, or not all.
 *  @param {Picture} picture */
export function meanToFirstToken({ header: { n_tokens: n }, layers, done }) {
  if (!done || n < 2 || !layers.length) return null;
  const sums = layers.map(({ toFirstToken }) => toFirstToken.subarray(1, n).reduce((total, value) => total + value, 0));
  return sums.reduce((total, value) => total + value, 0) / (layers.length * (n - 1));
}

/**
 * The first frame of an answer: all but thumbnails.
 * @param {Readonly<Picture>} had @param {FirstHeader} header @param {Arrays} arrays @returns {Picture}
 */
function switched(had, header, arrays) {
  const { n_shared: nShared } = header;
  const before = nShared ? had : NOTHING;
  return {
    ...before,
    header,
    tokens: [...before.tokens.slice(0, nShared), ...header.tokens],
    head: {
      ...Object.fromEntries(ROWS.map((name) => [name, arrays[name]])),
      ...(header.heatmap ? headOf(before.head, header.heatmap, arrays) : pick(before.head, STAGES)),
    },
    cells: header.heatmap ?? before.cells,
    norms: header.norms ? normsOf(before.norms, header.norms, arrays) : before.norms,
    layers: before.layers.map((layer) => layer && upTo(layer, nShared, before.step)),
  };
}

/** The chosen head's cells: the first `from` rows and columns are there already. What is behind the mask stays 0 or −∞.
 *  @param {Arrays} before @param {Cells & {from: number}} heatmap @param {Arrays} arrays @returns {Arrays} */
function headOf(before, { window: [top, bottom, left, right], step, from }, arrays) {
  const [height, width] = [Math.ceil((bottom - top) / step), Math.ceil((right - left) / step)];
  return Object.fromEntries(
    STAGES.filter((name) => arrays[name] || (before[name] && (name !== "masked" || step > 1))).map((name) => {
      const values = new Float32Array(height * width);
      if (name === "masked") values.fill(-Infinity);
      if (from) put(values, width, before[name], 0, 0);
      if (arrays[name]) put(values, width, arrays[name], from, 0);
      if (arrays[`${name}_columns`]) put(values, width, arrays[`${name}_columns`], 0, from);
      return [name, { values, shape: [height, width] }];
    }),
  );
}

/** Write a matrix into a larger or smaller one, from a row and a column on.
 *  @param {Float32Array} values @param {number} width @param {Tensor} source @param {number} row @param {number} column */
function put(values, width, { values: source, shape: [nRows, nColumns] }, row, column) {
  const height = values.length / width;
  const n = Math.min(nColumns, width - column);
  for (let i = 0; i < nRows && row + i < height; i++)
    values.set(source.subarray(i * nColumns, i * nColumns + n), (row + i) * width + column);
}

/** @param {Norms | null} before @param {{from: number, figure: PlotlyFigure}} norms @param {Arrays} arrays @returns {Norms} */
function normsOf(before, { from, figure }, arrays) {
  const names = figure.data.flatMap(({ meta }) => [meta.z, meta.customdata]);
  return {
    figure,
    arrays: Object.fromEntries(names.map((name) => [name, stacked(before?.arrays[name], from, arrays[name])])),
  };
}

/** The first `n` rows of a matrix, and new ones below them.
 *  @param {Tensor | undefined} before @param {number} n @param {Tensor} below @returns {Tensor} */
function stacked(before, n, { values: below, shape: [nRows, nColumns] }) {
  const values = new Float32Array((n + nRows) * nColumns);
  if (n) values.set(before.values.subarray(0, n * nColumns));
  values.set(below, n * nColumns);
  return { values, shape: [n + nRows, nColumns] };
}

/** The thumbnails after all but the first `nShared` tokens changed: a pixel of any changed token is no longer right.
 *  @param {Thumbnails} layer @param {number} nShared @param {number} step @returns {Thumbnails} */
function upTo(layer, nShared, step) {
  return layer.nTokens <= nShared ? layer : { ...layer, nTokens: Math.floor(nShared / step) * step };
}

/**
 * @param {(Thumbnails | undefined)[]} before @param {import("./types.js").GridHeader} header @param {Arrays} arrays
 * @returns {(Thumbnails | undefined)[]}
 */
function filledIn(before, { layers: [begin, end], n_sent: nSent, from, step }, { grid, to_first_token: toFirst }) {
  const [, nHeads, nRows, side] = grid.shape;
  const nNew = toFirst.shape[1];
  const layers = [...before];
  for (let layer = begin; layer < end; layer++) {
    const had = before[layer];
    const pixels = new Uint8Array(nHeads * side * side);
    for (let head = 0; head < nHeads; head++) {
      const at = head * side * side;
      for (let row = 0; row < from; row++) {
        const old = (head * had.side + row) * had.side;
        pixels.set(had.pixels.subarray(old, old + Math.min(had.side, side)), at + row * side);
      }
      const sent = ((layer - begin) * nHeads + head) * nRows * side;
      pixels.set(grid.values.subarray(sent, sent + nRows * side), at + from * side);
      if (nSent % step) {
        // of this row of pixels the upper part is there already; a pixel is the largest weight of both
        const [row, upper] = [at + from * side, (head * had.side + from) * had.side];
        for (let i = 0; i < had.side; i++) pixels[row + i] = Math.max(pixels[row + i], had.pixels[upper + i]);
      }
    }
    const toFirstToken = new Float32Array(nSent + nNew);
    if (nSent) toFirstToken.set(had.toFirstToken.subarray(0, nSent));
    toFirstToken.set(toFirst.values.subarray((layer - begin) * nNew, (layer - begin + 1) * nNew), nSent);
    layers[layer] = { nTokens: nSent + nNew, side, pixels, toFirstToken };
  }
  return layers;
}

/** @param {Arrays} from @param {string[]} names @returns {Arrays} */
const pick = (from, names) => Object.fromEntries(names.filter((name) => name in from).map((name) => [name, from[name]]));
