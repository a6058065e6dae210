// How the masks are drawn: filled or as the network's confidence, opacity, outlines, clicks; and which layer is below.

import { byId, make } from "./elements.js";
import { recall, remember } from "./kept.js";
import { say } from "./messages.js";

/** The settings of the view. */
export class ViewPanel {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./painting.js").Painting} painting
   * @param {import("./annotating.js").Annotating} annotating
   * @param {import("./viewport.js").Viewport} view
   */
  constructor(state, painting, annotating, view) {
    Object.assign(this, { state, painting, annotating, view });
    const kept = recall("view") ?? {};
    for (const name of ["outline", "markers"]) if (typeof kept[name] === "boolean") state.view[name] = kept[name];
    if (kept.opacity >= 0 && kept.opacity <= 1) state.view.opacity = kept.opacity;
    byId("opacity").addEventListener("input", (event) => this.set("opacity", Number(event.target.value) / 100));
    byId("outline").addEventListener("change", (event) => this.set("outline", event.target.checked));
    byId("markers").addEventListener("change", (event) => this.set("markers", event.target.checked));
    byId("view-fill").addEventListener("click", () => this.set("confidence", false));
    byId("view-confidence").addEventListener("click", () => this.set("confidence", true));
    state.on("answer", () => this.fetch());
    state.on("view", () => this.draw());
    this.legend();
    this.draw();
  }

  /** @param {"opacity" | "outline" | "markers" | "confidence"} name @param {any} value */
  set(name, value) {
    this.state.view[name] = value;
    remember("view", this.state.view);
    this.state.emit("view");
    if (name === "confidence") this.fetch();
  }

  /** Changes the opacity by a part. @param {number} by */
  fade(by) {
    const opacity = Math.round(Math.min(1, Math.max(0, this.state.view.opacity + by)) * 100) / 100;
    this.set("opacity", opacity);
    say(`Opacity ${Math.round(opacity * 100)} %`);
  }

  /** @param {"outline" | "markers" | "confidence"} name */
  toggle(name) {
    this.set(name, !this.state.view[name]);
    const word = { outline: "Outline", markers: "Clicks", confidence: "Confidence" }[name];
    say(`${word} ${this.state.view[name] ? "shown" : "hidden"}`);
  }

  /** Fetches the current object's confidence where it is seen. */
  async fetch() {
    const { answer, view } = this.state;
    if (!view.confidence || answer === null || !this.annotating.answers) return;
    let found = null;
    try {
      if (this.state.current?.clicks.length) found = await this.annotating.answers.probability();
    } catch {
      // Without clicks there is none; a lost server is told of elsewhere.
    }
    if (this.state.answer !== answer) return;
    this.painting.setConfidence(found);
    this.view.plan();
  }

  legend() {
    const canvas = byId("legend-bar");
    const image = new ImageData(256, 1);
    image.data.set(this.painting.scale);
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  draw() {
    const { opacity, outline, markers, confidence } = this.state.view;
    const percent = Math.round(opacity * 100);
    byId("opacity").value = String(percent);
    byId("opacity-value").textContent = `${percent} %`;
    byId("outline").checked = outline;
    byId("markers").checked = markers;
    byId("view-fill").setAttribute("aria-pressed", String(!confidence));
    byId("view-confidence").setAttribute("aria-pressed", String(confidence));
    byId("legend").hidden = !confidence;
    this.view.plan();
  }
}

/** The picture and its modalities, of which one is seen. */
export class Layers {
  /**
   * @param {import("./state.js").State} state
   * @param {{image: CanvasImageSource | null}} layer What the scene draws.
   * @param {(name: string) => Promise<Blob>} fetchLayer
   * @param {import("./viewport.js").Viewport} view
   */
  constructor(state, layer, fetchLayer, view) {
    Object.assign(this, { state, layer, fetchLayer, view });
    /** @type {Map<string, CanvasImageSource>} */
    this.images = new Map();
    /** Takes the file of a modality. Set by the page. @type {(name: string, file: File) => void} */
    this.onadd = () => {};
    this.adding = "";
    byId("modality-input").addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (file) this.onadd(this.adding, file);
    });
    state.on("layer", () => this.draw());
    state.on("picture", () => this.draw());
  }

  /** Begins with a picture that may be there already. @param {CanvasImageSource | null} image */
  begin(image) {
    for (const old of this.images.values()) if (old !== image) /** @type {ImageBitmap} */ (old).close?.();
    this.images = new Map(image ? [["image", image]] : []);
    this.layer.image = image;
    this.state.layer = "image";
  }

  /** Forgets a layer that changed. @param {string} name */
  forget(name) {
    this.images.delete(name);
  }

  /** Shows a layer; its pixels are fetched the first time. @param {string} name */
  async show(name) {
    const { picture } = this.state;
    if (!this.images.has(name)) {
      const image = await createImageBitmap(await this.fetchLayer(name));
      if (this.state.picture !== picture) return;
      this.images.set(name, image);
    }
    this.state.layer = name;
    this.layer.image = this.images.get(name);
    this.state.emit("layer");
    this.view.plan();
  }

  /** Shows the next layer, or the one before it. @param {number} step */
  move(step) {
    const layers = this.state.picture?.layers ?? [];
    if (layers.length < 2) return;
    const name = layers[(layers.indexOf(this.state.layer) + step + layers.length) % layers.length];
    this.show(name).then(() => say(`Layer ${name}`));
  }

  draw() {
    const layers = this.state.picture?.layers ?? [];
    byId("layers-row").hidden = layers.length < 2;
    byId("layers").replaceChildren(
      ...layers.map((name) =>
        make("button", {
          type: "button",
          class: "segment",
          text: name === "image" ? "Picture" : name,
          "aria-pressed": String(name === this.state.layer),
          on: { click: () => this.show(name) },
        }),
      ),
    );
    const missing = this.state.picture
      ? (this.state.model?.modalities ?? []).filter((one) => !layers.includes(one.name))
      : [];
    byId("layers-add").hidden = missing.length === 0;
    byId("layers-add").replaceChildren(
      ...missing.map(({ name }) =>
        make("button", {
          type: "button",
          class: "button small",
          text: `Add ${name}…`,
          title: `Open the ${name} image of this picture`,
          on: { click: () => this.add(name) },
        }),
      ),
    );
  }

  add(name) {
    this.adding = name;
    byId("modality-input").click();
  }
}
