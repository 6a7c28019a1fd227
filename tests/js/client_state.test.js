// How frames update a picture: small cases that can be checked by hand. The general laws are in tests/app/test_delta.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_CLIENT_STATE, applyFrame, meanToFirstToken } from "../../static/client_state.js";

const vector = (...values) => ({ values: Float32Array.from(values), shape: [values.length] });
const matrix = (nColumns, ...values) => ({ values: Float32Array.from(values), shape: [values.length / nColumns, nColumns] });

/** The only frame of a reply, for a model of one layer with one head. @param {number} nShared @param {string[]} tokens */
function frame(nShared, tokens, { heatmap, grid = null, arrays = {} }) {
  const rows = { row_scores: vector(0), row_scaled: vector(0), row_weights: vector(1) };
  const header = { n_shared: nShared, n_tokens: nShared + tokens.length, tokens, heatmap, timings: {}, done: true, ...(grid ? { grid } : {}) };
  return { header, arrays: { ...rows, ...arrays } };
}

const TWO = applyFrame(EMPTY_CLIENT_STATE, frame(0, ["the", "cat"], {
  heatmap: { window: [0, 2, 0, 2], cell_size: 1, from: 0 },
  grid: { layers: [0, 1], n_sent: 0, from: 0, pixel_size: 1 },
  arrays: {
    weights: matrix(2, 1, 0, 0.25, 0.75),
    scores: matrix(2, 5, 6, 7, 8),
    grid: { values: Uint8Array.of(255, 0, 64, 191), shape: [1, 1, 2, 2] },
    to_first_token: matrix(2, 1, 0.25),
  },
}));

test("an appended token adds a row, and a column of scores; its weights on later tokens stay 0", () => {
  const three = applyFrame(TWO, frame(2, ["sat"], {
    heatmap: { window: [0, 3, 0, 3], cell_size: 1, from: 2 },
    grid: { layers: [0, 1], n_sent: 2, from: 2, pixel_size: 1 },
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

test("the mean weight on the first token needs a later token, and does not count removed ones", () => {
  assert.equal(meanToFirstToken(TWO), 0.25);
  const cut = applyFrame(TWO, frame(1, [], { heatmap: { window: [0, 1, 0, 1], cell_size: 1, from: 1 } }));
  assert.deepEqual(cut.tokens, ["the"]);
  assert.equal(meanToFirstToken(cut), null);
});

test("nothing is kept for another model or another text", () => {
  const replaced = applyFrame(TWO, frame(0, ["x"], { heatmap: { window: [0, 1, 0, 1], cell_size: 1, from: 0 }, arrays: { weights: matrix(1, 1) } }));
  assert.deepEqual(replaced.tokens, ["x"]);
  assert.deepEqual(replaced.layers, []); // the other model may have fewer layers
  assert.equal(replaced.norms, null);
  assert.equal("scores" in replaced.head, false);
});

test("pixels that cover a removed token are dropped, with the whole row", () => {
  const thumbnails = { nTokens: 4, side: 2, pixels: Uint8Array.of(255, 0, 64, 191), toFirstToken: Float32Array.of(1, 0.25, 0.5, 0.5) };
  const coarse = { ...TWO, pixelSize: 2, tokens: ["the", "cat", "sat", "on"], layers: [thumbnails] };
  const nTokens = (nShared) => applyFrame(coarse, frame(nShared, ["x"], { heatmap: null })).layers[0].nTokens;
  assert.deepEqual([4, 3, 2, 1].map(nTokens), [4, 2, 2, 0]); // two tokens per pixel
});

test("thumbnails of another scale replace those of all layers", () => {
  const layers = [{ nTokens: 2, side: 2, pixels: Uint8Array.of(255, 0, 64, 191), toFirstToken: Float32Array.of(1, 0.25) }];
  const coarse = applyFrame({ ...TWO, layers: [...layers, ...layers] }, frame(2, ["sat"], {
    heatmap: null,
    grid: { layers: [0, 1], n_sent: 0, from: 0, pixel_size: 2 },
    arrays: { grid: { values: Uint8Array.of(255, 0, 64, 191), shape: [1, 1, 2, 2] }, to_first_token: matrix(3, 1, 0.25, 0.5) },
  }));
  assert.deepEqual(coarse.layers.map(({ nTokens }) => nTokens), [3]); // the second layer has not arrived
});

test("frames do not change a picture that was returned before", () => {
  assert.ok(Object.isFrozen(TWO));
  assert.deepEqual([...TWO.layers[0].pixels], [255, 0, 64, 191]);
});
