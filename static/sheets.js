// Matrices of one shape side by side, with one colour scale: the sheets of an array with three axes.

import { Heatmap } from "./heatmap.js";

/** Draws one array after the other in an element: a heatmap per sheet. */
export class Sheets {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    element.classList.add("sheets");
    /** @type {{place: HTMLElement, heading: HTMLElement, heatmap: Heatmap}[]} */
    this.places = [];
  }

  /** @param {import("./types.js").PanelKinds["cube"]} array @param {{name?: string}} options `name` begins the name of downloaded files */
  draw({ title, sheets, rows, columns, values }, { name = title } = {}) {
    const limit = Math.max(1e-6, ...values.flat(2).map((value) => Math.abs(value ?? 0)));
    while (this.places.length < sheets.length) this.places.push(this.createPlace());
    this.places.forEach(({ place, heading, heatmap }, i) => {
      place.hidden = i >= sheets.length;
      if (place.hidden) return;
      heading.textContent = sheets[i];
      const matrix = { title: `${title}: ${sheets[i]}`, rows: rows[i], columns, values: values[i], scale: /** @type {const} */ ("signed"), limit };
      heatmap.draw(matrix, { name: `${name} ${sheets[i]}` });
    });
    this.element.dataset.drawn = title;
  }

  createPlace() {
    const [place, heading, element] = [document.createElement("div"), document.createElement("p"), document.createElement("div")];
    heading.className = "sheet-name";
    place.append(heading, element);
    this.element.append(place);
    return { place, heading, heatmap: new Heatmap(element) };
  }
}
