/**
 * A session in the browser: what mmms_deploy.session.Session does with several objects, each with its own history.
 *
 * Every call builds new objects, and assigns them at its end: an error leaves everything as it was. Calls must not
 * overlap; the worker makes one after the other.
 *
 * @typedef {import("./masks.js").Mask} Mask
 * @typedef {{label: number, history: History, changed: number, mask: Mask}} Surface  Its number in the label map, its
 *     history, when it changed last (0 for never), and its mask.
 * @typedef {{all: Map<string, Surface>, name: string, given: number, changes: number}} Surfaces  Oldest first, the
 *     name of the current one, how many labels were given, and how many changes there were.
 */

import { Failure } from "./failures.js";
import { inSteps, previousOf } from "./forms.js";
import { History } from "./history.js";
import { LabelMap } from "./label_map.js";
import { EMPTY, maskOf } from "./masks.js";
import { GREATEST, checkedAnnotation, checkedClick, checkedName, interactionsOf, saved } from "./saved.js";
import { Snapshots, tensorsOf } from "./snapshots.js";

const FIRST = "1";
/** Of a call that answers no click. */
const NO_TIMINGS = Object.freeze({ engine: null, mask: null, total: null, compile: null });
/** The most objects of a label map that is loaded. */
const MOST = 1000;

/** Answers the clicks on one image. */
export class LocalSession {
  #snapshots;
  #blank;
  /** @type {Surfaces} */
  #surfaces;
  #map;

  /**
   * @param {any} clicks What the page's model says of the click stage.
   * @param {[number, number]} size (H0, W0) of the image.
   * @param {any} stage See snapshots.js.
   */
  constructor(clicks, size, stage) {
    this.clicks = clicks;
    this.size = size;
    this.#snapshots = new Snapshots(clicks, size, stage);
    this.#blank = this.#snapshots.blank();
    this.#surfaces = this.#first();
    this.#map = new LabelMap(size);
  }

  #first() {
    return { all: new Map([[FIRST, this.#surface(1)]]), name: FIRST, given: 1, changes: 0 };
  }

  #surface(label) {
    return { label, history: new History(this.#blank, this.clicks.history_limit), changed: 0, mask: EMPTY };
  }

  get #current() {
    return this.#surfaces.all.get(this.#surfaces.name);
  }

  // --- calls --------------------------------------------------------------------------------------------------------

  click(x, y, positive = true) {
    return this.#take(checkedClick(x, y, positive, this.size));
  }

  choose(index) {
    return this.#take({ kind: "choice", index });
  }

  async #take(interaction) {
    const start = performance.now();
    const { history } = this.#current;
    const snapshot = await this.#snapshots.after(history.current, interaction);
    const answered = performance.now();
    return this.#change(history.push(snapshot), start, answered);
  }

  undo() {
    const start = performance.now();
    return this.#change(this.#current.history.undo(), start, start);
  }

  redo() {
    const start = performance.now();
    return this.#change(this.#current.history.redo(), start, start);
  }

  /** Assign another history of the current object. */
  async #change(history, start, answered) {
    const mask = await this.#snapshots.maskOf(history.current);
    const masked = performance.now();
    this.#assign(this.#changed(history, mask));
    const answer = this.#answer();
    const total = performance.now() - start;
    return { ...answer, timings: { engine: answered - start, mask: masked - answered, total, compile: 0 } };
  }

  #changed(history, mask) {
    const { all, name, changes } = this.#surfaces;
    const { label } = this.#current;
    const surface = { label, history, changed: changes + 1, mask };
    return { ...this.#surfaces, all: new Map(all).set(name, surface), changes: changes + 1 };
  }

  async reset() {
    this.#assign(this.#changed(new History(this.#blank, this.clicks.history_limit), EMPTY));
    return this.#answer();
  }

  async select(name) {
    checkedName(name);
    const { all, given } = this.#surfaces;
    const known = all.get(name);
    if (known === undefined) {
      if (given >= GREATEST) {
        const fix = "save these, and open the image again";
        throw new Failure("SurfaceError", `surface '${name}' after ${given} others`, `at most ${GREATEST}`, fix);
      }
      const surface = this.#surface(given + 1);
      this.#assign({ ...this.#surfaces, name, all: new Map(all).set(name, surface), given: given + 1 });
      return this.#answer();
    }
    const surface = known === this.#current ? known : await this.#rest(known);
    this.#assign({ ...this.#surfaces, name, all: new Map(all).set(name, surface) });
    return this.#answer();
  }

  /** Put in what is left of an object's mask, where others took pixels from it; its place among changes stays. */
  async #rest(known) {
    if (this.clicks.tensors.previous === null || this.#map.hasAll(known.label, known.mask)) {
      return known;
    }
    const pixels = this.#map.pixelsOf(known.label);
    const snapshot = await this.#snapshots.after(known.history.current, this.#maskInput(pixels));
    return { ...known, history: known.history.push(snapshot), mask: await this.#snapshots.maskOf(snapshot) };
  }

  #maskInput(pixels) {
    const previous = previousOf(pixels, this.size, this.clicks.answer_size, this.clicks.contract);
    return { kind: "mask", mask: maskOf(pixels, this.size), previous, binary: true };
  }

