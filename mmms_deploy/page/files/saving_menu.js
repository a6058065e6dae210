// The menu that saves the annotation as a file and takes files up again.

import { byId, make } from "./elements.js";
import { notice, showError } from "./messages.js";
import { annotationJson, cocoJson, labelPng, polygonsJson, readAnnotation, readLabelPng } from "./saving/saving.js";

const stemOf = (name) => name.replace(/\.[^.]*$/, "") || "annotation";

/** Gives the user a file. @param {Blob} blob @param {string} name */
function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The menu. */
export class SavingMenu {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./annotating.js").Annotating} annotating
   * @param {{saveOnServer: () => Promise<void>}} how
   */
  constructor(state, annotating, how) {
    Object.assign(this, { state, annotating, how });
    this.button = byId("save");
    this.menu = byId("save-menu");
    this.button.addEventListener("click", () => this.toggle(this.menu.hidden));
    this.menu.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("pointerdown", (event) => {
      if (!(/** @type {Element} */ (event.target).closest(".menu-root"))) this.toggle(false);
    });
    this.menu.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !this.menu.contains(event.relatedTarget) && event.relatedTarget !== this.button)
        this.toggle(false);
    });
    const input = byId("annotation-input");
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = "";
      if (file) this.takeUp(file);
    });
  }

  /** What the menu has. */
  items() {
    const { state } = this;
    const items = [
      { name: "Label map (PNG)", text: "One picture: each pixel has its object's number", run: () => this.savePng() },
      {
        name: "COCO (JSON)",
        text: "Outlines or run lengths as COCO's tools read them",
        run: () => this.saveText("coco", (all) => cocoJson({ ...all, polygons: false })),
      },
      {
        name: "Outlines (JSON polygons)",
        text: "The objects' outlines as lists of points",
        run: () => this.saveText("outlines", (all) => polygonsJson({ ...all, polygons: true })),
      },
      { name: "Annotation (JSON)", text: "All clicks, to go on with them later", run: () => this.saveAnnotation() },
    ];
    const entry = state.picture?.entry;
    if (state.model?.saves && entry?.kind === "server") {
      items.unshift({
        name: "Save in the server's folder",
        text: "As the label map and the annotation of this picture",
        run: () => this.how.saveOnServer(),
      });
    }
    const disabled = state.answer === null;
    return [
      ...items.map((item) => ({ ...item, disabled })),
      null,
      {
        name: "Take up again…",
        text: "A label map (PNG) or an annotation (JSON) of this picture",
        run: () => byId("annotation-input").click(),
        disabled,
      },
    ];
  }

  /** @param {boolean} shown */
  toggle(shown) {
    if (shown === !this.menu.hidden) return;
    this.menu.hidden = !shown;
    this.button.setAttribute("aria-expanded", String(shown));
    if (!shown) return;
    this.menu.replaceChildren(
      ...this.items().map((item) =>
        item === null
          ? make("hr")
          : make(
              "button",
              {
                type: "button",
                role: "menuitem",
                class: "menu-item",
                tabindex: "-1",
                "aria-disabled": String(item.disabled),
                "aria-label": item.name,
                "aria-description": item.text,
                on: { click: () => this.press(item) },
              },
              [make("span", { text: item.name }), make("small", { text: item.text })],
            ),
      ),
    );
    /** @type {HTMLElement} */ (this.menu.querySelector(".menu-item"))?.focus();
  }

  async press(item) {
    if (item.disabled) return;
    this.toggle(false);
    this.button.focus();
    try {
      await item.run();
    } catch (error) {
      showError(error);
    }
  }

  key(event) {
    const items = /** @type {HTMLElement[]} */ ([...this.menu.querySelectorAll(".menu-item")]);
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, PageUp: 0, PageDown: items.length - 1 };
    if (event.key in places) items[(places[event.key] + items.length) % items.length].focus();
    else if (event.key === "Escape") {
      this.toggle(false);
      this.button.focus();
    } else if (event.key === "Tab") {
      this.toggle(false);
      return;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** What the writing functions take. */
  all() {
    const { answer, picture } = this.state;
    const { labels, width, height } = this.annotating.painting;
    const objects = answer.surfaces.map(({ label, name, clicks }) => ({ label, name, clicks }));
    return { labels, width, height, fileName: picture.name, objects };
  }

  async savePng() {
    const { labels, width, height, objects, fileName } = this.all();
    const names = new Map(objects.map(({ label, name }) => [label, name]));
    this.give(await labelPng({ labels, width, height, names }), `${stemOf(fileName)}-labels.png`);
  }

  saveText(what, write) {
    const all = this.all();
    this.give(new Blob([write(all)], { type: "application/json" }), `${stemOf(all.fileName)}-${what}.json`);
  }

  async saveAnnotation() {
    const annotation = await this.annotating.answers.annotation();
    const { fileName } = this.all();
    this.give(
      new Blob([annotationJson({ annotation, fileName })], { type: "application/json" }),
      `${stemOf(fileName)}-annotation.json`,
    );
  }

  give(blob, name) {
    download(blob, name);
    this.annotating.saved();
    notice(`Saved ${name}.`);
  }

  /** Takes up an annotation or a label map. @param {File} file */
  async takeUp(file) {
    try {
      const png = new Uint8Array(await file.slice(0, 4).arrayBuffer()).join() === "137,80,78,71";
      if (png) {
        const { labels, width, height, names } = await readLabelPng(file);
        const { picture } = this.state;
        if (width !== picture.width || height !== picture.height) {
          throw {
            kind: "ImageError",
            given: `${file.name} is ${width} x ${height} pixels, and the picture ${picture.width} x ${picture.height}.`,
            fix: "Open the label map of this picture.",
          };
        }
        const byName = Object.fromEntries([...names].map(([label, name]) => [name, label]));
        await this.annotating.call("setLabels", [labels, byName], {
          said: (answer) => `${answer.surfaces.length} objects taken up`,
        });
      } else await this.annotating.restore(readAnnotation(await file.text()));
    } catch (error) {
      showError(error);
    }
  }
}
