/**
 * One object at one moment, and what one more interaction makes of it (mmms_deploy/session/core.py).
 *
 * A stage runs the network (stage.js). Its tensors are never written to.
 *
 * @typedef {import("./saved.js").Interaction} Interaction
 * @typedef {{numbers: Float32Array, scores: number[], taken: number}} Candidates  All answers (K, h, w), their scores,
 *     and which one is taken.
 * @typedef {{interactions: Interaction[], state: Map<string, any>, answer: any, candidates: Candidates|null}} Snapshot
 *     The interactions so far, the tensors that the click stage takes at the next click by the name of their input, the
 *     tensor of the newest answer (null before the first, and after a choice), and all answers where there are several.
 */

import { toNetwork } from "./coordinates.js";
import { Failure } from "./failures.js";
import { aboveThreshold, checkedAnswer, givenLogits, hasLogits, labelsOfMask } from "./forms.js";
import { EMPTY, maskOf } from "./masks.js";
import { throughImage } from "./resize.js";

/** Makes snapshots with a stage, for one image. */
export class Snapshots {
  /**
   * @param {any} clicks What the page's model says of the click stage.
   * @param {[number, number]} size (H0, W0) of the image.
   * @param {any} stage
   */
  constructor(clicks, size, stage) {
    this.clicks = clicks;
    this.contract = clicks.contract;
    this.tensors = clicks.tensors;
    this.size = size;
    this.stage = stage;
    this.logits = hasLogits(clicks.contract);
    this.count = this.contract.answers === null ? 1 : this.contract.answers.candidates;
  }

  /** @returns {Snapshot} The snapshot of an object without interactions. */
  blank() {
    const state = new Map(this.clicks.state.map((link) => [link.input, this.stage.filled(link.input, link.start)]));
    return { interactions: [], state, answer: null, candidates: null };
  }

  /**
   * Return the snapshot after one more interaction.
   *
   * @param {Snapshot} current
   * @param {Interaction} interaction
   * @returns {Promise<Snapshot>}
   */
  after(current, interaction) {
    if (interaction.kind === "click") {
      return this.#afterClick(current, interaction);
    }
    const isMask = interaction.kind === "mask";
    return isMask ? this.#afterMask(current, interaction) : this.#afterChoice(current, interaction);
  }

