// The mouse, fingers and keys on the canvas: clicks, zoom and moving the picture.

import { byId } from "./elements.js";
import { say } from "./messages.js";

/** How far a finger may move, in CSS pixels, and still click. */
const SLACK = 10;
const LONG_PRESS = 500;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Turns what happens on the canvas into clicks at picture pixels. */
export class Pointer {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./viewport.js").Viewport} view
   * @param {{at: [number, number] | null}} crosshair Where the keyboard is; this class moves it.
   */
  constructor(state, view, crosshair) {
    this.state = state;
    this.view = view;
    this.crosshair = crosshair;
    this.canvas = view.canvas;
    /** Gets every click. @type {(x: number, y: number, positive: boolean) => void} */
    this.onclick = () => {};
    /** Gets the pixel under the pointer, or null. @type {(pixel: [number, number] | null) => void} */
    this.onhover = () => {};
    /** Pointers that are down, by number: where they are and were first. */
    this.down = new Map();
    this.space = false;
    this.pressing = false;
    this.telling = 0;
    const on = (event, listener, options) => this.canvas.addEventListener(event, listener, options);
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.release(event, true));
    on("pointercancel", (event) => this.release(event, false));
    on("pointerleave", () => this.onhover(this.crosshair.at));
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("keydown", (event) => this.key(event));
    on("blur", () => this.aim(null));
    on(
      "focus",
      () => !this.pressing && this.canvas.matches(":focus-visible") && this.state.picture && this.aim(this.middle()),
    );
    window.addEventListener("keydown", (event) => this.hold(event, true));
    window.addEventListener("keyup", (event) => this.hold(event, false));
    window.addEventListener("blur", () => this.cursor((this.space = false)));
    state.on("tool", () => this.cursor());
    state.on("picture", () => this.aim(null));
  }

  /** Space moves the picture while it is held, unless a control has the focus. */
  hold(event, held) {
    if (event.key !== " " || (event.target !== this.canvas && event.target !== document.body)) return;
    event.preventDefault();
    this.space = held;
    this.cursor();
  }

  cursor() {
    this.canvas.classList.toggle("moving", this.space || this.state.tool === "pan");
    this.canvas.classList.toggle(
      "dragging",
      [...this.down.values()].some((one) => one.drags),
    );
    this.canvas.classList.toggle("none", this.state.picture === null);
  }

  press(event) {
    const place = this.view.screen(event);
    this.pressing = true;
    this.canvas.focus({ preventScroll: true });
    this.pressing = false;
    this.aim(null);
    this.canvas.setPointerCapture?.(event.pointerId);
    const drags = event.button === 1 || this.space || (this.state.tool === "pan" && event.button === 0);
    const one = { place, first: place, drags, touch: event.pointerType === "touch", timer: 0, moved: false };
    this.down.set(event.pointerId, one);
    if (event.button === 1) event.preventDefault();
    if (one.touch) this.touch(one);
    else if (!drags && (event.button === 0 || event.button === 2)) {
      // On a Mac, Ctrl and the left button are the right one.
      this.click(place, (event.button === 2 || event.ctrlKey) !== (this.state.tool === "remove"));
    }
    this.cursor();
  }

  touch(one) {
    const fingers = [...this.down.values()].filter((other) => other.touch);
    if (fingers.length > 1) {
      for (const finger of fingers) this.settle(finger);
      return;
    }
    if (this.state.tool === "pan") return;
    one.timer = window.setTimeout(() => {
      one.moved = true;
      navigator.vibrate?.(15);
      this.click(one.first, true);
    }, LONG_PRESS);
  }

  /** This finger will not click any more. */
  settle(finger) {
    clearTimeout(finger.timer);
    finger.moved = true;
  }

  move(event) {
    const place = this.view.screen(event);
    this.onhover(this.view.pixel(...place));
    const one = this.down.get(event.pointerId);
    if (!one) {
      if (event.pointerType === "mouse" && this.crosshair.at && (event.movementX || event.movementY)) this.aim(null);
      return;
    }
    const [dx, dy] = [place[0] - one.place[0], place[1] - one.place[1]];
    const others = [...this.down.values()].filter((other) => other !== one && other.touch);
    if (one.touch && others.length > 0) {
      this.pinch(one, others[0], place);
    } else if (one.touch) {
      const far = Math.hypot(place[0] - one.first[0], place[1] - one.first[1]);
      if (!one.moved && far > SLACK * this.view.ratio) {
        this.settle(one);
        one.drags = true;
      }
      if (one.drags) this.view.moveBy(dx, dy);
    } else if (one.drags) this.view.moveBy(dx, dy);
    one.place = place;
  }

  /** Two fingers: what lies between them stays between them. */
  pinch(one, other, place) {
    const between = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const apart = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    const [before, after] = [between(one.place, other.place), between(place, other.place)];
    this.view.moveBy(after[0] - before[0], after[1] - before[1]);
    this.view.zoomTo((this.view.scale * apart(place, other.place)) / apart(one.place, other.place), ...after);
  }

  release(event, clicks) {
    const one = this.down.get(event.pointerId);
    this.down.delete(event.pointerId);
    this.cursor();
    if (!one?.touch) return;
    clearTimeout(one.timer);
    if (clicks && !one.moved && this.state.tool !== "pan") this.click(one.first, this.state.tool === "remove");
  }

  /** @param {[number, number]} place In screen pixels. @param {boolean} removes */
  click(place, removes) {
    const pixel = this.view.pixel(...place);
    if (pixel && this.state.picture) this.onclick(pixel[0], pixel[1], !removes);
  }

  wheel(event) {
    event.preventDefault();
    if (this.state.picture === null) return;
    const lines = event.deltaMode === 1 ? 20 : 1;
    // A pinch on a touchpad comes as a wheel with Ctrl, in small steps.
    const speed = event.ctrlKey ? 0.01 : 0.0018;
    const step = Math.max(-0.7, Math.min(0.7, -event.deltaY * lines * speed));
    const place = this.view.screen(event);
    this.view.zoomTo(this.view.scale * Math.exp(step), ...place);
    this.onhover(this.view.pixel(...place));
  }

  key(event) {
    if (this.state.picture === null || event.altKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      event.preventDefault();
      this.step(arrow, event);
    } else if (event.key === "Enter" || event.key === "Backspace") {
      event.preventDefault();
      const at = this.crosshair.at ?? this.middle();
      this.aim(at);
      this.onclick(at[0], at[1], event.key === "Enter" && !event.shiftKey);
    }
  }

  step([dx, dy], event) {
    if (this.crosshair.at === null) {
      this.aim(this.middle());
      return;
    }
    const [x0, y0, x1, y1] = this.view.sight;
    const wide = Math.max(1, Math.round(Math.min(x1 - x0, y1 - y0) / 10));
    const far = event.ctrlKey ? wide : event.shiftKey ? 10 : 1;
    const within = (place, side) => Math.min(side - 1, Math.max(0, place));
    const [x, y] = this.crosshair.at;
    this.aim([within(x + dx * far, this.view.width), within(y + dy * far, this.view.height)]);
  }

  /** The pixel in the middle of what is in sight. @returns {[number, number]} */
  middle() {
    const [x0, y0, x1, y1] = this.view.sight;
    const at = (low, high, side) => Math.floor((Math.max(0, low) + Math.min(side, high)) / 2);
    return [at(x0, x1, this.view.width), at(y0, y1, this.view.height)];
  }

  /** Shows the crosshair at a pixel, or takes it away. @param {[number, number] | null} pixel */
  aim(pixel) {
    if (pixel === null && this.crosshair.at === null) return;
    this.crosshair.at = pixel;
    clearTimeout(this.telling);
    if (pixel) {
      this.view.reveal(...pixel);
      this.telling = window.setTimeout(() => say(`${pixel[0]}, ${pixel[1]}: ${this.under(pixel)}`), 400);
    }
    this.onhover(pixel);
    this.view.plan();
  }

  /** What is at a pixel, in words. Set by the page. @type {(pixel: [number, number]) => string} */
  under = () => "";
}

/** Connects the buttons that say what a click does, and those of the zoom. */
export function connectTools(state, view) {
  const tools = /** @type {const} */ (["add", "remove", "pan"]);
  const choose = (tool) => {
    state.tool = tool;
    state.emit("tool");
  };
  for (const tool of tools) byId(`tool-${tool}`).addEventListener("click", () => choose(tool));
  state.on("tool", () => {
    for (const tool of tools) byId(`tool-${tool}`).setAttribute("aria-pressed", String(state.tool === tool));
  });
  byId("zoom-in").addEventListener("click", () => view.zoomTo(view.scale * 1.4));
  byId("zoom-out").addEventListener("click", () => view.zoomTo(view.scale / 1.4));
  byId("zoom-one").addEventListener("click", () => view.zoomTo(view.ratio));
  byId("zoom-fit").addEventListener("click", () => view.fit());
  return choose;
}
