// Makes the calls that change the annotation, in their order, and takes their answers up: the label map is painted at
// once, and the annotation is kept a moment later.

import { several, counted } from "./elements.js";
import { hasWork, keepAnnotation } from "./kept.js";
import { clearErrors, notice, say, showError } from "./messages.js";

const KEEP_AFTER = 40;
/** Calls that leave what would be saved as it is. */
const QUIET = new Set(["state", "select"]);
/** Kinds of errors after which the session has to be opened again. */
const GONE = new Set(["LostError", "UnknownSessionError"]);

/**
 * The part of the picture that a click and a changed box take, in picture pixels.
 * @param {import("./state.js").Click} click
 * @param {{x: number, y: number, width: number, height: number} | null} box
 */
function around({ x, y }, box) {
  if (box === null) return { x, y, width: 1, height: 1 };
  const [left, top] = [Math.min(x, box.x), Math.min(y, box.y)];
  const [right, bottom] = [Math.max(x + 1, box.x + box.width), Math.max(y + 1, box.y + box.height)];
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/** One annotation: that of the open picture. */
export class Annotating {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./painting.js").Painting} painting
   * @param {import("./viewport.js").Viewport} view
   */
  constructor(state, painting, view) {
    this.state = state;
    this.painting = painting;
    this.view = view;
    /** Who answers: a ServerAnswers or a BrowserAnswers. */
    this.answers = null;
    /** The newest annotation that was fetched, and the calls that were answered since. */
    this.annotation = null;
    this.since = [];
    this.timer = 0;
    this.waiting = [];
    /** How many calls are not answered yet. */
    this.calls = 0;
    /** When an answer was painted last. */
    this.drawn = 0;
    /** Calls that are made meanwhile wait for this. @type {Promise<void> | null} */
    this.held = null;
    /** Is told that a session is gone; it opens another one and then calls ``use``. @type {(error: any) => void} */
    this.ongone = () => {};
  }

  /**
   * Lets these answer from now on. Calls that failed because the ones before were gone are made again.
   * @param {any} answers
   */
  use(answers) {
    this.answers = answers;
    this.state.mode = answers?.where ?? null;
    this.state.emit("mode");
    for (const resume of this.waiting.splice(0)) resume();
  }

  /** Begins anew with a picture. @param {import("./state.js").Picture | null} picture */
  begin(picture) {
    clearTimeout(this.timer);
    Object.assign(this.state, { picture, answer: null, pending: [], unsaved: false, measured: null });
    this.state.hidden.clear();
    this.annotation = null;
    this.since = [];
    this.painting.setConfidence(null);
    if (picture) this.painting.begin(picture.width, picture.height);
    for (const resume of this.waiting.splice(0)) resume();
  }

  /**
   * Makes a call of the seam and takes its answer up.
   * @param {string} name Of a method of the answers.
   * @param {any[]} args
   * @param {{settled?: () => void, said?: (answer: import("./state.js").Answer) => string,
   *   made?: import("./state.js").Click | null}} [options] ``settled`` is
   *   called before the answer is painted or the error is shown; ``said`` says what happened; ``made`` is the click.
   * @returns {Promise<import("./state.js").Answer | null>} Null where it failed, which the page has shown then.
   */
  async call(name, args = [], { settled = () => {}, said, made = null } = {}) {
    const picture = this.state.picture;
    this.calls += 1;
    try {
      if (this.held) await this.held;
      if (this.state.picture !== picture) return null;
      return await this.answered(name, args, picture, { settled, said, made });
    } finally {
      this.calls -= 1;
    }
  }

  async answered(name, args, picture, { settled, said, made }) {
    for (;;) {
      const answers = this.answers;
      if (answers === null) return null;
      let answer;
      try {
        answer = await answers[name](...args);
      } catch (error) {
        if (this.state.picture !== picture) return null;
        if (GONE.has(error?.kind)) {
          if (this.answers === answers) await this.gone(error);
          if (this.state.picture !== picture) return null;
          continue;
        }
        settled();
        showError(error);
        this.view.plan();
        return null;
      }
      if (this.state.picture !== picture) return null;
      settled();
      this.since.push([name, args]);
      clearErrors();
      this.take(answer, made);
      if (said) say(said(answer));
      if (!QUIET.has(name)) this.state.unsaved = true;
      this.keepSoon();
      return answer;
    }
  }

  gone(error) {
    return /** @type {Promise<void>} */ (
      new Promise((resume) => {
        this.waiting.push(resume);
        // A worker of this browser that ended is the mode's business, which takes other answers.
        if (this.answers?.where !== "browser") this.ongone(error);
      })
    );
  }

  /**
   * Does something while the calls that are made wait.
   * @param {() => Promise<any>} what
   */
  async hold(what) {
    while (this.held) await this.held;
    let release = () => {};
    this.held = new Promise((resolve) => (release = /** @type {any} */ (resolve)));
    try {
      return await what();
    } finally {
      this.held = null;
      release();
    }
  }

  /**
   * Paints an answer.
   * @param {import("./state.js").Answer} answer
   * @param {Click | null} [made] The click that it answers: then nothing is drawn but the click and what changed.
   */
  take(answer, made = null) {
    if (answer.changed) this.painting.change(answer.changed, answer.labels);
    const same = answer.surface === this.state.answer?.surface;
    this.state.answer = answer;
    // Drawn now, not with the screen's next picture: the mask follows the click at once.
    this.view.draw(made && same ? around(made, answer.changed) : null);
    this.drawn = performance.now();
    this.state.emit("answer");
  }

  /**
   * Clicks. The click is seen at once; calls made meanwhile are answered in their order.
   * @param {number} x @param {number} y @param {boolean} positive
   */
  async click(x, y, positive) {
    const made = { x, y, positive };
    const begun = performance.now();
    let answered = begun;
    this.state.pending.push(made);
    const settled = () => {
      answered = performance.now();
      this.state.pending = this.state.pending.filter((one) => one !== made);
    };
    const said = ({ surface, surfaces }) => {
      const object = surfaces.find((one) => one.name === surface);
      return `Click ${object.clicks.length} on ${surface}: ${counted(object.area)} pixels`;
    };
    let painted = begun;
    const told = (answer) => {
      painted = this.drawn;
      return said(answer);
    };
    // First it is sent, then it is seen.
    const answering = this.call("click", [x, y, positive], { settled, said: told, made });
    this.view.draw(around(made, null));
    const answer = await answering;
    if (answer === null) return null;
    const { engine = null, mask = null, total = null } = answer.timings;
    this.state.measured = {
      where: answer.where,
      engine,
      mask,
      total: painted - begun,
      painting: painted - answered,
      way: total === null ? null : Math.max(0, answered - begun - total),
    };
    this.state.emit("measured");
    return answer;
  }

  undo() {
    return this.state.answer?.can_undo ? this.call("undo", [], { said: this.stepSaid("Undone") }) : null;
  }

  redo() {
    return this.state.answer?.can_redo ? this.call("redo", [], { said: this.stepSaid("Done again") }) : null;
  }

  stepSaid(what) {
    return (answer) => {
      const object = answer.surfaces.find((one) => one.name === answer.surface);
      const clicks = several(object?.clicks.length ?? 0, "click");
      return `${what}: ${answer.surface} has ${clicks}, ${counted(object?.area ?? 0)} pixels`;
    };
  }

  /** Forgets the clicks on the current object; a notice offers them back. */
  reset() {
    const name = this.state.answer?.surface;
    if (!this.state.current || (this.state.current.clicks.length === 0 && this.state.current.area === 0)) return null;
    return this.regretted(`${name} has no clicks any more.`, "reset", []);
  }

  /** Forgets an object; a notice offers it back. @param {string} name */
  remove(name) {
    return this.regretted(`${name} is deleted.`, "remove", [name]);
  }

  async regretted(text, name, args) {
    const picture = this.state.picture;
    const before = await this.fetch();
    const answer = await this.call(name, args, { said: () => text });
    if (answer === null || before === null) return answer;
    notice(text, { action: "Take back", press: () => this.state.picture === picture && this.restore(before) });
    return answer;
  }

  /** @param {string} name Of an object, there already or new. */
  select(name) {
    const said = (answer) => {
      const object = answer.surfaces.find((one) => one.name === answer.surface);
      return `${name}: ${several(object?.clicks.length ?? 0, "click")}`;
    };
    return this.call("select", [name], { said });
  }

  /** Begins another object, with the first number that is free. */
  add() {
    const taken = new Set((this.state.answer?.surfaces ?? []).map((one) => one.name));
    let number = Math.max(1, taken.size);
    while (taken.has(String(number))) number += 1;
    return this.call("select", [String(number)], { said: () => `New object ${number}` });
  }

  rename(name, to) {
    return this.call("rename", [name, to], { said: () => `${name} is now ${to}` });
  }

  choose(index) {
    return this.call("choose", [index], { said: (answer) => `Candidate ${index + 1} of ${answer.candidates.length}` });
  }

  /** Puts an annotation in the place of this one. @param {any} annotation */
  restore(annotation) {
    return this.call("restore", [annotation], {
      said: (answer) => `${several(answer.surfaces.length, "object")} restored`,
    });
  }

  /** Fetches the annotation and keeps it; null where that failed. */
  async fetch() {
    clearTimeout(this.timer);
    const { picture } = this.state;
    const answers = this.answers;
    if (!picture || !answers) return null;
    this.calls += 1;
    try {
      const annotation = await answers.annotation();
      if (this.state.picture !== picture || this.answers !== answers) return null;
      this.annotation = annotation;
      this.since = [];
      // An empty one does not take the place of what was done before.
      if (this.state.unsaved || hasWork(annotation)) keepAnnotation(picture.key, annotation, !this.state.unsaved);
      return annotation;
    } catch (error) {
      const open = this.answers === answers && this.state.picture === picture;
      if (GONE.has(error?.kind) && open && answers.where === "server") this.ongone(error);
      return null;
    } finally {
      this.calls -= 1;
    }
  }

  keepSoon() {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.fetch(), KEEP_AFTER);
  }

  /** What a file or the server has now needs no keeping. */
  saved() {
    this.state.unsaved = false;
    this.state.emit("answer");
    return this.fetch();
  }

  /**
   * Brings other answers to where these are.
   * @param {any} answers Of the same picture.
   */
  async carryTo(answers) {
    let answer = this.annotation ? await answers.restore(this.annotation) : await answers.state();
    for (const [name, args] of this.since) answer = await answers[name](...args);
    // The label map is asked for whole, whatever the last call changed.
    answer = await answers.state();
    this.use(answers);
    this.take(answer);
    this.keepSoon();
  }
}
