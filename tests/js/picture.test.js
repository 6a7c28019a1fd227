// What frames make of a picture: cases that can be checked in the head. The laws are in tests/app/test_picture.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import { NOTHING, applied, meanToFirstToken } from "../../static/picture.js";

const vector = (...values) => ({ values: Float32Array.from(values), shape: [values.length] });
const matrix = (nColumns, ...values) => ({ values: Float32Array.from(values), shape: [values.length / nColumns, nColumns] });

/** The one frame of an answer for a model of one layer with one head. @param {number} nShared @param {object} more */
function frame(nShared, tokens, { heatmap, grid = null, arrays = {} }) {
  const rows = { row_scores: vector(0), row_scaled: vector(0), row_weights: vector(1) };
  const header = { n_shared: nShared, n_tokens: nShared + tokens.length, tokens, heatmap, timings: {}, done: true, ...(grid ? { grid } : {}) };
  return { header, arrays: { ...rows, ...arrays } };
}

const TWO = applied(NOTHING, frame(0, ["the", "cat"], {
  heatmap: { window: [0, 2, 0, 2], step: 1, from: 0 },
  grid: { layers: [0, 1], n_sent: 0, from: 0, step: 1 },
  arrays: {
    weights: matrix(2, 1, 0, 0.25, 0.75),
    scores: matrix(2, 5, 6, 7, 8),
    grid: { values: Uint8Array.of(255, 0, 64, 191), shape: [1, 1, 2, 2] },
    to_first_token: matrix(2, 1, 0.25),
  },
}));

test("an appended token adds a row, and a column of scores; its weights on later tokens stay 0", () => {
  const three = applied(TWO, frame(2, ["sat"], {
    heatmap: { window: [0, 3, 0, 3], step: 1, from: 2 },
    grid: { layers: [0, 1], n_sent: 2, from: 2, step: 1 },
    arrays: {
      weights: matrix(3, 0.5, 0.25, 0.25),
      scores: matrix(3, 1, 2, 3),
      scores_columns: matrix(1, 10, 20),
      grid: { values: Uint8Array.of(128, 64, 64), shape: [1, 1, 1, 3] },
      to_first_token: matrix(1, 0.5),
    },
  }));
  assert.deepEqual(three.tokens, ["the", "cat", "sat"]);
  assert.deepEqual([...three.head.weights.values], [1, 0, 0, 0.25, 0.75, 0, 0.5, 0.25, 0.25]);
  assert.deepEqual([...three.head.scores.values], [5, 6, 10, 7, 8, 20, 1, 2, 3]);
  assert.deepEqual([...three.layers[0].pixels], [255, 0, 0, 64, 191, 0, 128, 64, 64]);
  assert.equal(meanToFirstToken(three), 0.375); // of cat and sat: (0.25 + 0.5) / 2
});

test("the first token has nobody before it, so alone it gives no share; a token that is gone gives none either", () => {
  assert.equal(meanToFirstToken(TWO), 0.25);
  const cut = applied(TWO, frame(1, [], { heatmap: { window: [0, 1, 0, 1], step: 1, from: 1 } }));
  assert.deepEqual(cut.tokens, ["the"]);
  assert.equal(meanToFirstToken(cut), null);
});

test("of another model or another text nothing stays", () => {
  const other = applied(TWO, frame(0, ["x"], { heatmap: { window: [0, 1, 0, 1], step: 1, from: 0 }, arrays: { weights: matrix(1, 1) } }));
  assert.deepEqual(other.tokens, ["x"]);
  assert.deepEqual(other.layers, []); // the other model may have fewer
  assert.equal(other.norms, null);
  assert.equal("scores" in other.head, false);
});

test("a pixel of a token that is gone is not known any more, nor is the row that it stands in", () => {
  const thumbnails = { nTokens: 4, side: 2, pixels: Uint8Array.of(255, 0, 64, 191), toFirstToken: Float32Array.of(1, 0.25, 0.5, 0.5) };
  const coarse = { ...TWO, step: 2, tokens: ["the", "cat", "sat", "on"], layers: [thumbnails] };
  const nTokens = (nShared) => applied(coarse, frame(nShared, ["x"], { heatmap: null })).layers[0].nTokens;
  assert.deepEqual([4, 3, 2, 1].map(nTokens), [4, 2, 2, 0]); // two tokens a pixel
});

test("thumbnails of another scale begin anew, all layers at once", () => {
  const layers = [{ nTokens: 2, side: 2, pixels: Uint8Array.of(255, 0, 64, 191), toFirstToken: Float32Array.of(1, 0.25) }];
  const coarse = applied({ ...TWO, layers: [...layers, ...layers] }, frame(2, ["sat"], {
    heatmap: null,
    grid: { layers: [0, 1], n_sent: 0, from: 0, step: 2 },
    arrays: { grid: { values: Uint8Array.of(255, 0, 64, 191), shape: [1, 1, 2, 2] }, to_first_token: matrix(3, 1, 0.25, 0.5) },
  }));
  assert.deepEqual(coarse.layers.map(({ nTokens }) => nTokens), [3]); // the second layer's has not come
});

test("frames change no picture that was handed out", () => {
  assert.ok(Object.isFrozen(TWO));
  assert.deepEqual([...TWO.layers[0].pixels], [255, 0, 64, 191]);
});
