// Who answers clicks: the server, or this browser. The server is there at once; the browser is made ready when the user
// chooses it, or chose it before. Why it cannot be used is always shown.

import { byId } from "./elements.js";
import { recall, remember } from "./kept.js";
import { notice, showError } from "./messages.js";

/** The switch between both. */
export class Mode {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./annotating.js").Annotating} annotating
   * @param {{link: import("./link.js").Link | null, openBrowser: () => Promise<any>,
   *   offer: () => Promise<{available: boolean, why?: string}>}} how ``link`` is null in a static export;
   *   ``openBrowser`` makes a BrowserAnswers of the open picture; ``offer`` says whether there can be one.
   */
  constructor(state, annotating, how) {
    Object.assign(this, { state, annotating, how });
    this.wanted = how.link === null ? "browser" : (recall("mode") ?? "server");
    /** BrowserAnswers of the open picture, or what makes it ready. */
    this.browser = null;
    this.getting = null;
    /** Why clicks do not run in the browser, or "". */
    this.why = "";
    /** Whether that is because the server has nothing for a browser, which is no fault of this one. */
    this.refused = false;
    this.switching = false;
    this.restarts = 0;
    byId("mode-server").addEventListener("click", () => this.choose("server"));
    byId("mode-browser").addEventListener("click", () => this.choose("browser"));
    for (const event of ["mode", "picture", "lost"]) state.on(event, () => this.draw());
    this.draw();
  }

  /** Forgets the browser's features of the picture before, and lets answer whom the user chose. */
  begin() {
    this.end();
    const { picture } = this.state;
    if (this.how.link === null || this.wanted === "browser") return this.choose(this.wanted);
    return this.look(picture);
  }

  /** Asks whether the browser may answer, so that a reason is shown before it is chosen. Nothing is loaded for it yet. */
  async look(picture) {
    const offered = await this.how.offer().catch(() => null);
    if (offered && !offered.available && this.state.picture === picture) await this.ready().catch(() => {});
  }

  end() {
    const { browser } = this;
    this.browser = null;
    this.getting = null;
    browser?.close();
  }

  /** Makes the browser ready for the open picture. @returns {Promise<any>} A BrowserAnswers. */
  ready() {
    if (this.browser) return Promise.resolve(this.browser);
    this.getting ??= this.get();
    return this.getting;
  }

  async get() {
    const { picture } = this.state;
    try {
      const offered = await this.how.offer();
      if (!offered.available) throw Object.assign(new Error(offered.why), { given: offered.why, kind: "NotOffered" });
      const answers = await this.how.openBrowser();
      if (this.state.picture !== picture) {
        answers.close();
        throw new Error("Another picture was opened.");
      }
      answers.onlost = () => this.lost(answers);
      answers.onengine = (engine) => {
        notice(
          `In this browser, ${engine.device ?? "another device"} goes on: ${engine.reason ?? "the one before failed"}.`,
          { seconds: 15 },
        );
        this.state.emit("mode");
      };
      this.browser = answers;
      this.why = "";
      return answers;
    } catch (error) {
      if (this.state.picture === picture) {
        this.refused = error?.kind === "NotOffered";
        const why = `${error?.given ?? error?.message ?? error}`;
        this.why = this.refused ? why : `This browser cannot answer clicks: ${why}`;
        if (!this.refused) this.getting = null;
      }
      throw error;
    } finally {
      this.draw();
    }
  }

  /** The browser's worker ended: the server goes on. */
  lost(answers) {
    if (this.browser !== answers) return;
    this.end();
    this.why = "The click stage in this browser ended unexpectedly.";
    if (this.state.mode === "browser") {
      this.state.mode = null;
      this.restarts += 1;
      if (this.how.link !== null) this.choose("server", false);
      else if (this.restarts <= 3) this.choose("browser", false);
    }
    this.draw();
  }

  /**
   * Lets the server or the browser answer, and carries the annotation over.
   * @param {"server" | "browser"} where
   * @param {boolean} [byUser] Whether it is remembered.
   */
  async choose(where, byUser = true) {
    if (byUser && this.how.link !== null) remember("mode", (this.wanted = where));
    const { picture } = this.state;
    if (picture === null || this.switching || this.state.mode === where) return;
    this.switching = true;
    this.draw();
    try {
      if (where === "browser") await this.ready();
      if (this.state.picture !== picture) return;
      await this.annotating.hold(async () => {
        // What is fetched now has all calls in it that were made before.
        await this.annotating.fetch();
        const answers = where === "browser" ? this.browser : await this.how.link.ready();
        if (this.state.picture === picture && answers) await this.annotating.carryTo(answers);
      });
    } catch (error) {
      if (this.state.picture !== picture) return;
      if (this.how.link === null) showError(error);
      else if (where === "browser") notice(`Clicks run on the server. ${this.why}`);
      else showError(error);
    } finally {
      this.switching = false;
      this.draw();
    }
  }

  draw() {
    const { mode, picture } = this.state;
    const server = byId("mode-server");
    const browser = byId("mode-browser");
    server.disabled = this.how.link === null || picture === null || this.state.lost;
    browser.disabled = picture === null || (this.why !== "" && this.getting !== null && this.browser === null);
    server.setAttribute("aria-pressed", String(mode === "server"));
    browser.setAttribute("aria-pressed", String(mode === "browser"));
    browser.textContent =
      this.switching && mode !== "browser" && this.browser === null ? "Getting ready…" : "In this browser";
    const why = this.how.link === null && !this.why ? "This is a static export: there is no server." : this.why;
    byId("run-why").hidden = why === "";
    byId("run-why").textContent = why;
    byId("run-why").classList.toggle("wrong", why !== "" && why === this.why && !this.refused);
  }
}
