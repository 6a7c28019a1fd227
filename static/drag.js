// Arrows whose tips can be dragged, with a mouse, a pen or a finger; the sliders beside them do the same by keyboard.

/** @typedef {import("./types.js").Panel} Panel */
/** @typedef {import("./types.js").PanelKinds["points"]} Points */

export const MARGIN = { l: 55, r: 10, t: 60, b: 50 }; // around a plane of points, in px; buttons and legend are above it
const NEAR_PX = 30; // a pointer takes hold of a tip from this far away

/**
 * Make the tips of a figure's arrows draggable.
 * @param {HTMLElement} element @param {() => Panel | undefined} getPanel what is drawn there
 * @param {(control: string, values: number[]) => void} setControl called with the new coordinates of a tip
 */
export function makeDraggable(element, getPanel, setControl) {
  /** @type {string | null} */
  let dragged = null; // the control of the tip that is being dragged

  /** The coordinates of a pointer on the axes. @param {PointerEvent} event @param {Points} points */
  function coordinates({ clientX, clientY }, { limit }) {
    const box = element.getBoundingClientRect();
    const { width, height, perUnit } = plane(limit);
    const [right, down] = [clientX - box.left - MARGIN.l - width / 2, clientY - box.top - MARGIN.t - height / 2];
    const rounded = (/** @type {number} */ px) => Math.round(10 * Math.max(-limit, Math.min(px / perUnit, limit))) / 10;
    return [rounded(right), rounded(-down)];
  }

  /** The size of the plane in px. Both axes have the same scale, and 0 is in the middle. @param {number} limit */
  function plane(limit) {
    const [width, height] = [element.clientWidth - MARGIN.l - MARGIN.r, element.clientHeight - MARGIN.t - MARGIN.b];
    return { width, height, perUnit: Math.min(width, height) / (2 * limit) };
  }

  element.addEventListener("pointerdown", (event) => {
    const panel = /** @type {Points | undefined} */ (getPanel());
    if (!panel?.draggable?.length) return;
    const [x, y] = coordinates(event, panel);
    const { perUnit } = plane(panel.limit);
    const distances = panel.draggable.map((_, i) => perUnit * Math.hypot(panel.points[i].x - x, panel.points[i].y - y));
    const nearest = distances.indexOf(Math.min(...distances));
    if (distances[nearest] > NEAR_PX) return;
    dragged = panel.draggable[nearest];
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
  }, { capture: true });
  element.addEventListener("pointermove", (event) => dragged && setControl(dragged, coordinates(event, /** @type {Points} */ (getPanel()))), { capture: true });
  for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) element.addEventListener(end, () => (dragged = null), { capture: true });
  // A finger that drags a tip must not scroll the page.
  element.addEventListener("touchstart", (event) => dragged && event.preventDefault(), { passive: false, capture: true });
}