  async #afterClick(current, click) {
    this.#checkRoom(current);
    const [x, y] = toNetwork(click.x, click.y, this.size, this.clicks.size, this.contract.coordinates);
    const row = Float32Array.of(x, y, click.positive ? 1 : 0, 1);
    const done = await this.stage.run(row, current.state);
    const answer = done.get(this.tensors.answer);
    const state = new Map(this.clicks.state.map((link) => [link.input, done.get(link.output)]));
    const numbers = checkedAnswer(await this.stage.numbers(answer), this.logits);
    if (this.contract.previous_resize !== null) {
      this.#feedBack(state, numbers);
    }
    const candidates = this.tensors.candidates === null ? null : await this.#candidates(done);
    return { interactions: [...current.interactions, click], state, answer, candidates };
  }

  #checkRoom(current) {
    const { points } = this.contract;
    const held = current.interactions.filter((one) => one.kind === "click").length;
    if (points !== null && held >= points.most) {
      throw new Failure(
        "ClickError",
        `click ${points.most + 1} on one object`,
        `at most ${points.most}: the network was exported with a list of so many points`,
        "undo a click",
      );
    }
  }

  async #candidates(done) {
    const [numbers, scores, taken] = await Promise.all(
      this.tensors.candidates.map((name) => this.stage.numbers(done.get(name))),
    );
    return { numbers, scores: Array.from(scores), taken: Math.trunc(taken[0]) };
  }

  async #afterMask(current, given) {
    const name = this.tensors.previous;
    if (name === null) {
      throw new Failure(
        "SessionError",
        "a mask was put in, and the network takes no previous mask",
        "a network that takes its previous mask",
        "use clicks alone",
      );
    }
    let seen = given.previous;
    if (this.contract.memory === "labels") {
      const clicks = current.interactions.filter((one) => one.kind === "click");
      seen = labelsOfMask(given.previous, clicks, this.size, this.clicks.answer_size, this.contract);
    } else if (this.logits) {
      seen = givenLogits(given.previous);
    }
    const state = new Map(current.state).set(name, this.stage.upload(name, seen));
    return { interactions: [...current.interactions, given], state, answer: null, candidates: null };
  }

  async #afterChoice(current, choice) {
    const candidates = this.#chosen(current, choice.index);
    const numbers = checkedAnswer(taken(candidates), this.logits);
    const state = new Map(current.state);
    this.#feedBack(state, numbers);
    return { interactions: [...current.interactions, choice], state, answer: null, candidates };
  }

  #chosen(current, index) {
    const given = `answer ${index} was chosen`;
    const found = current.candidates;
    if (found === null) {
      throw this.#nothingToChoose(current, given);
    }
    const last = found.scores.length - 1;
    if (!Number.isSafeInteger(index) || index < 0 || index > last) {
      throw new Failure("ChoiceError", given, `one from 0 to ${last}`, `pass 0 to ${last}, its place among them`);
    }
    return { ...found, taken: index };
  }

  #nothingToChoose(current, given) {
    if (this.count === 1) {
      const expected = "a network that gives several, such as SAM 2";
      return new Failure("ChoiceError", `${given}, and the network gives one answer to a click`, expected, "click on");
    }
    const expected = "a choice among the answers to a click";
    return current.interactions.some((one) => one.kind === "click")
      ? new Failure("ChoiceError", `${given} after a mask was put in`, expected, "undo it, or click again")
      : new Failure("ChoiceError", `${given} before a click`, "a click, and then a choice", "click first");
  }

  /** Put an answer into the state as the previous mask, where the network takes one. */
  #feedBack(state, numbers) {
    const fed = this.tensors.previous;
    if (fed === null) {
      return;
    }
    const [height, width] = this.clicks.answer_size;
    const { mask_resize: up, previous_resize: down } = this.contract;
    const plane = { height, width, numbers };
    const seen = down === null ? Float32Array.from(numbers) : throughImage(plane, this.size, up, down).numbers;
    state.set(fed, this.stage.upload(fed, seen));
  }

  /**
   * Return a snapshot's newest answer at its own resolution.
   *
   * @param {Snapshot} snapshot
   * @returns {Promise<{numbers: Float32Array, logits: boolean}>} After a mask it is a probability.
   */
  async answerOf(snapshot) {
    const newest = snapshot.interactions.at(-1);
    if (newest === undefined) {
      return { numbers: new Float32Array(this.clicks.answer_size[0] * this.clicks.answer_size[1]), logits: false };
    }
    if (newest.kind === "mask") {
      return { numbers: newest.previous, logits: false };
    }
    const numbers = snapshot.answer === null ? taken(snapshot.candidates) : await this.stage.numbers(snapshot.answer);
    return { numbers, logits: this.logits };
  }

  /**
   * Return a snapshot's mask.
   *
   * @param {Snapshot} snapshot
   * @returns {Promise<import("./masks.js").Mask>}
   */
  async maskOf(snapshot) {
    const newest = snapshot.interactions.at(-1);
    if (newest === undefined) {
      return EMPTY;
    }
    if (newest.kind === "mask") {
      return newest.mask;
    }
    const { numbers, logits } = await this.answerOf(snapshot);
    const [height, width] = this.clicks.answer_size;
    return maskOf(aboveThreshold({ height, width, numbers }, logits, this.size, this.contract), this.size);
  }
}

/** Return the answer that is taken. @param {Candidates} candidates @returns {Float32Array} */
function taken({ numbers, scores, taken: place }) {
  const length = numbers.length / scores.length;
  return numbers.subarray(place * length, (place + 1) * length);
}

/** Return the tensors that a snapshot holds. @param {Snapshot} snapshot @returns {any[]} */
export function tensorsOf(snapshot) {
  return snapshot.answer === null ? [...snapshot.state.values()] : [...snapshot.state.values(), snapshot.answer];
}
