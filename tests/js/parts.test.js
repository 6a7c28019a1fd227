// The parts of a lesson: what is drawn, what stands in the table beside it, what a click chooses.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const { figureOf, picked, tableOf, words } = await import("../../static/parts.js");
const PALETTE = { colours: ["a", "b", "c", "d"], diverging: [[0, "o"], [1, "v"]], ink: "i", paper: "p" };
const heatmap = { kind: "heatmap", title: "", rows: ["0 the", "1 <b>"], columns: ["x", "y"], values: [[1, null], [-3, 2]], scale: "signed", reach: 0.5, picks: ["query", "key"] };
const points = {
  kind: "points", title: "", x_axis: "first", y_axis: "second", arrows: true, reach: 5, held: ["a", "b"],
  points: [{ name: "a", group: "one", x: 3, y: 4, picks: { token: 7 } }, { name: "b", group: "two", x: -1, y: 0, picks: {} }],
};

test("numbers are said as the server's page says them", () => {
  const said = [1048576, 0.123456, -2, 0.5, 12345.678, "2 × 3", null].map(words);
  assert.deepEqual(said, ["1,048,576", "0.1235", "-2", "0.5", "12350", "2 × 3", "none"]);
});

test("a heatmap's table has its names, its numbers, and a word where there is none", () => {
  assert.deepEqual(tableOf(heatmap), [["", "x", "y"], ["0 the", "1", "none"], ["1 <b>", "-3", "2"]]);
});

test("colours of signed numbers run as far to both sides, and no label is markup", () => {
  const { data: [trace], layout } = figureOf(heatmap, PALETTE);
  assert.deepEqual([trace.zmin, trace.zmax], [-3, 3]);
  assert.deepEqual(trace.y.map((place) => layout.yaxis.labelalias[place]), ["0 the", "1 &lt;b&gt;"]);
});

test("equal labels do not merge", () => {
  const { data: [trace], layout } = figureOf({ ...heatmap, rows: ["1 fat", "1 fat"] }, PALETTE);
  assert.deepEqual([new Set(trace.y).size, Object.values(layout.yaxis.labelalias)], [2, ["1 fat", "1 fat"]]);
});

test("a click on a cell chooses by its row and by its column", () => {
  assert.deepEqual(picked(heatmap, { y: "1", x: "0" }), [["query", 1], ["key", 0]]);
  assert.deepEqual(picked({ ...heatmap, picks: null }, { y: "0", x: "1" }), []);
});

test("a click on a bar or on a point chooses what it names", () => {
  const bars = { kind: "bars", labels: ["0 a", "1 b"], values: [1, 2], chosen: 0, share: false, picks: "token" };
  assert.deepEqual(picked(bars, { x: "1" }), [["token", 1]]);
  assert.deepEqual(picked({ ...bars, picks: "" }, { x: "1" }), []);
  assert.deepEqual(picked(points, { customdata: 0 }), [["token", 7]]);
});

test("arrows begin where the axes cross, and the axes end where they are told to", () => {
  const { layout, data } = figureOf(points, PALETTE);
  assert.deepEqual(layout.shapes.map(({ x0, y0, x1, y1 }) => [x0, y0, x1, y1]), [[0, 0, 3, 4], [0, 0, -1, 0]]);
  assert.deepEqual([layout.xaxis.range, layout.yaxis.range], [[-5, 5], [-5, 5]]);
  assert.deepEqual(data.map(({ name, customdata }) => [name, customdata]), [["one", [0]], ["two", [1]]]);
});

test("a cube's empty rows are struck out, and its first sheet lies on top", () => {
  const cube = { kind: "cube", title: "", sheets: ["s0", "s1"], rows: [["r"], ["r"]], columns: ["x", "y"], values: [[[1, 2]], [[null, null]]] };
  const { data, layout } = figureOf(cube, PALETTE);
  assert.equal(data.at(-1).name, "s0");
  assert.equal(layout.shapes.filter(({ type }) => type === "line").length, 1 + 3);
  assert.deepEqual(tableOf(cube)[2], ["s1: r", "none", "none"]);
});

test("what is but numbers or words has no picture", () => {
  const facts = { kind: "facts", title: "", names: ["sum", "shape"], values: [1, "2 × 3"] };
  assert.equal(figureOf(facts, PALETTE), null);
  assert.deepEqual(tableOf(facts), [null, ["sum", "1"], ["shape", "2 × 3"]]);
});
