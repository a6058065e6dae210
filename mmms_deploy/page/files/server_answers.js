/**
 * Clicks that the server answers, over its live socket.
 */

import { AnswerError, answerOf, lostError, unframe } from "./answers.js";

const UNKNOWN = 4404;
const WAITS = [100, 200, 400, 800, 1600];

/**
 * A session on the server. Calls are sent at once, and answered in their order. When the connection breaks, the calls
 * that were not answered reject with the kind "LostError", and it is opened again; calls that are made in the meantime
 * wait for it. Only when that fails, or the session is not there any more, `onlost` is called, once.
 */
export class ServerAnswers {
  /**
   * @param {import("./api.js").Api} api
   * @param {string} session
   * @returns {Promise<ServerAnswers>} When the socket is open.
   */
  static async open(api, session) {
    const { engine } = await api.model();
    const answers = new ServerAnswers(api, session, engine);
    await answers.#connect();
    return answers;
  }

  /** Called when the server or the session is gone; its argument is the reason. */
  onlost = () => {};

  where = "server";
  #api;
  #session;
  #socket = null;
  #waiting = [];
  #pending = new Map();
  #next = 1;
  #over = null;
  #timer = 0;

  constructor(api, session, engine) {
    this.#api = api;
    this.#session = session;
    this.engine = engine;
  }

  click(x, y, positive = true) {
    return this.#answer({ do: "click", x, y, positive });
  }

  undo() {
    return this.#answer({ do: "undo" });
  }

  redo() {
    return this.#answer({ do: "redo" });
  }

  reset() {
    return this.#answer({ do: "reset" });
  }

  select(name) {
    return this.#answer({ do: "select", name });
  }

  remove(name) {
    return this.#answer({ do: "remove", name });
  }

  rename(name, to) {
    return this.#answer({ do: "rename", name, to });
  }

  choose(index) {
    return this.#answer({ do: "choose", index });
  }

  restore(annotation) {
    return this.#answer({ do: "restore", annotation });
  }

  state() {
    return this.#answer({ do: "state" });
  }

  /** @returns {Promise<object>} The annotation in the form of Session.to_dict(). */
  async annotation() {
    return (await this.#ask({ do: "annotation" })).header.annotation;
  }

  /** @returns {Promise<{size: [number, number], data: Uint8Array}>} The current object's, at the network's resolution. */
  async probability() {
    const { header, payload } = await this.#ask({ do: "probability" });
    return { size: header.size, data: payload };
  }

  /** @returns {Promise<{size: [number, number], count: number, data: Uint8Array}>} One map after the other. */
  async candidates() {
    const { header, payload } = await this.#ask({ do: "candidates" });
    return { size: header.size, count: header.count, data: payload };
  }

  /** Close the socket; the session stays on the server. Calls that are not answered reject. */
  close() {
    this.#end(lostError("the session was closed in the page"), false);
  }

  async #answer(request) {
    const { header, payload } = await this.#ask(request);
    return answerOf(header.answer, payload);
  }

  /** Send a request, or keep it until the socket is open. */
  #ask(request) {
    if (this.#over) {
      return Promise.reject(this.#over);
    }
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      const text = JSON.stringify({ id, ...request });
      const call = { id, text, resolve, reject };
      if (this.#socket?.readyState === WebSocket.OPEN) {
        this.#send(call);
      } else {
        this.#waiting.push(call);
      }
    });
  }

  #send(call) {
    this.#pending.set(call.id, call);
    this.#socket.send(call.text);
  }

  /** Open the socket; rejects when it cannot be opened. */
  #connect() {
    return new Promise((resolve, reject) => {
      const socket = this.#api.socket(this.#session);
      let opened = false;
      this.#socket = socket;
      socket.onopen = () => {
        opened = true;
        for (const call of this.#waiting.splice(0)) {
          this.#send(call);
        }
        resolve();
      };
      socket.onmessage = (event) => this.#received(event.data);
      socket.onclose = (event) => {
        if (socket !== this.#socket) {
          return;
        }
        if (opened) {
          this.#broken(event.code);
        }
        reject(lostError());
      };
    });
  }

  #received(content) {
    const { header, payload } = unframe(content);
    const call = this.#pending.get(header.id);
    if (!call) {
      return;
    }
    this.#pending.delete(header.id);
    if (header.error) {
      call.reject(new AnswerError(header.error));
    } else {
      call.resolve({ header, payload });
    }
  }

  /** The socket was open, and is closed now. */
  #broken(code) {
    this.#socket = null;
    if (code === UNKNOWN) {
      const gone = { kind: "UnknownSessionError", given: "the session is not there any more", fix: "open a new one" };
      this.#end(new AnswerError(gone), true);
      return;
    }
    // Whether the server did what they asked is not known.
    this.#rejectAll([...this.#pending.values()], lostError());
    this.#pending.clear();
    this.#again(0);
  }

  /** Open the socket again, after a wait that doubles with every time. */
  #again(time) {
    if (time >= WAITS.length) {
      this.#end(lostError(), true);
      return;
    }
    this.#timer = setTimeout(() => {
      this.#connect().catch(() => {
        if (!this.#over && this.#socket?.readyState !== WebSocket.OPEN) {
          this.#again(time + 1);
        }
      });
    }, WAITS[time]);
  }

  #end(reason, lost) {
    if (this.#over) {
      return;
    }
    this.#over = reason;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#rejectAll([...this.#pending.values(), ...this.#waiting.splice(0)], reason);
    this.#pending.clear();
    if (lost) {
      this.onlost(reason);
    }
  }

  #rejectAll(calls, reason) {
    for (const call of calls) {
      call.reject(reason);
    }
  }
}
