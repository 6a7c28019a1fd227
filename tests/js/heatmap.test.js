// A heatmap's layout, labels, numbers and colours; and what a preview of a head shows, and where.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const heatmap = await import("../../static/heatmap_layout.js");
const { matrixOf, placeOf } = await import("../../static/head_preview.js");

const measure = (/** @type {string} */ text) => 10 * [...text].length; // every character is 10 px wide
const names = (/** @type {number} */ n, prefix = "") => Array.from({ length: n }, (_, i) => `${prefix}${i}`);
const room = { width: 400, height: 600, smallestCell: 6 };
const none = { left: 0, top: 0 };
const layoutOf = (nRows, nColumns, zoom = 1, width = room.width) =>
  heatmap.layoutOf({ rows: names(nRows, "r"), columns: names(nColumns) }, { ...room, width }, zoom, measure);

test("cells of a square matrix are square, and fill the width that the row labels leave", () => {
  const { left, cell, extent, view } = layoutOf(8, 8); // labels of 20 px and a gap of 6 px: 374 px for 8 cells
  assert.deepEqual([left, cell, extent, view], [26, [46, 46], [368, 368], [368, 368]]);
});

test("no cell is smaller than the smallest allowed: the rest is scrolled", () => {
  const { cell, extent, view } = layoutOf(4, 200);
  assert.deepEqual([cell[0], extent[0], view[0]], [6, 1200, 374]);
  assert.deepEqual(layoutOf(500, 500).view[1], room.height);
});

test("on paper everything is visible, however small", () => {
  const paper = { width: 400, height: Number.POSITIVE_INFINITY, smallestCell: 0 };
  const { extent, view } = heatmap.layoutOf({ rows: names(300), columns: names(300) }, paper, 1, measure);
  assert.deepEqual(view, extent);
});

test("zooming makes cells larger up to a limit, and the view stays as large", () => {
  const [before, after] = [layoutOf(100, 100), layoutOf(100, 100, 3)];
  assert.deepEqual(after.cell, before.cell.map((side) => 3 * side));
  assert.deepEqual(after.view[0], before.view[0]);
  assert.equal(layoutOf(100, 100, 1000).cell[0], 80);
  assert.equal(layoutOf(4, 4).largestZoom, 1); // its cells are large already
});

test("labels are thinned out evenly to 1, 2, 5, 10, … cells until there is room", () => {
  assert.deepEqual([[20, 13], [10, 13], [4, 13], [1, 13], [0.1, 13]].map(([cell, label]) => heatmap.strideFor(cell, label)), [1, 2, 5, 20, 200]);
  assert.deepEqual(heatmap.labelled([3, 12], 5), [5, 10]);
  for (const n of [1, 7, 60, 300]) {
    const { cell, columnStride, isSlanted } = layoutOf(n, n);
    assert.ok(isSlanted || columnStride * cell[0] >= measure(String(n - 1)), `labels of ${n} columns do not overlap`);
  }
});

test("words that are wider than a cell are slanted, and numerals are thinned out instead", () => {
  const columns = names(8, "a long word ");
  assert.equal(heatmap.layoutOf({ rows: names(8), columns }, room, 1, measure).isSlanted, true);
  assert.equal(layoutOf(8, 60).isSlanted, false);
});

test("a label that is too long ends in an ellipsis, and no surrogate pair is split", () => {
  assert.equal(heatmap.shortened("short", 50, measure), "short");
  assert.equal(heatmap.shortened("a longer one", 50, measure), "a lo…");
  assert.equal(heatmap.shortened("😀😀😀😀😀", 30, measure), "😀😀…");
});

test("the cell at a point is the one that is drawn there, also after scrolling", () => {
  const layout = layoutOf(40, 200); // cells of 6 × 15 px
  assert.deepEqual(layout.cell, [6, 15]);
  for (const offset of [none, { left: 333, top: 0 }])
    for (const x of [layout.left, layout.left + 100, layout.left + 363]) {
      const { row, column } = heatmap.cellAt(layout, offset, x, 50);
      assert.equal(row, 3);
      const from = layout.left + column * layout.cell[0] - offset.left;
      assert.ok(from <= x && x < from + layout.cell[0]);
    }
  assert.equal(heatmap.cellAt(layout, none, layout.left - 1, 10), null);
  assert.equal(heatmap.cellAt(layout, none, 100, layout.top + layout.view[1]), null);
});

test("only cells of which a part is visible are drawn", () => {
  assert.deepEqual(heatmap.visible(0, 60, 6, 200), [0, 10]);
  assert.deepEqual(heatmap.visible(3, 60, 6, 200), [0, 11]);
  assert.deepEqual(heatmap.visible(1170, 60, 6, 200), [195, 200]);
});

