// The page's session on the server: opens it, sends pictures, and opens another one where it is gone. The server frees
// idle sessions, and may be started again; the page then sends the picture again and restores the annotation.

import { ServerAnswers } from "./server_answers.js";
import { AnswerError } from "./answers.js";
import { labelPng } from "./saving/saving.js";
import { banner, notice, showError } from "./messages.js";

const RETRY_MS = [500, 1000, 2000, 3000, 5000];
/** Whether an error says that the session is not there any more. */
export const isGone = (error) => error?.kind === "LostError" || error?.kind === "UnknownSessionError";
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** One session on the server. */
export class Link {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./annotating.js").Annotating} annotating
   * @param {any} api Of api.js.
   */
  constructor(state, annotating, api) {
    Object.assign(this, { state, annotating, api });
    this.session = null;
    /** @type {ServerAnswers | null} */
    this.answers = null;
    this.returning = null;
    /** Modalities that came after the picture. @type {Object<string, File>} */
    this.later = {};
    window.addEventListener("pagehide", () => this.leave());
    // A page that comes back from the browser's cache has no session any more.
    window.addEventListener(
      "pageshow",
      (event) => event.persisted && this.state.picture && this.gone({ kind: "UnknownSessionError" }),
    );
  }

  /** The session is freed with the page, not only when it was idle for long. */
  leave() {
    if (this.session !== null) this.api.leaveSession(this.session);
  }

  async open() {
    if (this.session === null) this.session = await this.api.openSession();
    return this.session;
  }

  /**
   * Lets the server compute a picture's features.
   * @param {import("./state.js").Entry} entry
   * @param {(text: string, share: number | null) => void} progress
   * @returns {Promise<{size: [number, number], name: string, layers: string[], milliseconds: number, annotation: any}>}
   */
  async send(entry, progress) {
    for (let tries = 0; ; tries += 1) {
      const session = await this.open();
      try {
        const opened = await this.sendTo(session, entry, progress);
        if (this.answers === null) await this.connect(session);
        return opened;
      } catch (error) {
        if (error?.kind !== "UnknownSessionError" || tries > 0) throw error;
        this.drop();
      }
    }
  }

  async sendTo(session, entry, progress) {
    const computing = "Computing the picture's features…";
    if (entry.kind === "server") {
      progress(computing, null);
      return this.api.openImage(session, entry.id);
    }
    const files = { image: entry.image, ...entry.modalities };
    this.check(Object.values(files));
    progress("Uploading", 0);
    const onprogress = (share) => (share < 1 ? progress("Uploading", share) : progress(computing, null));
    return this.api.putImage(session, files, { onprogress });
  }

  /**
   * Refuses files that are too large: a server stops reading them, which looks as if it were gone.
   * @param {File[]} files
   */
  check(files) {
    const most = this.state.model.limits?.upload_bytes ?? Infinity;
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    if (bytes <= most) return;
    const megabytes = (number) => `${(number / 2 ** 20).toFixed(1)} MB`;
    throw new AnswerError({
      kind: "TooLargeError",
      given: `${files[0].name} has ${megabytes(bytes)}`,
      expected: `at most ${megabytes(most)}`,
      fix: "open a smaller file",
    });
  }

  async connect(session) {
    const answers = await ServerAnswers.open(this.api, session);
    answers.onlost = (reason) => this.answers === answers && this.broken(reason);
    // A label map is sent as the file that the page would save, because the live socket is for clicks.
    answers.setLabels = async (labels, byName) => {
      const { width, height } = this.state.picture;
      const names = new Map(Object.entries(byName).map(([name, label]) => [label, name]));
      await this.api.putLabels(session, await labelPng({ labels, width, height, names }));
      return answers.state();
    };
    this.answers = answers;
  }

  /** Answers of a session that is there. @returns {Promise<ServerAnswers>} */
  async ready() {
    if (this.returning) await this.returning;
    try {
      await this.answers.state();
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.gone(error);
    }
    return this.answers;
  }

  /**
   * Makes a call over HTTP about the session, once more where it was gone.
   * @template T
   * @param {(session: string) => Promise<T>} call
   * @returns {Promise<T>}
   */
  async about(call) {
    if (this.returning) await this.returning;
    try {
      return await call(this.session);
    } catch (error) {
      if (!isGone(error)) throw error;
      await this.gone(error);
      return call(this.session);
    }
  }

  /** Forgets a session that is gone. */
  drop() {
    const { answers } = this;
    this.answers = null;
    this.session = null;
    answers?.close();
  }

  /**
   * The connection broke. Where the server is there, it has freed the idle session: the next call opens another one, so
   * that a page that is only left open costs nothing.
   * @param {any} reason
   */
  async broken(reason) {
    if (reason?.kind === "UnknownSessionError") return;
    try {
      await this.api.json("GET", "health");
    } catch (error) {
      this.gone(error);
    }
  }

  /**
   * Opens another session and brings the picture and the annotation there; tries until it is there.
   * @param {any} error That told of it.
   */
  gone(error) {
    this.returning ??= this.comeBack(error).finally(() => (this.returning = null));
    return this.returning;
  }

  async comeBack(error) {
    const freed = error?.kind === "UnknownSessionError";
    const old = this.session;
    this.drop();
    for (let tries = 0; ; tries += 1) {
      try {
        await this.api.json("GET", "health");
        if (!freed && old !== null && tries === 0) this.api.leaveSession(old);
        await this.again();
        break;
      } catch (failure) {
        this.drop();
        if (!isGone(failure)) showError(failure);
        if (!this.state.lost) this.tell(true);
        await wait(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
      }
    }
    const waited = this.state.lost;
    if (waited) this.tell(false);
    notice(
      waited
        ? "The server is back, and your annotation with it."
        : "The server had freed the session. It is open again, with your annotation.",
    );
  }

  async again() {
    const { picture } = this.state;
    await this.open();
    if (picture === null) return;
    await this.send(picture.entry, () => {});
    if (Object.keys(this.later).length > 0) await this.api.putModalities(this.session, this.later);
    if (this.state.picture !== picture || this.state.mode === "browser") return;
    await this.annotating.carryTo(this.answers);
  }

  tell(lost) {
    this.state.lost = lost;
    const meanwhile =
      this.state.mode === "browser" ? " Clicks run in this browser meanwhile." : " Clicks wait until it does.";
    banner(lost ? `The server does not answer. Trying again…${meanwhile}` : null);
    this.state.emit("lost");
  }
}
