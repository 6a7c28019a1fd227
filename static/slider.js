// The slider through a model's training, the words beside it, and the button that walks from step to step.

import { now, onShow, show } from "./address.js";

const PACE_MS = 1000; // a step of the walk

/** Follows the step of the address, and chooses one. */
export class Slider {
  /** @param {HTMLElement} place with the slider, its ticks, its words and the button */
  constructor(place) {
    this.input = place.querySelector("input");
    this.ticks = place.querySelector("datalist");
    this.words = place.querySelector("p");
    this.button = place.querySelector("button");
    /** @type {import("./course.js").Course | null} */
    this.course = null;
    this.walking = 0; // a timer
    this.input.addEventListener("input", () => {
      this.stop();
      this.choose(this.input.valueAsNumber);
    });
    this.button.addEventListener("click", () => (this.walking ? this.stop() : this.walk()));
    onShow(() => this.follow());
  }

  /** Another model's training; null while it is not known. @param {import("./course.js").Course | null} course */
  turnTo(course) {
    this.stop();
    this.course = course;
    this.input.disabled = this.button.disabled = !course;
    this.words.textContent = "Measuring what every head does at each step …";
    if (!course) return;
    this.input.max = String(course.last);
    this.ticks.replaceChildren(...course.checkpoints.map((_, place) => new Option("", String(place))));
    this.follow();
  }

  follow() {
    if (!this.course) return;
    const place = this.course.placeOf(now().step);
    const words = this.course.wordsFor(place);
    this.input.value = String(place);
    this.input.ariaValueText = words;
    this.words.textContent = words[0].toUpperCase() + words.slice(1);
  }

  /** @param {number} place */
  choose(place) {
    show({ step: this.course.stepAt(place) });
  }

  /** Go through the training from here on, or from its beginning where this is its end. */
  walk() {
    const { last } = this.course;
    const here = this.course.placeOf(now().step);
    this.button.textContent = "Stop";
    this.words.ariaLive = "polite"; // nobody holds the slider, which would say it
    if (here === last) this.choose(0);
    this.walking = setInterval(() => {
      if (document.body.classList.contains("stale")) return; // nobody has seen this step yet
      const next = this.course.placeOf(now().step) + 1;
      if (next >= last) this.stop();
      if (next <= last) this.choose(next);
    }, PACE_MS);
  }

  stop() {
    clearInterval(this.walking);
    this.walking = 0;
    this.button.textContent = "Play";
    this.words.ariaLive = "off";
  }
}
