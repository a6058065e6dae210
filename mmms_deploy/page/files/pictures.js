// Opens pictures: sends them, shows how far that is, takes up what was annotated before, and saves on moving on.

import { hasWork, keepAnnotation, keptAnnotation, pictureKey, recall, remember } from "./kept.js";
import { clearErrors, notice, say, showError } from "./messages.js";
import { ask } from "./opening.js";
import { decoded } from "./picture_files.js";

/** The pictures of the list, of which one is open. */
export class Pictures {
  /**
   * @param {{state: import("./state.js").State, annotating: import("./annotating.js").Annotating, source: any,
   *   mode: import("./mode.js").Mode, layers: import("./view_panel.js").Layers,
   *   view: import("./viewport.js").Viewport}} parts
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.opening = false;
    /** Whether the user is being asked which file is what. */
    this.asking = false;
    /** What is to be opened when the one before is. @type {import("./state.js").Entry | null} */
    this.wanted = null;
  }

  /** Opens the first picture of the list, or the one that was open before a reload. */
  async begin() {
    this.opening = true;
    try {
      this.state.entries = await this.source.entries();
    } finally {
      this.opening = false;
    }
    this.state.emit("entries");
    const last = recall("open");
    const entry = this.state.entries.find((one) => one.name === last) ?? this.state.entries[0];
    if (entry) await this.open(entry);
    else this.state.emit("picture");
  }

  /** Takes files of the user: as pictures of the list, with their modalities. @param {File[]} files */
  async take(files) {
    const { model } = this.state;
    if (!this.source.link) {
      showError({
        given: "This is a static export, which has one picture and no server to compute the features of another.",
        fix: "Start mmms-demo to open pictures.",
      });
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    let groups = files.map((image) => ({ image, modalities: {} }));
    if (files.length > 1 && model.modalities.length > 0) {
      this.asking = true;
      const told = await ask(files, model.modalities).finally(() => (this.asking = false));
      if (told === null) return;
      groups = told;
    }
    const entries = groups.map(({ image, modalities }) => ({
      kind: /** @type {const} */ ("files"),
      name: image.name,
      image,
      modalities,
      annotated: false,
    }));
    await this.open(entries[0], entries);
  }

  /**
   * Opens a picture of the list.
   * @param {import("./state.js").Entry} entry
   * @param {import("./state.js").Entry[]} [added] Joins the list once the picture is open.
   */
  async open(entry, added = []) {
    if (this.opening) {
      this.wanted = entry;
      return;
    }
    this.opening = true;
    let failure = null;
    try {
      await this.leave();
      // Calls wait until the picture is another one, or still the one before.
      await this.annotating.hold(() => this.replace(entry, added));
      // Without a server there is nothing to go on with until this browser is ready.
      if (!this.source.link) {
        this.busy("Getting this browser ready…");
        await this.mode.begin();
      }
      await this.restore();
      if (this.source.link) this.mode.begin();
    } catch (error) {
      failure = error;
      showError(error);
    } finally {
      this.opening = false;
      this.busy(null);
    }
    if (failure && added.length > 1) {
      // One file of many is wrong: the others are a list all the same.
      await this.open(added[1], added.slice(1));
      showError(failure);
      return;
    }
    const { wanted } = this;
    this.wanted = null;
    if (wanted && wanted !== this.state.picture?.entry) await this.open(wanted);
  }

  busy(text, share = null) {
    this.state.busy = text === null ? null : { text, share };
    this.state.emit("busy");
  }

  async replace(entry, added) {
    const seen = entry.kind === "files" ? decoded(entry.image) : Promise.resolve(null);
    const opened = await this.source.open(entry, (text, share) => this.busy(text, share));
    this.opened = opened;
    const [height, width] = opened.size;
    let image = await seen;
    if (image === null || image.width !== width || image.height !== height) {
      this.busy("Fetching the picture…");
      image = await createImageBitmap(await this.source.layer("image"));
    }
    clearErrors();
    const bytes = entry.kind === "files" ? entry.image.size : null;
    const picture = {
      name: opened.name || entry.name,
      width,
      height,
      layers: opened.layers,
      entry,
      milliseconds: opened.milliseconds,
      key: pictureKey(entry.name, width, height, bytes),
    };
    this.mode.end();
    this.annotating.begin(picture);
    this.layers.begin(image);
    this.view.show(width, height);
    if (this.source.link) this.annotating.use(this.source.link.answers);
    if (entry.kind === "server") remember("open", entry.name);
    this.state.emit("picture");
    this.state.emit("measured");
    if (added.length > 0) {
      this.state.entries = [...this.state.entries, ...added];
      this.state.emit("entries");
    }
    if (opened.problem) notice(opened.problem, { seconds: 20 });
    say(`${picture.name} is open, ${width} by ${height} pixels.`);
  }

  /** Takes up what was annotated before: what this browser kept unsaved, or else what the server has. */
  async restore() {
    const { state, annotating, opened } = this;
    await annotating.call("state");
    const blank = await annotating.fetch();
    const kept = keptAnnotation(state.picture.key);
    const unsaved = hasWork(kept?.annotation) && !kept.saved;
    const annotation = unsaved || !hasWork(opened.annotation) ? kept?.annotation : opened.annotation;
    if (!hasWork(annotation)) return;
    const { picture } = state;
    const answer = await annotating.restore(annotation);
    if (answer === null || state.picture !== picture) return;
    state.unsaved = unsaved;
    if (annotation !== kept?.annotation) return;
    notice("What you did on this picture before is here again.", {
      action: "Start afresh",
      press: () => blank && state.picture === picture && annotating.restore(blank),
    });
  }

  /**
   * Gives the open picture a modality that came later; all clicks are answered again.
   * @param {string} name
   * @param {File} file
   */
  async addModality(name, file) {
    const { picture } = this.state;
    if (picture === null || this.opening) return;
    this.opening = true;
    this.busy(`Computing the features with ${name}…`);
    try {
      await this.annotating.hold(async () => {
        const annotation = await this.annotating.fetch();
        const { link } = this.source;
        await link.ready();
        const { layers } = await link.api.putModalities(link.session, { [name]: file });
        link.later[name] = file;
        picture.layers = layers;
        this.layers.forget(name);
        this.mode.end();
        // The server has the clicks already, unless they were made in the browser.
        if (this.state.mode === "browser" && annotation) await link.answers.restore(annotation);
        await this.annotating.carryTo(link.answers);
      });
      await this.layers.show(name);
      this.mode.begin();
    } catch (error) {
      showError(error);
    } finally {
      this.opening = false;
      this.busy(null);
    }
  }

  /** Before another picture: what was done is kept, and saved where the server has a folder for it. */
  async leave() {
    const { state, annotating } = this;
    if (state.picture === null) return;
    await annotating.fetch();
    if (state.unsaved && state.model.saves && state.picture.entry.kind === "server") await this.saveOnServer();
    else if (hasWork(annotating.annotation)) {
      state.picture.entry.annotated = true;
      if (state.unsaved) keepAnnotation(state.picture.key, annotating.annotation, false);
    }
  }

  /** Saves the annotation in the server's folder. */
  async saveOnServer() {
    const { state, annotating } = this;
    const { entry } = state.picture;
    // The server has another annotation while clicks run in the browser.
    if (state.mode === "browser") await (await this.source.link.ready()).restore(await annotating.fetch());
    const files = await this.source.save(entry);
    entry.annotated = true;
    state.emit("annotated");
    annotating.saved();
    notice(`Saved ${files.join(" and ")}.`);
  }
}
