// The elements of a heatmap. Text from outside is inserted with textContent only, so that it is never parsed as HTML.

const HELP = "Arrow keys, Page Up, Page Down, Home and End move the cursor, Enter selects, plus and minus zoom, 0 or Escape shows the whole matrix.";

/** Create the parts of a heatmap in an element: a canvas in a frame that scrolls it, the value of the current cell, the legend, and
 *  a place for buttons. @param {HTMLElement} element */
export function createParts(element) {
  element.classList.add("heatmap");
  const frame = create("div", "heatmap-frame");
  frame.tabIndex = 0;
  frame.role = "application"; // a screen reader passes the arrow keys on
  frame.setAttribute("aria-roledescription", "heatmap");
  frame.setAttribute("aria-description", HELP);
  const extent = create("div", "heatmap-extent"); // as large as all cells; the canvas shows the part that is scrolled to
  const canvas = create("canvas", "heatmap-cells");
  canvas.ariaHidden = "true";
  extent.append(canvas);
  frame.append(extent);
  const value = create("p", "heatmap-value");
  const legend = create("canvas", "heatmap-legend");
  legend.role = "img";
  const tools = create("div", "heatmap-tools");
  tools.append(legend);
  element.replaceChildren(frame, value, tools);
  return { frame, extent, canvas, value, legend, tools };
}

/** A token in a sentence, with its position on the left whatever its direction. @param {string} text */
export function isolated(text) {
  const element = create("bdi", "");
  element.dir = "ltr";
  element.textContent = text;
  return element;
}

/** @template {keyof HTMLElementTagNameMap} Tag @param {Tag} tag @param {string} className */
function create(tag, className) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  return element;
}

/** @param {string} text @param {string} label what it does, if the text does not say it @param {() => void} onClick */
export function createButton(text, label, onClick) {
  const button = create("button", "");
  button.type = "button";
  button.textContent = text;
  if (label) button.ariaLabel = button.title = label;
  button.addEventListener("click", onClick);
  return button;
}

/** Set the size of a canvas in CSS pixels, and clear it. @param {HTMLCanvasElement} canvas @param {number} width @param {number} height @param {number} scale */
export function setSize(canvas, width, height, scale) {
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
}
