// The strip of pictures to go through: those of the server's folder, and those that the user opened.

import { byId, icon, make } from "./elements.js";

/** The strip below the picture. */
export class Folder {
  /**
   * @param {import("./state.js").State} state
   * @param {(entry: import("./state.js").Entry) => void} open
   * @param {(entry: import("./state.js").Entry) => Promise<Blob>} thumbnail
   */
  constructor(state, open, thumbnail) {
    Object.assign(this, { state, open, thumbnail });
    /** Addresses of thumbnails. @type {Map<import("./state.js").Entry, string>} */
    this.addresses = new Map();
    // Only those in sight are fetched.
    this.seen = new IntersectionObserver(
      (changes) => {
        for (const change of changes) if (change.isIntersecting) this.load(/** @type {any} */ (change.target));
      },
      { root: byId("strip-list"), rootMargin: "0px 400px" },
    );
    byId("previous").addEventListener("click", () => this.move(-1));
    byId("next").addEventListener("click", () => this.move(1));
    state.on("entries", () => this.draw());
    state.on("picture", () => this.mark());
  }

  get place() {
    return this.state.entries.indexOf(this.state.picture?.entry);
  }

  /** Opens the next picture, or the one before it. @param {number} step */
  move(step) {
    const entry = this.state.entries[this.place + step];
    if (entry) this.open(entry);
  }

  draw() {
    const { entries } = this.state;
    byId("strip").hidden = entries.length < 2;
    this.seen.disconnect();
    byId("strip-list").replaceChildren(
      ...entries.map((entry) => {
        const button = make("button", {
          type: "button",
          class: "thumb",
          "aria-label": `Open ${entry.name}`,
          title: entry.name,
          on: { click: () => this.open(entry) },
        });
        button.entry = entry;
        this.seen.observe(button);
        return make("li", {}, [button]);
      }),
    );
    this.mark();
  }

  /** Marks the open picture, and those that have an annotation. */
  mark() {
    const { entries } = this.state;
    const place = this.place;
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place >= entries.length - 1;
    byId("strip-count").textContent = place < 0 ? `${entries.length}` : `${place + 1} of ${entries.length}`;
    for (const button of byId("strip-list").querySelectorAll(".thumb")) {
      const { entry } = button;
      const current = entry === this.state.picture?.entry;
      button.setAttribute("aria-current", String(current));
      button.setAttribute("aria-label", `Open ${entry.name}${entry.annotated ? ", annotated" : ""}`);
      button.querySelector(".mark-done")?.remove();
      if (entry.annotated) button.append(make("span", { class: "mark-done" }, [icon("check")]));
      if (current) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  async load(button) {
    this.seen.unobserve(button);
    const { entry } = button;
    try {
      if (!this.addresses.has(entry)) this.addresses.set(entry, URL.createObjectURL(await this.thumbnail(entry)));
      const image = make("img", { alt: "", src: this.addresses.get(entry) });
      await image.decode();
      button.prepend(image);
    } catch {
      // A picture that the browser cannot draw is named in place of it.
      button.prepend(make("span", { text: entry.name }));
    }
  }
}
