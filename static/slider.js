// The slider over a model's checkpoints, the description beside it, and the button that plays them one after another.

import { announce } from "./announcer.js";
import { currentState, onChange, update } from "./address.js";

const STEP_MS = 1000; // how long each checkpoint is shown while playing

/** Shows the step of the address, and lets the user choose one. */
export class Slider {
  /** @param {HTMLElement} section with the slider, its ticks, the description and the button */
  constructor(section) {
    this.input = section.querySelector("input");
    this.ticks = section.querySelector("datalist");
    this.description = section.querySelector("p");
    this.button = section.querySelector("button");
    /** @type {import("./history.js").TrainingHistory | null} */
    this.history = null;
    this.timer = 0; // while playing
    this.input.addEventListener("input", () => {
      this.stop();
      this.choose(this.input.valueAsNumber);
    });
    this.button.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    onChange(() => this.draw());
  }

  /** Switch to the history of another model; null while it has not arrived.
   *  @param {import("./history.js").TrainingHistory | null} history */
  setHistory(history) {
    this.stop();
    this.history = history;
    this.input.disabled = this.button.disabled = !history;
    this.description.textContent = "Measuring every head at each saved step …";
    if (!history) return;
    this.input.max = String(history.last);
    this.ticks.replaceChildren(...history.checkpoints.map((_, index) => new Option("", String(index))));
    this.draw();
  }

  draw() {
    if (!this.history) return;
    const index = this.history.indexOf(currentState().step);
    const description = this.history.describe(index);
    this.input.value = String(index);
    this.input.ariaValueText = description;
    this.description.textContent = description[0].toUpperCase() + description.slice(1);
    if (this.timer) announce(description); // while the slider plays, it does not have the focus
  }

  /** @param {number} index */
  choose(index) {
    update({ step: this.history.stepAt(index) });
  }

  /** Play the checkpoints from the current one, or from the first one if the current one is the last. */
  play() {
    const { last } = this.history;
    this.button.textContent = "Stop";
    if (this.history.indexOf(currentState().step) === last) this.choose(0);
    this.timer = setInterval(() => {
      if (document.body.classList.contains("stale")) return; // the current step has not been drawn yet
      const next = this.history.indexOf(currentState().step) + 1;
      if (next >= last) this.stop();
      if (next <= last) this.choose(next);
    }, STEP_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.button.textContent = "Play";
  }
}
