// The training history of a model: its checkpoints, what the heads did at each, and the losses. It comes from
// `GET /api/v2/models/{name}/checkpoints`. A model that came without training steps has one checkpoint, the finished model.

import { send } from "./request.js";

/** @typedef {"previous" | "first" | "induction"} Pattern */

/** A checkpoint, with a score per head for each pattern, `[layer][head]`.
 *  @typedef {{step: number | null, patterns: Record<Pattern, number[][]>}} Checkpoint */

/** @typedef {{step: number, n_tokens: number, loss: number, held_out_loss: number}} Point */

/** A model's checkpoints in the order of training; an index counts them from 0. */
export class TrainingHistory {
  /** @param {{model: string, checkpoints: Checkpoint[], curve: Point[], n_curriculum_steps: number}} reply */
  constructor({ model, checkpoints, curve, n_curriculum_steps }) {
    this.model = model;
    this.checkpoints = checkpoints;
    this.curve = curve;
    this.nCurriculumSteps = n_curriculum_steps; // steps at the beginning, trained on repeated random tokens
    this.last = checkpoints.length - 1;
  }

  /** The index of the last checkpoint that is not after a step; null is the finished model. @param {number | null} step */
  indexOf(step) {
    if (step === null) return this.last;
    return Math.max(0, this.checkpoints.findLastIndex((checkpoint) => checkpoint.step !== null && checkpoint.step <= step));
  }

  /** The step that the address names; null at the last checkpoint. @param {number} index */
  stepAt(index) {
    return index === this.last ? null : this.checkpoints[index].step;
  }

  /** The losses at a checkpoint, if they are known. @param {number} index @returns {Point | undefined} */
  pointAt(index) {
    return this.curve.find((point) => point.step === this.checkpoints[index].step);
  }

  /** @param {number} index */
  nameOf(index) {
    const { step } = this.checkpoints[index];
    return step === null ? "the last step" : `step ${step.toLocaleString("en")}`;
  }

  /** A checkpoint's name with its tokens and loss, if they are known. @param {number} index */
  describe(index) {
    const point = this.pointAt(index);
    if (!point) return this.nameOf(index);
    const isCurriculum = point.step > 0 && point.step <= this.nCurriculumSteps;
    return `${this.nameOf(index)}: ${tokenCount(point.n_tokens)}${isCurriculum ? " of the curriculum" : ""} read, held-out loss ${point.held_out_loss.toFixed(2)}`;
  }
}

/** A number of tokens in words; large ones in millions, because 0.5 million is easier to read than 524,288.
 *  @param {number} n */
function tokenCount(n) {
  const count = n < 1e5 ? n.toLocaleString("en") : `${(n / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} million`;
  return `${count} tokens`;
}

/** Request a model's training history. @param {string} model @param {AbortSignal} signal @returns {Promise<TrainingHistory>} */
export async function fetchHistory(model, signal) {
  const reply = await send(`/api/v2/models/${encodeURIComponent(model)}/checkpoints`, { signal });
  return new TrainingHistory(await reply.json());
}
