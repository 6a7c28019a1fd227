// A heatmap on a canvas: a matrix with the labels of its rows and columns, read by pointer, touch or keyboard. It scrolls
// where its cells would become too small, and zooms.

import { announce } from "./announcer.js";
import { cellAt, cellTexts, clamp, hiddenText, layoutOf, moved, numberText, scaleEnds, scrolledTo, zoomOn } from "./heatmap_layout.js";
import { coloursAt, measureWith, paint, paintCursor, paintSelection } from "./heatmap_paint.js";
import { createButton, createParts, isolated, setSize } from "./heatmap_parts.js";
import { LEGEND_HEIGHT, legendLayout, paintLegend, pictureOf } from "./heatmap_picture.js";
import { fileName, saveAs } from "./download.js";
import { isForPaper, onThemeChange } from "./theme.js";

/** @typedef {import("./heatmap_layout.js").Cell} Cell */
/** @typedef {import("./heatmap_layout.js").Layout} Layout */
/** @typedef {import("./heatmap_layout.js").Matrix} Matrix */

const VIEW_HEIGHT = 600; // px of the cells; more rows are reached by scrolling
const ZOOM_STEP = 1.5;
const DRAG_PX = 5; // a pointer that moves less has clicked
const PICTURE = { height: Number.POSITIVE_INFINITY, smallestCell: 8 }; // of a downloaded picture: nothing is scrolled out of sight

/** Draws one matrix after the other in an element. */
export class Heatmap {
  /**
   * @param {HTMLElement} element becomes the heatmap
   * @param {{onSelect?: (cell: Cell) => void, smallestCell?: number}} options `onSelect` is called with a cell that was clicked or
   *   chosen with Enter; cells are not smaller than `smallestCell` px, so that what is left over is scrolled
   */
  constructor(element, { onSelect = () => {}, smallestCell = 6 } = {}) {
    this.element = element;
    this.onSelect = onSelect;
    this.smallestCell = smallestCell;
    /** @type {Matrix | null} */
    this.matrix = null;
    this.name = ""; // of the downloaded file
    /** @type {Layout | null} */
    this.layout = null;
    this.zoom = 1;
    /** @type {Cell} */
    this.cursor = { row: 0, column: 0 };
    /** @type {Cell | null} */
    this.hovered = null;
    /** @type {{from: Cell, to: Cell, x: number, y: number} | null} */
    this.drag = null;
    this.hasDragged = false; // the next click ends a drag
    this.width = 0; // px, of what was drawn last
    const parts = createParts(element);
    this.frame = parts.frame;
    this.extent = parts.extent;
    this.canvas = parts.canvas;
    this.context = parts.canvas.getContext("2d");
    this.value = parts.value;
    this.legend = parts.legend;
    this.buttons = this.createButtons();
    parts.tools.append(...Object.values(this.buttons));
    this.listen();
  }

  /** Draw a matrix. Zoom and cursor stay if it has the shape of the one before.
   *  @param {Matrix} matrix @param {{name?: string}} options `name` is that of the downloaded file; without it, the title is used */
  draw(matrix, { name = matrix.title } = {}) {
    const hasSameShape = matrix.rows.length === this.matrix?.rows.length && matrix.columns.length === this.matrix.columns.length;
    this.matrix = matrix;
    this.name = name;
    this.ends = scaleEnds(matrix);
    if (!hasSameShape) [this.zoom, this.hovered] = [1, null];
    this.cursor = { row: clamp(this.cursor.row, 0, matrix.rows.length - 1), column: clamp(this.cursor.column, 0, matrix.columns.length - 1) };
    this.frame.ariaLabel = `${matrix.title}. ${matrix.rows.length} rows, ${matrix.columns.length} columns`;
    this.redraw();
    this.element.dataset.drawn = matrix.title;
  }

  /** Draw the same matrix again, for another size, resolution or colour scheme. */
  redraw() {
    this.width = this.element.clientWidth;
    if (!this.matrix || !this.width) return; // a hidden heatmap is drawn when it is shown
    this.colours = coloursAt(this.element, this.matrix.scale);
    this.layout = this.fit();
    this.resize();
    this.paint();
    this.paintLegend();
    this.describe();
  }

  /** The layout for the present width. On paper all cells are visible. */
  fit() {
    const measure = measureWith(this.context, this.colours);
    const isPaper = isForPaper();
    const room = { width: this.width, height: isPaper ? PICTURE.height : VIEW_HEIGHT, smallestCell: isPaper ? 0 : this.smallestCell };
    const zoom = isPaper ? 1 : this.zoom;
    const layout = layoutOf(this.matrix, room, zoom, measure);
    if (layout.view[1] >= layout.extent[1]) return layout;
    this.frame.style.overflowY = "scroll";
    return layoutOf(this.matrix, { ...room, width: this.width - (this.frame.offsetWidth - this.frame.clientWidth) }, zoom, measure);
  }

