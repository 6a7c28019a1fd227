// The panels of an experiment: their Plotly figures, and what a click selects.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const { figureOf, selectionOf } = await import("../../static/experiment_panels.js");
const PALETTE = { colours: ["a", "b", "c", "d"], ink: "i" };
const heatmap = { kind: "heatmap", title: "", rows: ["0 the", "1 <b>"], columns: ["x", "y"], values: [[1, null], [-3, 2]], scale: "signed", limit: 0.5, selects: ["query", "key"] };
const points = {
  kind: "points", title: "", x_axis: "first", y_axis: "second", arrows: true, limit: 5, draggable: ["a", "b"],
  points: [{ name: "a", group: "one", x: 3, y: 4, selects: { token: 7 } }, { name: "b", group: "two", x: -1, y: 0, selects: {} }],
};

test("a click on a cell selects its row and its column", () => {
  assert.deepEqual(selectionOf(heatmap, { y: "1", x: "0" }), [["query", 1], ["key", 0]]);
  assert.deepEqual(selectionOf({ ...heatmap, selects: null }, { y: "0", x: "1" }), []);
  assert.deepEqual(selectionOf({ ...heatmap, selects: ["query", ""] }, { y: 1, x: 0 }), [["query", 1]]);
});

test("a click on a bar or a point selects what it names", () => {
  const bars = { kind: "bars", labels: ["0 a", "1 b"], values: [1, 2], chosen: 0, probabilities: false, selects: "token" };
  assert.deepEqual(selectionOf(bars, { x: "1" }), [["token", 1]]);
  assert.deepEqual(selectionOf({ ...bars, selects: "" }, { x: "1" }), []);
  assert.deepEqual(selectionOf(points, { customdata: 0 }), [["token", 7]]);
});

test("arrows begin at the origin, and the axes end at the limit", () => {
  const { layout, data } = figureOf(points, PALETTE);
  assert.deepEqual(layout.shapes.map(({ x0, y0, x1, y1 }) => [x0, y0, x1, y1]), [[0, 0, 3, 4], [0, 0, -1, 0]]);
  assert.deepEqual([layout.xaxis.range, layout.yaxis.range], [[-5, 5], [-5, 5]]);
  assert.deepEqual(data.map(({ name, customdata }) => [name, customdata]), [["one", [0]], ["two", [1]]]);
});

test("equal labels of bars stay separate, and are escaped", () => {
  const bars = { kind: "bars", labels: ["1 <b>", "1 <b>"], values: [1, 2], chosen: 0, probabilities: false, selects: "" };
  const { data: [trace], layout } = figureOf(bars, PALETTE);
  assert.deepEqual([new Set(trace.x).size, Object.values(layout.xaxis.labelalias)], [2, ["1 &lt;b&gt;", "1 &lt;b&gt;"]]);
});

test("single numbers and words have no Plotly figure", () => {
  const facts = { kind: "facts", title: "", names: ["sum", "shape"], values: [1, "2 × 3"] };
  assert.equal(figureOf(facts, PALETTE), null);
});