test("scrolling to a cell makes it visible, and moves nothing if it is visible already", () => {
  const layout = layoutOf(100, 200);
  for (const target of [{ row: 0, column: 0 }, { row: 99, column: 199 }, { row: 50, column: 100 }]) {
    const offset = heatmap.scrolledTo(layout, { left: 300, top: 200 }, target);
    assert.ok(offset.left <= target.column * layout.cell[0] && (target.column + 1) * layout.cell[0] <= offset.left + layout.view[0]);
    assert.ok(offset.top <= target.row * layout.cell[1] && (target.row + 1) * layout.cell[1] <= offset.top + layout.view[1]);
    assert.deepEqual(heatmap.scrolledTo(layout, offset, target), offset);
  }
});

test("a rectangle of half the view is zoomed in twice", () => {
  const layout = layoutOf(60, 60, 1, 386); // labels of 30 px: 350 px for 60 cells
  const half = Math.round(60 * (layout.view[0] / layout.extent[0]) / 2) - 1;
  assert.ok(Math.abs(heatmap.zoomOn(layout, 1, { row: 0, column: 0 }, { row: half, column: half }) - 2) < 0.1);
});

test("keys move the cursor and stop at the edges", () => {
  const size = { nRows: 3, nColumns: 5 };
  const press = (key, ctrlKey = false) => heatmap.moved({ row: 1, column: 2 }, { key, ctrlKey }, size);
  assert.deepEqual(press("ArrowUp"), { row: 0, column: 2 });
  assert.deepEqual(press("ArrowRight"), { row: 1, column: 3 });
  assert.deepEqual([press("Home"), press("End")], [{ row: 1, column: 0 }, { row: 1, column: 4 }]);
  assert.deepEqual([press("Home", true), press("End", true)], [{ row: 0, column: 0 }, { row: 2, column: 4 }]);
  assert.deepEqual(heatmap.moved({ row: 0, column: 4 }, { key: "ArrowRight" }, size), { row: 0, column: 4 });
  assert.equal(press("a"), null);
});

test("a signed scale is symmetric around 0 and ends at the limit or beyond it; a probability is between 0 and 1", () => {
  const values = [[1, null], [-3, 2]];
  assert.deepEqual(heatmap.scaleEnds({ values, scale: "signed", limit: 0.5 }), [-3, 3]);
  assert.deepEqual(heatmap.scaleEnds({ values, scale: "signed", limit: 5 }), [-5, 5]);
  assert.deepEqual(heatmap.scaleEnds({ values, scale: "probability", limit: 0.5 }), [0, 1]);
  assert.deepEqual([-3, 0, 3, 9].map((value) => heatmap.colourIndex(value, [-3, 3])), [0, 128, 255, 255]);
  assert.deepEqual([-3, 1.5].map((value) => heatmap.magnitude(value, [-3, 3])), [1, 0.5]);
});

test("numbers on a colour are dark or light, whichever contrasts more", () => {
  assert.deepEqual([[255, 255, 255], [0, 0, 0], [123, 103, 200], [208, 118, 42]].map(heatmap.needsDarkText), [true, false, false, true]);
});

test("numbers have four significant digits, and whole numbers have all", () => {
  const texts = [1048576, 0.123456, -2, 0.5, 12345.678, 0, 1.23456e-7, null].map((value) => heatmap.numberText(value));
  assert.deepEqual(texts, ["1,048,576", "0.1235", "−2", "0.5", "12,346", "0", "1.235E−7", "no value"]);
  assert.deepEqual([0.8671, -37.21, 1234.5].map((value) => heatmap.numberText(value, "cell")), ["0.87", "−37", "1,235"]);
});

test("what is out of sight is counted in words", () => {
  assert.equal(heatmap.hiddenText(layoutOf(8, 8)), "");
  assert.equal(heatmap.hiddenText(layoutOf(4, 200)), "62 of 200 columns are in view; scroll to see the rest.");
});

test("the preview of a head has its weights, with later tokens masked", () => {
  const pixels = Uint8Array.from([0, 0, 0, 0, 255, 0, 51, 204]); // head 1 follows head 0
  const clientState = { layers: [undefined, { nTokens: 2, side: 2, pixels }], tokens: [{ text: "the" }, { text: "cat" }], pixelSize: 1 };
  const { title, rows, values } = matrixOf(clientState, { layer: 1, head: 1 });
  assert.deepEqual([title, rows, values], ["Layer 1, head 1", ["0 the", "1 cat"], [[1, null], [0.2, 0.8]]]);
  assert.equal(matrixOf(clientState, { layer: 0, head: 0 }), null);
});

test("the preview never covers the thumbnail, and is beside the grid where there is room", () => {
  const size = { width: 300, height: 300 };
  const grid = { left: 20, right: 220, top: 100, bottom: 300 };
  const thumbnail = { left: 60, right: 100, top: 200, bottom: 240 };
  assert.deepEqual(placeOf(size, thumbnail, grid, { width: 1280, height: 900 }), [232, 70]);
  const [, top] = placeOf(size, thumbnail, grid, { width: 390, height: 900 });
  assert.equal(top, thumbnail.bottom + 12);
  const low = { ...thumbnail, top: 700, bottom: 740 };
  assert.equal(placeOf(size, low, grid, { width: 390, height: 900 })[1], 388);
});
