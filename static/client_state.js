// The client state: everything that the page has of a text, and how a frame of the server updates it. Does not know how frames
// are transported.
//
// A frame contains only what is new (app/live/delta.py). A client state is never changed once it has been returned, so what is
// on the screen stays consistent while frames for the next text are applied.

/** @typedef {import("./frame.js").Tensor} Tensor */
/** @typedef {Record<string, Tensor>} Arrays */
/** @typedef {import("./types.js").FirstHeader} FirstHeader */
/** @typedef {import("./types.js").PlotlyFigure} PlotlyFigure */

/**
 * The thumbnails of one layer, as far as they have arrived.
 * @typedef {object} Thumbnails
 * @property {number} nTokens how many tokens they cover
 * @property {number} side pixels per row
 * @property {Uint8Array} pixels head × row × column; 255 is a weight of 1
 * @property {Float32Array} toFirstToken the weight from each token to the first one, averaged over heads
 */

/** The part of the text that `head` of the client state covers; each cell covers cell_size² numbers.
 *  @typedef {{window: import("./address.js").Window, cell_size: number}} Cells */

/** @typedef {{figure: PlotlyFigure, arrays: Arrays}} Norms */

/**
 * @typedef {object} ClientState
 * @property {FirstHeader} header of the latest result: model, n_tokens, layer, head, stage, query, prediction, figure, timings, …
 * @property {import("./types.js").Token[]} tokens of the whole text
 * @property {Arrays} head scores, scaled scores and weights in the window, and the rows of the chosen query
 * @property {Cells | null} cells
 * @property {Norms | null} norms
 * @property {number} pixelSize tokens per pixel of the thumbnails
 * @property {(Thumbnails | undefined)[]} layers
 * @property {boolean} done true if everything has arrived
 */

/** @type {Readonly<ClientState>} */
export const EMPTY_CLIENT_STATE = Object.freeze({
  header: /** @type {FirstHeader} */ ({}), tokens: [], head: {}, cells: null, norms: null, pixelSize: 0, layers: [], done: false,
});

// Masked scores are sent only where a cell covers several numbers, or where edits change the attention of the layer.
const ROWS = ["row_scores", "row_scaled", "row_masked", "row_weights"];
const STAGES = ["scores", "scaled", "masked", "weights"];

/**
 * The client state after a frame.
 * @param {Readonly<ClientState>} before @param {{header: import("./types.js").FrameHeader, arrays: Arrays}} frame
 * @returns {Readonly<ClientState>}
 */
export function applyFrame(before, { header, arrays }) {
  const clientState = "n_shared" in header ? applyFirstFrame(before, header, arrays) : before;
  const { grid, done, timings } = header;
  const extendable = grid && grid.pixel_size !== clientState.pixelSize ? [] : clientState.layers; // thumbnails of another scale cannot be extended
  const layers = grid ? addThumbnails(extendable, grid, arrays) : extendable;
  return Object.freeze({ ...clientState, header: { ...clientState.header, timings }, pixelSize: grid?.pixel_size ?? clientState.pixelSize, layers, done });
}

/** The weight on the first token, averaged over all heads and all later tokens. Null if there are no later tokens, or if
 *  not everything has arrived. @param {ClientState} clientState */
export function meanToFirstToken({ header: { n_tokens: n }, layers, done }) {
  if (!done || n < 2 || !layers.length) return null;
  const sums = layers.map(({ toFirstToken }) => toFirstToken.subarray(1, n).reduce((total, value) => total + value, 0));
  return sums.reduce((total, value) => total + value, 0) / (layers.length * (n - 1));
}

/**
 * Apply the first frame of a result, except for its thumbnails.
 * @param {Readonly<ClientState>} previous @param {FirstHeader} header @param {Arrays} arrays @returns {ClientState}
 */
function applyFirstFrame(previous, header, arrays) {
  const { n_shared: nShared } = header;
  const before = nShared ? previous : EMPTY_CLIENT_STATE;
  return {
    ...before,
    header,
    tokens: [...before.tokens.slice(0, nShared), ...header.tokens],
    head: {
      ...Object.fromEntries(ROWS.filter((name) => arrays[name]).map((name) => [name, arrays[name]])),
      ...(header.heatmap ? extendHead(before.head, header.heatmap, arrays) : pick(before.head, STAGES)),
    },
    cells: header.heatmap ?? before.cells,
    norms: header.norms ? extendNorms(before.norms, header.norms, arrays) : before.norms,
    layers: before.layers.map((layer) => layer && trimThumbnails(layer, nShared, before.pixelSize)),
  };
}

/** The cells of the chosen head. The first `from` rows and columns are copied from `before`; masked cells stay 0 or −∞.
 *  @param {Arrays} before @param {Cells & {from: number}} heatmap @param {Arrays} arrays @returns {Arrays} */