  /** Give the elements the sizes of the layout. */
  resize() {
    const { left, top, bottom, view, extent, largestZoom } = this.layout;
    this.scale = devicePixelRatio;
    const [width, height] = [Math.ceil(left + view[0]), Math.ceil(top + view[1] + bottom)];
    setSize(this.canvas, width, height, this.scale);
    this.extent.style.width = `${Math.max(width, left + extent[0])}px`;
    this.extent.style.height = `${Math.max(height, top + extent[1] + bottom)}px`;
    const { style } = this.frame;
    style.overflowX = extent[0] > view[0] ? "scroll" : "hidden";
    style.overflowY = extent[1] > view[1] ? "scroll" : "hidden";
    style.width = `${width + (this.frame.offsetWidth - this.frame.clientWidth)}px`;
    style.height = `${height + (this.frame.offsetHeight - this.frame.clientHeight)}px`;
    this.buttons.in.hidden = this.buttons.out.hidden = largestZoom === 1;
    this.buttons.whole.hidden = this.zoom === 1;
  }

  /** What is scrolled out of sight. */
  get offset() {
    return { left: this.frame.scrollLeft, top: this.frame.scrollTop };
  }

  /** What the painting functions need. */
  get drawing() {
    const { matrix, layout, offset, colours, ends, scale } = this;
    return { matrix, layout, offset, colours, ends, scale };
  }

  /** Paint the visible cells, and mark the cursor or the cell under the pointer. */
  paint() {
    const { context, drawing } = this;
    paint(context, drawing);
    const marked = this.current();
    if (marked && !isForPaper()) paintCursor(context, drawing, marked);
    if (this.drag) paintSelection(context, drawing, this.drag.from, this.drag.to);
  }

  paintLegend() {
    const context = this.legend.getContext("2d");
    setSize(this.legend, Math.ceil(legendLayout(context, this).width) + 1, LEGEND_HEIGHT, this.scale);
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    paintLegend(context, this, 0, 0);
    this.legend.ariaLabel = `Colours from ${this.ends.map((end) => numberText(end)).join(" to ")}`;
  }

  /** The cell under the pointer, or else the cursor while the heatmap has the focus of the keyboard. */
  current() {
    if (!this.matrix.values[0]?.length) return null;
    return this.hovered ?? (this.frame.matches(":focus-visible") ? this.cursor : null);
  }

  /** Write the labels and the value of the current cell below the picture; without one, what is out of sight. */
  describe() {
    const cell = this.current();
    this.value.replaceChildren(cell ? "" : hiddenText(this.layout));
    this.value.classList.toggle("hint", !cell);
    if (!cell) return;
    const [row, column, value] = cellTexts(this.matrix, cell);
    const number = document.createElement("b");
    number.textContent = value;
    this.value.append(isolated(row), " → ", isolated(column), ": ", number);
  }

  /** @param {Cell | null} cell */
  hover(cell) {
    if (cell?.row === this.hovered?.row && cell?.column === this.hovered?.column) return;
    this.hovered = cell;
    this.mark();
  }

  /** Mark the current cell in the picture, and write its value. */
  mark() {
    this.paint();
    this.describe();
  }

  /** Move the cursor, make it visible, and say what it is on. @param {Cell} cell */
  moveTo(cell) {
    this.cursor = cell;
    this.hovered = null;
    const { left, top } = scrolledTo(this.layout, this.offset, cell);
    this.frame.scrollTo(left, top);
    this.mark();
    announce(cellTexts(this.matrix, cell).map((text) => `\u2068${text}\u2069`).join(", "));
  }

  /** Zoom, and keep a point of the picture where it is. @param {number} zoom @param {{x: number, y: number}} point */
  zoomTo(zoom, { x, y }) {
    const { left, top, extent, largestZoom, view } = this.layout;
    const [right, down] = [clamp(x - left, 0, view[0]), clamp(y - top, 0, view[1])];
    const place = [(this.offset.left + right) / extent[0], (this.offset.top + down) / extent[1]];
    this.zoom = clamp(zoom, 1, largestZoom);
    if (this.zoom === 1 && document.activeElement === this.buttons.whole) this.frame.focus({ preventScroll: true }); // the button is about to be hidden
    this.redraw();
    this.frame.scrollTo(place[0] * this.layout.extent[0] - right, place[1] * this.layout.extent[1] - down);
    this.paint();
  }

  /** Zoom so that the cells between two corners fill the view. @param {Cell} from @param {Cell} to */
  zoomInto(from, to) {
    this.zoom = clamp(zoomOn(this.layout, this.zoom, from, to), 1, this.layout.largestZoom);
    this.redraw();
    const [width, height] = this.layout.cell;
    this.frame.scrollTo(Math.min(from.column, to.column) * width, Math.min(from.row, to.row) * height);
    this.paint();
  }

  /** Zoom by keys, around the cursor, or by buttons, around the middle. @param {number} factor */
  zoomBy(factor) {
    const { left, top, view, cell } = this.layout;
    if (!this.frame.matches(":focus-visible")) return this.zoomTo(this.zoom * factor, { x: left + view[0] / 2, y: top + view[1] / 2 });
    const offset = scrolledTo(this.layout, this.offset, this.cursor); // the cursor may have been scrolled out of sight
    this.frame.scrollTo(offset.left, offset.top);
    const [column, row] = [this.cursor.column + 0.5, this.cursor.row + 0.5];
    this.zoomTo(this.zoom * factor, { x: left + column * cell[0] - offset.left, y: top + row * cell[1] - offset.top });
    const after = scrolledTo(this.layout, this.offset, this.cursor); // the larger cell may reach beyond the edge
    this.frame.scrollTo(after.left, after.top);
  }

