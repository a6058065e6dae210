// The list of objects: colour, name, pixels and clicks; to select, rename, hide and delete.

import { cssColour } from "./colours.js";
import { byId, counted, iconButton, make, several } from "./elements.js";
import { say } from "./messages.js";

/** The panel of the objects, and the buttons that are about the current one. */
export class Objects {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./annotating.js").Annotating} annotating
   * @param {() => void} hiddenChanged Is told that other objects are hidden.
   */
  constructor(state, annotating, hiddenChanged) {
    this.state = state;
    this.annotating = annotating;
    this.hiddenChanged = hiddenChanged;
    this.list = byId("objects");
    /** Name of the object that is being renamed. */
    this.renaming = null;
    for (const event of ["answer", "picture"]) state.on(event, () => this.draw());
    byId("object-add").addEventListener("click", () => this.add());
    byId("undo").addEventListener("click", () => annotating.undo());
    byId("redo").addEventListener("click", () => annotating.redo());
    byId("reset").addEventListener("click", () => annotating.reset());
    this.draw();
  }

  add() {
    if (this.state.answer) this.annotating.add();
  }

  /** Selects the object at a place of the list, from 0. */
  pick(place) {
    const one = this.state.answer?.surfaces[place];
    if (one && one.name !== this.state.answer.surface) this.annotating.select(one.name);
  }

  /** Begins to rename an object; the current one where no name is given. */
  rename(name = this.state.answer?.surface) {
    if (!name) return;
    this.renaming = name;
    this.draw();
    const field = this.list.querySelector("input");
    field?.focus();
    field?.select();
  }

  /** Deletes the current object. */
  remove(name = this.state.answer?.surface) {
    if (this.state.answer?.surfaces.some((one) => one.name === name)) this.annotating.remove(name);
  }

  /** Hides an object or shows it again. */
  toggle(one = this.state.current) {
    if (!one) return;
    const { hidden } = this.state;
    if (!hidden.delete(one.label)) hidden.add(one.label);
    say(`${one.name} is ${hidden.has(one.label) ? "hidden" : "shown"}`);
    this.hiddenChanged();
    this.draw();
  }

  draw() {
    const { answer, hidden } = this.state;
    const surfaces = answer?.surfaces ?? [];
    byId("undo").disabled = !answer?.can_undo;
    byId("redo").disabled = !answer?.can_redo;
    byId("reset").disabled = !this.state.current?.clicks.length && !this.state.current?.area;
    byId("object-add").disabled = answer === null;
    byId("objects-hint").hidden = answer === null ? this.state.picture !== null : surfaces.some((one) => one.area > 0);
    byId("objects-hint").textContent =
      answer === null ? "Open a picture to begin." : "Click on an object in the picture to begin.";
    if (this.renaming !== null && !surfaces.some((one) => one.name === this.renaming)) this.renaming = null;
    // While a name is being written, an answer must not take the field away.
    if (this.renaming !== null && this.list.querySelector("input") === document.activeElement) return;
    const focused = /** @type {HTMLElement} */ (document.activeElement)?.dataset?.of;
    this.list.replaceChildren(
      ...surfaces.map((one, place) => this.item(one, place, one.name === answer.surface, hidden.has(one.label))),
    );
    if (focused)
      /** @type {any} */ (
        [...this.list.querySelectorAll("[data-of]")].find((one) => one.dataset.of === focused)
      )?.focus();
  }

  item(one, place, current, hidden) {
    const classes = `object${current ? " current" : ""}${hidden ? " hidden-object" : ""}`;
    if (this.renaming === one.name) return make("li", { class: classes }, [this.field(one)]);
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = cssColour(one.label);
    const facts = `${several(one.area, "pixel")}, ${several(one.clicks.length, "click")}`;
    const pick = make(
      "button",
      {
        type: "button",
        class: "object-pick",
        "aria-pressed": String(current),
        "data-of": `pick ${one.name}`,
        title: place < 9 ? `Select (${place + 1})` : "Select",
        "aria-label": `Object ${one.name}: ${facts}`,
        on: { click: () => this.pick(place), dblclick: () => this.rename(one.name) },
      },
      [
        make("span", { class: "object-key", text: place < 9 ? String(place + 1) : "" }),
        swatch,
        make("span", { class: "object-name", text: one.name }),
        make("span", {
          class: "object-facts",
          text: `${counted(one.area)} px · ${several(one.clicks.length, "click")}`,
        }),
      ],
    );
    return make("li", { class: classes, "data-name": one.name, "data-area": one.area }, [
      pick,
      iconButton(hidden ? "eye-off" : "eye", `${hidden ? "Show" : "Hide"} ${one.name}`, () => this.toggle(one), {
        "data-of": `eye ${one.name}`,
      }),
      iconButton("pencil", `Rename ${one.name}`, () => this.rename(one.name)),
      iconButton("trash", `Delete ${one.name}`, () => this.remove(one.name)),
    ]);
  }