function extendHead(before, { window: [top, bottom, left, right], cell_size: cellSize, from }, arrays) {
  const [height, width] = [Math.ceil((bottom - top) / cellSize), Math.ceil((right - left) / cellSize)];
  return Object.fromEntries(
    STAGES.filter((name) => arrays[name] || (before[name] && (name !== "masked" || from))).map((name) => {
      const values = new Float32Array(height * width);
      if (name === "masked") values.fill(-Infinity);
      if (from) copyMatrix(values, width, before[name], 0, 0);
      if (arrays[name]) copyMatrix(values, width, arrays[name], from, 0);
      if (arrays[`${name}_columns`]) copyMatrix(values, width, arrays[`${name}_columns`], 0, from);
      return [name, { values, shape: [height, width] }];
    }),
  );
}

/** Copy a matrix into a larger or smaller one, starting at a row and a column of the target.
 *  @param {Float32Array} target @param {number} width @param {Tensor} source @param {number} row @param {number} column */
function copyMatrix(target, width, { values: source, shape: [nRows, nColumns] }, row, column) {
  const height = target.length / width;
  const n = Math.min(nColumns, width - column);
  for (let i = 0; i < nRows && row + i < height; i++)
    target.set(source.subarray(i * nColumns, i * nColumns + n), (row + i) * width + column);
}

/** @param {Norms | null} before @param {{from: number, figure: PlotlyFigure}} norms @param {Arrays} arrays @returns {Norms} */
function extendNorms(before, { from, figure }, arrays) {
  const names = figure.data.flatMap(({ meta }) => [meta.z, meta.customdata]);
  return {
    figure,
    arrays: Object.fromEntries(names.map((name) => [name, appendRows(before?.arrays[name], from, arrays[name])])),
  };
}

/** The first `n` rows of a matrix, followed by new rows.
 *  @param {Tensor | undefined} before @param {number} n @param {Tensor} added @returns {Tensor} */
function appendRows(before, n, { values: added, shape: [nRows, nColumns] }) {
  const values = new Float32Array((n + nRows) * nColumns);
  if (n) values.set(before.values.subarray(0, n * nColumns));
  values.set(added, n * nColumns);
  return { values, shape: [n + nRows, nColumns] };
}

/** The thumbnails of a layer after all tokens except the first `nShared` changed. A pixel that covers a changed token is
 *  no longer right. @param {Thumbnails} layer @param {number} nShared @param {number} pixelSize @returns {Thumbnails} */
function trimThumbnails(layer, nShared, pixelSize) {
  return layer.nTokens <= nShared ? layer : { ...layer, nTokens: Math.floor(nShared / pixelSize) * pixelSize };
}

/**
 * The thumbnails of all layers, with the new rows of some layers added.
 * @param {(Thumbnails | undefined)[]} before @param {import("./types.js").GridHeader} header @param {Arrays} arrays
 * @returns {(Thumbnails | undefined)[]}
 */
function addThumbnails(before, { layers: [begin, end], n_sent: nSent, from, pixel_size: pixelSize }, { grid, to_first_token: toFirst }) {
  const [, nHeads, nRows, side] = grid.shape;
  const nNew = toFirst.shape[1];
  const layers = [...before];
  for (let layer = begin; layer < end; layer++) {
    const old = before[layer];
    const pixels = new Uint8Array(nHeads * side * side);
    for (let head = 0; head < nHeads; head++) {
      const target = head * side * side;
      for (let row = 0; row < from; row++) {
        const source = (head * old.side + row) * old.side;
        pixels.set(old.pixels.subarray(source, source + Math.min(old.side, side)), target + row * side);
      }
      const source = ((layer - begin) * nHeads + head) * nRows * side;
      pixels.set(grid.values.subarray(source, source + nRows * side), target + from * side);
      if (nSent % pixelSize) {
        // The old thumbnails cover a part of this row of pixels. A pixel is the largest weight of both parts.
        const [row, oldRow] = [target + from * side, (head * old.side + from) * old.side];
        for (let i = 0; i < old.side; i++) pixels[row + i] = Math.max(pixels[row + i], old.pixels[oldRow + i]);
      }
    }
    const toFirstToken = new Float32Array(nSent + nNew);
    if (nSent) toFirstToken.set(old.toFirstToken.subarray(0, nSent));
    toFirstToken.set(toFirst.values.subarray((layer - begin) * nNew, (layer - begin + 1) * nNew), nSent);
    layers[layer] = { nTokens: nSent + nNew, side, pixels, toFirstToken };
  }
  return layers;
}

/** @param {Arrays} arrays @param {string[]} names @returns {Arrays} */
const pick = (arrays, names) => Object.fromEntries(names.filter((name) => name in arrays).map((name) => [name, arrays[name]]));
