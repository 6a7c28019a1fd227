// The legend of a heatmap, and a whole heatmap with its title and legend as a picture of its own.

import { numberText } from "./heatmap_layout.js";
import { FONT_PX, measureWith, paint, paintHatch, paintSize } from "./heatmap_paint.js";

/** @typedef {import("./heatmap_paint.js").Context} Context */
/** @typedef {import("./heatmap_paint.js").Colours} Colours */
/** @typedef {import("./heatmap_paint.js").Drawing} Drawing */

const STRIP_PX = 80; // width of the legend's colours
const SWATCH_PX = 16;
export const LEGEND_HEIGHT = 18; // px
const MARGIN = 12; // px around a picture
const TITLE_PX = 26;

/** Where the parts of the legend begin, and its width: the numbers at the ends of the colour scale, the scale between them,
 *  and what hatching means if there is any. @param {Context} context @param {Pick<Drawing, "matrix" | "colours" | "ends">} drawing */
export function legendLayout(context, { matrix, colours, ends }) {
  const measure = measureWith(context, colours);
  const [first, last] = ends.map((end) => numberText(end));
  const strip = measure(first) + 5;
  const end = strip + STRIP_PX + 5;
  const swatch = matrix.values.some((row) => row.includes(null)) ? end + measure(last) + 14 : null;
  const words = swatch === null ? null : swatch + SWATCH_PX + 5;
  return { first, strip, last, end, swatch, words, width: words === null ? end + measure(last) : words + measure(numberText(null)) };
}

/** Paint the legend. @param {Context} context @param {Pick<Drawing, "matrix" | "colours" | "ends">} drawing @param {number} x @param {number} y */
export function paintLegend(context, drawing, x, y) {
  const { colours, ends } = drawing;
  const { first, strip, last, end, swatch, words } = legendLayout(context, drawing);
  const [middle, top, height] = [y + LEGEND_HEIGHT / 2, y + 4, LEGEND_HEIGHT - 8];
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = colours.ink;
  context.fillText(first, x, middle);
  context.fillText(last, x + end, middle);
  if (swatch !== null) context.fillText(numberText(null), x + words, middle);
  if (colours.isHighContrast) paintLegendSizes(context, { left: x + strip, top, height }, colours, ends);
  else
    colours.ramp.forEach((channels, i) => {
      context.fillStyle = `rgb(${channels})`;
      context.fillRect(x + strip + (i * STRIP_PX) / 256, top, STRIP_PX / 256 + 0.3, height);
    });
  context.strokeStyle = colours.faint;
  context.lineWidth = 0.5;
  context.strokeRect(x + strip, top, STRIP_PX, height);
  if (swatch === null) return;
  const area = new Path2D();
  area.rect(x + swatch, top, SWATCH_PX, height);
  paintHatch(context, area, { left: x + swatch, width: SWATCH_PX, height: y + LEGEND_HEIGHT, shift: 0 }, colours.hatch);
  context.strokeRect(x + swatch, top, SWATCH_PX, height);
}

/** Squares of growing size, as the cells in high contrast have. @param {Context} context
 *  @param {{left: number, top: number, height: number}} strip @param {Colours} colours @param {[number, number]} ends */
function paintLegendSizes(context, { left, top, height }, colours, ends) {
  const n = Math.floor(STRIP_PX / height);
  for (let i = 0; i < n; i++) {
    const value = ends[0] + ((ends[1] - ends[0]) * i) / (n - 1);
    paintSize(context, [left + i * height, top, height, height], value, { colours, ends }, false);
  }
}

/** A whole matrix as a picture of its own, with its title above and its legend below, on a background.
 *  @param {Omit<Drawing, "offset">} drawing @returns {HTMLCanvasElement} */
export function pictureOf(drawing) {
  const { matrix, layout, colours, scale } = drawing;
  const cells = wholeOf(drawing);
  const [cellsWidth, cellsHeight] = [cells.width / scale, cells.height / scale];
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const titleFont = `bold ${FONT_PX + 2}px ${colours.font}`;
  const legendWidth = layout.left + legendLayout(context, drawing).width;
  context.font = titleFont;
  const width = Math.max(cellsWidth, legendWidth, context.measureText(matrix.title).width) + 2 * MARGIN;
  const height = TITLE_PX + cellsHeight + LEGEND_HEIGHT + 2 * MARGIN;
  [canvas.width, canvas.height] = [Math.ceil(width * scale), Math.ceil(height * scale)]; // this also resets the font
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, width, height);
  context.fillStyle = colours.ink;
  context.font = titleFont;
  context.textBaseline = "top";
  context.fillText(matrix.title, MARGIN, MARGIN);
  context.drawImage(cells, MARGIN, MARGIN + TITLE_PX, cellsWidth, cellsHeight);
  paintLegend(context, drawing, MARGIN + layout.left, MARGIN + TITLE_PX + cellsHeight);
  return canvas;
}

/** All cells with their labels. @param {Omit<Drawing, "offset">} drawing */
function wholeOf(drawing) {
  const { layout, scale } = drawing;
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil((layout.left + layout.extent[0]) * scale);
  canvas.height = Math.ceil((layout.top + layout.extent[1] + layout.bottom) * scale);
  paint(canvas.getContext("2d"), { ...drawing, layout: { ...layout, view: layout.extent }, offset: { left: 0, top: 0 } });
  return canvas;
}
