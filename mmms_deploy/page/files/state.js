// The page's state: one plain object that every module reads, and events that say which part of it changed.

/**
 * @typedef {{name: string, label: number, clicks: [number, number, number][], area: number,
 *   box: [number, number, number, number] | null}} Surface An object of the picture.
 * @typedef {{surfaces: Surface[], surface: string, can_undo: boolean, can_redo: boolean,
 *   candidates: {score: number, taken: boolean}[], timings: Object<string, number | null>, where: string,
 *   changed: {x: number, y: number, width: number, height: number} | null, labels: Uint16Array}} Answer
 * @typedef {{kind: "server", name: string, id: number, annotated: boolean}
 *   | {kind: "files", name: string, image: File, modalities: Object<string, File>, annotated: boolean}} Entry
 *   A picture of the list: one of the server, or files of the user.
 * @typedef {{name: string, width: number, height: number, layers: string[], entry: Entry, milliseconds: number | null,
 *   key: string}} Picture The open one; ``key`` is what its annotation is kept under.
 * @typedef {{x: number, y: number, positive: boolean}} Click
 */

/** What events there are: each names the part of the state that changed. */
export const EVENTS = /** @type {const} */ ([
  "model",
  "picture",
  "annotated",
  "answer",
  "view",
  "tool",
  "mode",
  "entries",
  "busy",
  "layer",
  "measured",
  "lost",
]);

/** The state and who listens to it. */
export class State {
  constructor() {
    /** Answer of ``GET model``, or the like from a static export. */
    this.model = null;
    /** @type {Picture | null} */
    this.picture = null;
    /** @type {Answer | null} The newest answer. */
    this.answer = null;
    /** @type {Click[]} Clicks that were made and are not answered yet. */
    this.pending = [];
    /** @type {Entry[]} Pictures to go through. */
    this.entries = [];
    /** Which of the layers is seen. */
    this.layer = "image";
    /** Labels of the objects that are not drawn. @type {Set<number>} */
    this.hidden = new Set();
    this.view = { opacity: 0.45, outline: true, markers: true, confidence: false };
    /** What a left click does. @type {"add" | "remove" | "pan"} */
    this.tool = "add";
    /** Who answers clicks. @type {"server" | "browser" | null} */
    this.mode = null;
    /** What the page is waiting for, in words, and how far it is (0 to 1) where that is known. */
    this.busy = /** @type {{text: string, share: number | null} | null} */ (null);
    /** The last click, measured. */
    this.measured = null;
    /** Whether there is work that neither a file nor the server has. */
    this.unsaved = false;
    this.lost = false;
    this.listeners = new Map();
  }

  /**
   * Calls a function whenever a part of the state changed.
   * @param {string} event One of EVENTS.
   * @param {() => void} listener
   */
  on(event, listener) {
    if (!EVENTS.includes(/** @type {any} */ (event))) throw new Error(`There is no event ${event}.`);
    if (!this.listeners.has(event)) this.listeners.set(event, []);
    this.listeners.get(event).push(listener);
  }

  /** @param {string} event */
  emit(event) {
    for (const listener of this.listeners.get(event) ?? []) listener();
  }

  /** The current object, or null. @returns {Surface | null} */
  get current() {
    return this.answer?.surfaces.find((one) => one.name === this.answer.surface) ?? null;
  }
}
