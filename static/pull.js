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
    const { width, height, perUnit } = plane(reach);
    const [across, down] = [clientX - box.left - ROOM.l - width / 2, clientY - box.top - ROOM.t - height / 2];
    const rounded = (/** @type {number} */ px) => Math.round(10 * Math.max(-reach, Math.min(px / perUnit, reach))) / 10;
    return [rounded(across), rounded(-down)];
  }

  /** The room of the plane, in px. Both axes have one scale, and 0 is in the middle. @param {number} reach */
  function plane(reach) {
    const [width, height] = [element.clientWidth - ROOM.l - ROOM.r, element.clientHeight - ROOM.t - ROOM.b];
    return { width, height, perUnit: Math.min(width, height) / (2 * reach) };
  }

  element.addEventListener("pointerdown", (event) => {
    const shown = /** @type {Points | undefined} */ (part());
    if (!shown?.held?.length) return;
    const [x, y] = place(event, shown);
    const { perUnit } = plane(shown.reach);
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