  /** Save the whole matrix with its title and its legend, on a background of its own. */
  async download() {
    const { matrix, colours, ends } = this;
    const measure = measureWith(this.context, colours);
    const layout = layoutOf(matrix, { ...PICTURE, width: Math.max(700, 12 * matrix.columns.length) }, 1, measure);
    const canvas = pictureOf({ matrix, layout, colours, ends, scale: Math.max(2, devicePixelRatio) });
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    saveAs(blob, `${fileName(this.name)}.png`);
  }

  createButtons() {
    return {
      out: createButton("−", "Zoom out", () => this.zoomBy(1 / ZOOM_STEP)),
      in: createButton("+", "Zoom in", () => this.zoomBy(ZOOM_STEP)),
      whole: createButton("Whole matrix", "", () => this.zoomTo(1, { x: 0, y: 0 })),
      download: createButton("Save picture", "", () => this.download()),
    };
  }

  listen() {
    const { frame, canvas } = this;
    frame.addEventListener("scroll", () => this.layout && this.paint());
    frame.addEventListener("keydown", (event) => this.onKey(event));
    for (const name of ["focus", "blur"]) frame.addEventListener(name, () => this.layout && this.mark());
    canvas.addEventListener("pointerdown", (event) => this.onPress(event));
    canvas.addEventListener("pointermove", (event) => this.onMove(event));
    canvas.addEventListener("pointerup", () => this.onRelease());
    canvas.addEventListener("pointercancel", () => (this.drag = null));
    canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && !this.drag && this.layout && this.hover(null));
    canvas.addEventListener("click", (event) => this.onClick(event));
    canvas.addEventListener("dblclick", () => this.zoom > 1 && this.zoomTo(1, { x: 0, y: 0 }));
    canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    onThemeChange(() => this.redraw());
    new ResizeObserver(() => this.element.clientWidth !== this.width && this.redraw()).observe(this.element);
  }

  /** The cell under a pointer. @param {MouseEvent} event */
  cellUnder({ offsetX, offsetY }) {
    return this.layout && cellAt(this.layout, this.offset, offsetX, offsetY);
  }

  /** @param {PointerEvent} event */
  onPress(event) {
    const cell = this.cellUnder(event);
    this.hasDragged = false;
    if (!cell) return;
    this.hover(cell);
    if (event.pointerType === "touch" || event.button || this.layout.largestZoom === 1) return; // a finger scrolls
    this.drag = { from: cell, to: cell, x: event.clientX, y: event.clientY };
    this.canvas.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const cell = this.cellUnder(event);
    if (this.drag && cell && this.isDragging(cell, event)) {
      this.drag.to = cell;
      this.hasDragged = true;
      this.hovered = cell;
      this.mark();
    } else if (this.layout) this.hover(cell);
  }

  /** Has a pressed pointer moved far enough, and to another cell? Less than that is a click. @param {Cell} cell @param {PointerEvent} event */
  isDragging({ row, column }, { clientX, clientY }) {
    const { from, x, y } = this.drag;
    return this.hasDragged || ((row !== from.row || column !== from.column) && Math.hypot(clientX - x, clientY - y) > DRAG_PX);
  }

  onRelease() {
    if (!this.drag) return;
    const { from, to } = this.drag;
    this.drag = null;
    if (this.hasDragged) this.zoomInto(from, to);
  }

  /** @param {MouseEvent} event */
  onClick(event) {
    const cell = this.cellUnder(event);
    if (!cell || this.hasDragged) return;
    this.cursor = cell;
    this.onSelect(cell);
  }

  /** With Ctrl, or two fingers on a touchpad, the wheel zooms; without, it scrolls the page. @param {WheelEvent} event */
  onWheel(event) {
    if (!this.layout || !(event.ctrlKey || event.metaKey) || this.layout.largestZoom === 1) return;
    event.preventDefault();
    this.zoomTo(this.zoom * 2 ** (-event.deltaY / 200), { x: event.offsetX, y: event.offsetY });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (!this.layout || !this.matrix.values[0]?.length || event.altKey || event.metaKey) return;
    const target = moved(this.cursor, event, this.layout);
    /** @type {Record<string, () => void>} */
    const actions = {
      Enter: () => this.onSelect(this.cursor),
      " ": () => this.onSelect(this.cursor),
      "+": () => this.zoomBy(ZOOM_STEP),
      "=": () => this.zoomBy(ZOOM_STEP), // the key of + without Shift
      "-": () => this.zoomBy(1 / ZOOM_STEP),
      0: () => this.zoomTo(1, { x: 0, y: 0 }),
      ...(this.zoom > 1 ? { Escape: () => this.zoomTo(1, { x: 0, y: 0 }) } : {}),
    };
    const action = target ? () => this.moveTo(target) : !event.ctrlKey && actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