  async remove(name) {
    this.#checkKnown(checkedName(name));
    const all = new Map(this.#surfaces.all);
    all.delete(name);
    if (name !== this.#surfaces.name) {
      this.#assign({ ...this.#surfaces, all });
      return this.#answer();
    }
    let next = null;
    for (const [other, { changed }] of all) {
      next = next === null || changed > all.get(next).changed ? other : next;
    }
    let { given } = this.#surfaces;
    if (next === null) {
      given += 1;
      next = FIRST;
      all.set(FIRST, this.#surface(given));
    }
    this.#assign({ ...this.#surfaces, all, name: next, given });
    return this.#answer();
  }

  async rename(name, to) {
    this.#checkKnown(checkedName(name));
    checkedName(to);
    const { all } = this.#surfaces;
    if (to !== name && all.has(to)) {
      throw new Failure(
        "SurfaceError",
        `surface '${name}' was renamed to '${to}', the name of another one`,
        `a name that is none of ${this.#names()}`,
        "choose another name, or remove the other surface first",
      );
    }
    const renamed = new Map([...all].map(([other, surface]) => [other === name ? to : other, surface]));
    const current = this.#surfaces.name === name ? to : this.#surfaces.name;
    this.#assign({ ...this.#surfaces, all: renamed, name: current });
    return this.#answer();
  }

  #checkKnown(name) {
    if (!this.#surfaces.all.has(name)) {
      throw new Failure("SurfaceError", `surface '${name}'`, `one of ${this.#names()}`, "check its name");
    }
  }

  #names() {
    return [...this.#surfaces.all.keys()].map((name) => `'${name}'`).join(", ");
  }

  async restore(annotation) {
    const found = checkedAnnotation(annotation, this.size);
    const { answer_size: network, contract, history_limit: limit } = this.clicks;
    const given = new Map();
    for (const surface of found.surfaces) {
      given.set(surface.name, await interactionsOf(surface, this.size, network, contract));
    }
    const all = new Map();
    for (const { name, label, changed, undone, interactions } of found.surfaces) {
      const whole = await this.#replayed(given.get(name));
      const history = whole.at(interactions.length - undone).limited(limit);
      all.set(name, { label, history, changed, mask: await this.#snapshots.maskOf(history.current) });
    }
    const changes = Math.max(...[...all.values()].map((surface) => surface.changed));
    this.#assign({ all, name: found.surface, given: found.labels_given, changes });
    return this.#answer(true);
  }

  async #replayed(interactions) {
    let history = new History(this.#blank, null);
    for (const interaction of interactions) {
      history = history.push(await this.#snapshots.after(history.current, interaction));
    }
    return history;
  }

  /**
   * Put the objects of a label map in the place of all others; the network does not run.
   *
   * @param {Uint16Array} labels H0 * W0.
   * @param {Record<string, number>} names The label of every name; a label without one is called by its number.
   */
  async setLabels(labels, names = {}) {
    if (labels.length !== this.size[0] * this.size[1]) {
      const expected = `${this.size[0]} rows and ${this.size[1]} columns, like the image`;
      const fix = "open the labels of this image";
      throw new Failure("MaskInputError", `there are ${labels.length} labels`, expected, fix);
    }
    const named = namedLabels(labels, names);
    const all = new Map();
    for (const [name, label] of named) {
      const pixels = Uint8Array.from(labels, (one) => (one === label ? 1 : 0));
      let history = new History(this.#blank, this.clicks.history_limit);
      if (pixels.includes(1)) {
        history = history.push(await this.#snapshots.after(this.#blank, this.#maskInput(pixels)));
      }
      const mask = await this.#snapshots.maskOf(history.current);
      all.set(name, { label, history, changed: history.past.length ? all.size + 1 : 0, mask });
    }
    const given = Math.max(...[...all.values()].map((surface) => surface.label));
    this.#assign(all.size ? { all, name: named[0][0], given, changes: all.size } : this.#first());
    return this.#answer(true);
  }

  async state() {
    return this.#answer(true);
  }

  annotation() {
    return saved(this.#surfaces, this.size, this.clicks.answer_size, this.clicks.contract);
  }

  /** @returns {Promise<{size: [number, number], data: Uint8Array}>} round(255 p) of the current object. */
  async probability() {
    const { numbers, logits } = await this.#snapshots.answerOf(this.#current.history.current);
    return { size: [...this.clicks.answer_size], data: inSteps(numbers, logits) };
  }

  /** @returns {Promise<{size: [number, number], count: number, data: Uint8Array}>} The same of all answers. */
  async candidates() {
    const found = this.#current.history.current.candidates;
    const data = found === null ? new Uint8Array(0) : inSteps(found.numbers, this.#snapshots.logits);
    return { size: [...this.clicks.answer_size], count: found === null ? 0 : found.scores.length, data };
  }

  /**
   * Go on with another stage: all interactions are answered again, undone ones included.
   *
   * @param {any} stage
   */
  async moveTo(stage) {
    this.#snapshots = new Snapshots(this.clicks, this.size, stage);
    this.#blank = this.#snapshots.blank();
    const all = new Map();
    for (const [name, surface] of this.#surfaces.all) {
      const { newest, current, past, limit } = surface.history;
      const { line } = await this.#replayed(newest.interactions);
      const place = current.interactions.length;
      const before = line.slice(place - past.length, place);
      const history = new History(line[place], limit, before, line.slice(place + 1).reverse());
      all.set(name, { ...surface, history, mask: await this.#snapshots.maskOf(history.current) });
    }
    this.#assign({ ...this.#surfaces, all });
  }

  // --- answers ------------------------------------------------------------------------------------------------------

  #assign(surfaces) {
    this.#surfaces = surfaces;
    const reached = new Set(tensorsOf(this.#blank));
    for (const { history } of surfaces.all.values()) {
      for (const snapshot of history.line) {
        tensorsOf(snapshot).forEach((tensor) => reached.add(tensor));
      }
    }
    this.#snapshots.stage.keep(reached);
  }

  #answer(whole = false) {
    const { all, name } = this.#surfaces;
    const layers = [...all.values()].filter(({ changed }) => changed).sort((one, other) => one.changed - other.changed);
    const painted = this.#map.paint(layers);
    const changed = whole ? { x: 0, y: 0, width: this.size[1], height: this.size[0] } : painted;
    const extents = this.#map.extents();
    const surfaces = [...all].map(([title, { label, history }]) => ({
      name: title,
      label,
      clicks: history.current.interactions
        .filter((one) => one.kind === "click")
        .map((one) => [one.x, one.y, one.positive ? 1 : 0]),
      area: extents.get(label)?.area ?? 0,
      box: extents.get(label)?.box ?? null,
    }));
    const { history } = this.#current;
    const { candidates } = history.current;
    return {
      surfaces,
      surface: name,
      can_undo: history.past.length > 0,
      can_redo: history.future.length > 0,
      candidates: (candidates?.scores ?? []).map((score, i) => ({ score, taken: i === candidates.taken })),
      timings: NO_TIMINGS,
      where: "browser",
      changed,
      labels: changed === null ? new Uint16Array(0) : this.#map.within(changed),
    };
  }
}

/** Return a name for every label of a map, smallest label first. @returns {[string, number][]} */
function namedLabels(labels, names) {
  const present = new Uint8Array(GREATEST + 1);
  for (const label of labels) {
    present[label] = 1;
  }
  const named = new Map(Object.entries(names));
  const known = new Set(named.values());
  for (let label = 1; label <= GREATEST; label += 1) {
    if (present[label] && !known.has(label)) {
      let name = String(label);
      while (named.has(name)) {
        name += "'";
      }
      named.set(name, label);
    }
  }
  if (known.size < Object.keys(names).length || named.size > MOST) {
    throw new Failure(
      "AnnotationError",
      `there are ${named.size} labels, and ${known.size} labels with a name`,
      `at most ${MOST} objects, each with a name of its own`,
      "check that these are labels, one number for every object",
    );
  }
  return [...named].sort((one, other) => one[1] - other[1]);
}
