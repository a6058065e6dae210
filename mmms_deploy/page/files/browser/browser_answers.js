/**
 * Answers clicks in the browser, without a server: the same methods as ServerAnswers, on a worker of its own.
 *
 * @typedef {import("./engine.js").EngineInfo} EngineInfo
 */

import { AnswerError } from "../answers.js";

/** How long a worker waits for another image, in milliseconds, before it is ended. */
const PATIENCE = 30000;
/** A worker whose image was closed, with the runtime and the click stage in it, and what these are. */
let spare = null;

/** Clicks on one image. Calls may overlap; they are answered in their order. */
export class BrowserAnswers {
  where = "browser";
  /** @type {EngineInfo} What runs; it changes where a device fails and another one takes over. */
  engine = null;
  /** Called when the worker is gone. */
  onlost = () => {};
  /** Called with the new engine when another one took over. */
  onengine = () => {};

  #worker;
  #kind;
  #waiting = new Map();
  #calls = 0;
  #lost = null;

  /**
   * Load the click stage, take an image's features, and run one click that is not kept, to see that it works. The
   * worker of an image that was closed just before is taken, where it has the same click stage: that takes no time.
   *
   * @param {object} options
   * @param {any} options.model The server's or static.json's model.
   * @param {ArrayBuffer} options.features features.bin; it is handed over, and unusable afterwards.
   * @param {[number, number]} [options.size] (H0, W0) of the image, to be compared with the features'.
   * @param {string|URL} options.runtimeUrl The folder of onnxruntime-web's files, with a slash at its end.
   * @param {string|URL} options.modelUrl The folder of the model's files, with a slash at its end.
   * @param {Record<string, string>} [options.headers] What requests for the model's files carry, such as a token.
   * @param {"auto"|"wasm"|"webgpu"} [options.device]
   * @param {number} [options.threads] Threads of WebAssembly; the cores of this machine, at most 4, by default.
   * @returns {Promise<BrowserAnswers>}
   * @throws {AnswerError} Nothing in this browser runs the click stage.
   */
  static async open({ model, features, size, runtimeUrl, modelUrl, device = "auto", ...others }) {
    const places = {
      runtimeUrl: new URL(runtimeUrl, document.baseURI).href,
      modelUrl: new URL(modelUrl, document.baseURI).href,
    };
    if (!model.available) {
      throw new AnswerError({ kind: "EngineError", given: model.why, expected: "", fix: "click on the server" });
    }
    const answers = new BrowserAnswers(JSON.stringify([model, device, places, others]));
    try {
      await answers.#call("open", [{ model, features, size, device, ...places, ...others }], [features]);
    } catch (error) {
      answers.close();
      throw error;
    }
    return answers;
  }

  /** Use BrowserAnswers.open. @param {string} kind What the worker loads, to be compared with what a spare one has. */
  constructor(kind) {
    this.#kind = kind;
    this.#worker = takenSpare(kind) ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => this.#lose(event.message || "the worker cannot be loaded");
    this.#worker.onmessageerror = () => this.#lose("the worker's answer cannot be read");
  }

  click(x, y, positive = true) {
    return this.#call("click", [x, y, positive]);
  }

  undo() {
    return this.#call("undo");
  }

  redo() {
    return this.#call("redo");
  }

  reset() {
    return this.#call("reset");
  }

  select(name) {
    return this.#call("select", [name]);
  }

  remove(name) {
    return this.#call("remove", [name]);
  }

  rename(name, to) {
    return this.#call("rename", [name, to]);
  }

  /** Take another one of several answers to the newest click. @param {number} index */
  choose(index) {
    return this.#call("choose", [index]);
  }

  /** Put an annotation in the place of all objects. @param {object} annotation Of Session.to_dict() or annotation(). */
  restore(annotation) {
    return this.#call("restore", [annotation]);
  }

  state() {
    return this.#call("state");
  }

  /**
   * Put the objects of a label map in the place of all others.
   *
   * @param {Uint16Array} labels H0 * W0, row by row; 0 is background.
   * @param {Record<string, number>} [names] The label of every name.
   */
  setLabels(labels, names = {}) {
    return this.#call("setLabels", [labels, names]);
  }

  /** @returns {Promise<object>} The annotation in the form of Session.to_dict(). */
  annotation() {
    return this.#call("annotation");
  }

  /** @returns {Promise<{size: [number, number], data: Uint8Array}>} round(255 p) at the network's resolution. */
  probability() {
    return this.#call("probability");
  }

  /** @returns {Promise<{size: [number, number], count: number, data: Uint8Array}>} The same of all answers. */
  candidates() {
    return this.#call("candidates");
  }

  /** Free everything but the worker, which waits a while for another image; one that is at work is ended. */
  close() {
    const idle = this.#lost === null && this.engine !== null && this.#waiting.size === 0;
    if (idle) {
      keepSpare(this.#worker, this.#kind);
    } else if (this.#lost === null) {
      this.#worker.terminate();
    }
    this.#refuse(this.#lost ?? "it was closed");
  }

  #call(call, args = [], handed = []) {
    if (this.#lost !== null) {
      return Promise.reject(gone(this.#lost));
    }
    return new Promise((resolve, reject) => {
      this.#calls += 1;
      this.#waiting.set(this.#calls, { resolve, reject });
      try {
        this.#worker.postMessage({ id: this.#calls, call, args }, handed);
      } catch (error) {
        this.#waiting.delete(this.#calls);
        reject(new AnswerError({ kind: "SessionError", given: error.message, expected: "plain data", fix: "" }));
      }
    });
  }

  #receive({ id, result, error, engine }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error !== undefined) {
      reject(new AnswerError(error));
      return;
    }
    const before = this.engine;
    this.engine = engine;
    if (before !== null && before.device !== engine.device) {
      this.onengine(engine);
    }
    resolve(result);
  }

  #lose(reason) {
    this.#worker.terminate();
    const first = this.#lost === null;
    this.#refuse(reason);
    if (first) {
      this.onlost();
    }
  }

  #refuse(reason) {
    this.#lost = reason;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    waiting.forEach(({ reject }) => reject(gone(reason)));
  }
}

/** Return the worker that waits, where it is of this kind; one of another kind is ended. */
function takenSpare(kind) {
  const found = spare?.kind === kind ? spare.worker : null;
  if (found === null) {
    endSpare();
  } else {
    clearTimeout(spare.timer);
    spare = null;
  }
  return found;
}

function keepSpare(worker, kind) {
  endSpare();
  worker.onmessage = null;
  worker.onerror = endSpare;
  worker.onmessageerror = endSpare;
  spare = { worker, kind, timer: setTimeout(endSpare, PATIENCE) };
}

function endSpare() {
  if (spare !== null) {
    clearTimeout(spare.timer);
    spare.worker.terminate();
    spare = null;
  }
}

function gone(reason) {
  const given = `the worker that answers clicks is gone: ${reason}`;
  return new AnswerError({ kind: "LostError", given, fix: "click on the server, or open the image again" });
}
