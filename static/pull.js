// Arrows whose tips can be pulled, with a mouse, a pen or a finger; the sliders beside them do the same by keyboard.

import { ROOM } from "./parts.js";

/** @typedef {import("./types.js").Part} Part */
/** @typedef {import("./types.js").PartKinds["points"]} Points */

const NEAR_PX = 30;

/**
 * Let the tips of a figure's arrows be pulled.
 * @param {HTMLElement} element @param {() => Part | undefined} part what is drawn there
 * @param {(control: string, values: number[]) => void} set called with the new place of a tip
 */
export function hold(element, part, set) {
  /** @type {string | null} */
  let pulled = null; // the control of the tip that is held

  /** Where a pointer is, on the axes. @param {PointerEvent} event @param {Points} points */
  function place({ clientX, clientY }, { reach }) {
    const box = element.getBoundingClientRect();
    const across = (clientX - box.left - ROOM.l) / (box.width - ROOM.l - ROOM.r);
    const down = (clientY - box.top - ROOM.t) / (box.height - ROOM.t - ROOM.b);
    const rounded = (/** @type {number} */ share) => Math.round(Math.min(1, Math.max(0, share)) * 20 * reach - 10 * reach) / 10;
    return [rounded(across), rounded(1 - down)];
  }

  element.addEventListener("pointerdown", (event) => {
    const shown = /** @type {Points | undefined} */ (part());
    if (!shown?.held?.length) return;
    const [x, y] = place(event, shown);
    const perUnit = (element.clientWidth - ROOM.l - ROOM.r) / (2 * shown.reach);
    const distances = shown.held.map((_, i) => perUnit * Math.hypot(shown.points[i].x - x, shown.points[i].y - y));
    const nearest = distances.indexOf(Math.min(...distances));
    if (distances[nearest] > NEAR_PX) return;
    pulled = shown.held[nearest];
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
  }, { capture: true });
  element.addEventListener("pointermove", (event) => pulled && set(pulled, place(event, /** @type {Points} */ (part()))), { capture: true });
  for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) element.addEventListener(end, () => (pulled = null), { capture: true });
  // A finger that pulls must not scroll the page.
  element.addEventListener("touchstart", (event) => pulled && event.preventDefault(), { passive: false, capture: true });
}