  field(one) {
    let done = false;
    const end = (taken) => {
      if (done) return;
      done = true;
      this.renaming = null;
      const to = field.value.trim();
      field.remove();
      this.draw();
      byId("canvas").focus({ preventScroll: true });
      if (taken && to !== "" && to !== one.name) this.annotating.rename(one.name, to);
    };
    const keydown = (event) => {
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        end(event.key === "Enter");
      }
    };
    const field = make("input", {
      type: "text",
      value: one.name,
      "aria-label": `New name of ${one.name}`,
      maxlength: 200,
      on: { keydown, blur: () => end(true) },
    });
    return field;
  }
}

/** Shows several answers to one click side by side. */
export class Candidates {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./annotating.js").Annotating} annotating
   * @param {{image: CanvasImageSource | null}} layer
   */
  constructor(state, annotating, layer) {
    this.state = state;
    this.annotating = annotating;
    this.layer = layer;
    this.shown = null;
    state.on("answer", () => this.draw());
    state.on("picture", () => this.draw());
  }

  /** Takes the next candidate, or the one before it. @param {number} step */
  move(step) {
    const candidates = this.state.answer?.candidates ?? [];
    const taken = candidates.findIndex((one) => one.taken);
    if (candidates.length > 1) this.annotating.choose((taken + step + candidates.length) % candidates.length);
  }

  async draw() {
    const { answer } = this.state;
    const candidates = answer?.candidates ?? [];
    byId("candidates").hidden = candidates.length < 2;
    if (candidates.length < 2) {
      byId("candidate-list").replaceChildren();
      return;
    }
    const list = byId("candidate-list");
    const focused = [...list.children].indexOf(document.activeElement);
    const canvases = candidates.map(() => make("canvas", { "aria-hidden": "true" }));
    list.replaceChildren(
      ...candidates.map((one, index) =>
        make(
          "button",
          {
            type: "button",
            class: "candidate",
            "aria-pressed": String(one.taken),
            "aria-label": `Candidate ${index + 1}, score ${one.score.toFixed(2)}`,
            on: { click: () => this.annotating.choose(index) },
          },
          [canvases[index], make("span", { text: one.score.toFixed(2) })],
        ),
      ),
    );
    if (focused >= 0) /** @type {HTMLElement} */ (list.children[focused])?.focus();
    try {
      const probabilities = await this.annotating.answers.candidates();
      if (this.state.answer === answer)
        canvases.forEach((canvas, index) => this.thumbnail(canvas, probabilities, index));
    } catch {
      // The scores are there; without pictures they can still be chosen.
    }
  }

  /** A small picture with the candidate's pixels coloured and the others dark. */
  thumbnail(canvas, { size: [height, width], data }, index) {
    const { picture } = this.state;
    canvas.width = 120;
    canvas.height = Math.max(1, Math.min(160, Math.round((120 * picture.height) / picture.width)));
    const brush = canvas.getContext("2d");
    if (this.layer.image) brush.drawImage(this.layer.image, 0, 0, canvas.width, canvas.height);
    const mask = Object.assign(document.createElement("canvas"), { width, height });
    const image = new ImageData(width, height);
    const values = data.subarray(index * width * height, (index + 1) * width * height);
    const colour = this.state.current ? cssColour(this.state.current.label).match(/\d+/g).map(Number) : [37, 132, 255];
    for (let place = 0; place < values.length; place += 1) {
      const inside = values[place] >= 128;
      image.data.set(inside ? [...colour, 150] : [0, 0, 0, 120], place * 4);
    }
    mask.getContext("2d").putImageData(image, 0, 0);
    brush.drawImage(mask, 0, 0, canvas.width, canvas.height);
  }
}
