// What is known of a model's training: the steps that can be looked at, what the heads did at each, and the losses.
// `GET /api/v1/models/{name}/checkpoints` tells; a model that came without its training has one step, its end.

const RETRY_MS = 2000;

/** @typedef {"previous" | "first" | "induction"} Pattern */

/** A step, and what each head did then, `[layer][head]`.
 *  @typedef {{step: number | null, patterns: Record<Pattern, number[][]>}} Checkpoint */

/** @typedef {{step: number, n_tokens: number, loss: number, held_out_loss: number}} Point */

/** A model through its training. A place is the number of a checkpoint, counted from 0. */
export class Course {
  /** @param {{model: string, checkpoints: Checkpoint[], curve: Point[], n_drills: number}} known */
  constructor({ model, checkpoints, curve, n_drills }) {
    this.model = model;
    this.checkpoints = checkpoints;
    this.curve = curve;
    this.nDrills = n_drills; // steps at the beginning that read no text
    this.last = checkpoints.length - 1;
  }

  /** The place of a step; where there is no such step, that of the one before it. @param {number | null} step */
  placeOf(step) {
    if (step === null) return this.last;
    return Math.max(0, this.checkpoints.findLastIndex((one) => one.step !== null && one.step <= step));
  }

  /** What the address says at a place: nothing at the end. @param {number} place */
  stepAt(place) {
    return place === this.last ? null : this.checkpoints[place].step;
  }

  /** @param {number} place @returns {Point | undefined} the losses there, if they are known */
  pointAt(place) {
    return this.curve.find((point) => point.step === this.checkpoints[place].step);
  }

  /** @param {number} place */
  nameOf(place) {
    const { step } = this.checkpoints[place];
    return step === null ? "the end" : `step ${step.toLocaleString("en")}`;
  }

  /** @param {number} place */
  wordsFor(place) {
    const point = this.pointAt(place);
    if (!point) return this.nameOf(place);
    const what = point.step > 0 && point.step <= this.nDrills ? " of drills" : "";
    return `${this.nameOf(place)}: ${tokens(point.n_tokens)}${what} read, held-out loss ${point.held_out_loss.toFixed(2)}`;
  }
}

/** Half a million says more than 524,288. @param {number} n */
function tokens(n) {
  const words = n < 1e5 ? n.toLocaleString("en") : `${(n / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} million`;
  return `${words} tokens`;
}

/**
 * Ask for a model's training, until the server can answer.
 * @param {string} model @param {AbortSignal} signal @returns {Promise<Course | null>} null: there is no such model
 */
export async function fetchCourse(model, signal) {
  for (;;) {
    try {
      const reply = await fetch(`/api/v1/models/${encodeURIComponent(model)}/checkpoints`, { signal });
      if (reply.ok) return new Course(await reply.json());
      if (reply.status !== 503) return null;
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof TypeError)) throw error; // else the server is away; the page says so elsewhere
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    if (signal.aborted) return null;
  }
}
