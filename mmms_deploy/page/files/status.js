// What ran the last click, where, and how long each part of it took: the status bar, and the facts in the panel.

import { byId, make } from "./elements.js";

const WHERE = { server: "Server", browser: "This browser" };

const took = (milliseconds) =>
  milliseconds === null ? "" : `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;

/** What an engine is, in a line. @param {any} engine */
export function engineLine(engine) {
  if (!engine) return "";
  const library = [engine.library, engine.version].filter(Boolean).join(" ");
  const threads = engine.threads ? `${engine.threads} ${engine.threads === 1 ? "thread" : "threads"}` : null;
  return [library, engine.device, engine.precision, threads].filter(Boolean).join(", ");
}

/** The status bar. */
export class Status {
  /**
   * @param {import("./state.js").State} state
   * @param {import("./viewport.js").Viewport} view
   * @param {import("./annotating.js").Annotating} annotating
   */
  constructor(state, view, annotating) {
    Object.assign(this, { state, view, annotating });
    for (const event of ["mode", "measured", "picture", "lost", "model"]) state.on(event, () => this.draw());
    state.on("busy", () => this.drawBusy());
    this.draw();
  }

  /** @param {[number, number] | null} pixel Under the pointer. */
  point(pixel) {
    const label = pixel ? this.under(pixel) : "";
    byId("status-pixel").textContent = pixel ? `x ${pixel[0]}, y ${pixel[1]}${label ? ` · ${label}` : ""}` : "";
  }

  /** Name of the object at a pixel, or "". @param {[number, number]} pixel */
  under([x, y]) {
    const { painting } = this.annotating;
    const label = painting.labels[y * painting.width + x];
    return this.state.answer?.surfaces.find((one) => one.label === label)?.name ?? "";
  }

  zoomed() {
    byId("zoom-one").textContent = `${Math.round(this.view.zoom * 100)} %`;
  }

  draw() {
    const { mode, lost, measured, picture, model } = this.state;
    const engine = this.annotating.answers?.engine ?? (mode === "browser" ? null : model?.engine);
    const line = engineLine(engine);
    const where = byId("status-where");
    where.dataset.where = lost && mode !== "browser" ? "lost" : (mode ?? "none");
    where.textContent = mode ? `${WHERE[mode]}: ${line}` : "";
    where.title = where.textContent;
    const size = picture ? `${picture.width} × ${picture.height}` : "";
    byId("status-picture").textContent = picture?.milliseconds
      ? `${size} · features in ${took(picture.milliseconds)}`
      : size;
    byId("picture-name").textContent = picture?.name ?? "";
    document.title = picture ? `${picture.name} - mmms-demo` : "mmms-demo";
    const parts = measured
      ? `: ${partsOf(measured)
          .map(([name, time]) => `${name.toLowerCase()} ${took(time)}`)
          .join(", ")}`
      : "";
    byId("status-time").replaceChildren(
      ...(measured
        ? [
            make("span", { text: `Last click ${took(measured.total)}` }),
            make("span", { class: "status-parts", text: parts }),
          ]
        : []),
    );
    byId("status-time").title = byId("status-time").textContent;
    this.drawFacts(engine, measured);
  }

  drawFacts(engine, measured) {
    const { model, picture } = this.state;
    const facts = [
      ["Network", model ? `${model.name}, ${model.size[1]} × ${model.size[0]}` : null],
      ["Engine", engine ? [engine.library, engine.version].filter(Boolean).join(" ") : null],
      ["Precision", engine?.precision ?? null],
      [
        "Device",
        engine
          ? [engine.device, engine.threads ? `${engine.threads} ${engine.threads === 1 ? "thread" : "threads"}` : null]
              .filter(Boolean)
              .join(", ")
          : null,
      ],
      ["Picture's features", picture?.milliseconds ? took(picture.milliseconds) : null],
      ...(measured
        ? [
            ["Last click, painted", took(measured.total)],
            ...partsOf(measured).map(([name, time]) => [name, took(time)]),
          ]
        : []),
    ];
    byId("facts").replaceChildren(
      ...facts
        .filter(([, value]) => value)
        .flatMap(([name, value]) => {
          const total = name.startsWith("Last click") ? "total" : null;
          return [make("dt", { text: name, class: total }), make("dd", { text: value, class: total })];
        }),
    );
    byId("engine-reason").hidden = !engine?.reason;
    byId("engine-reason").textContent = engine?.reason ? `Taken because: ${engine.reason}.` : "";
  }

  drawBusy() {
    const { busy } = this.state;
    byId("busy").hidden = busy === null;
    if (busy === null) return;
    byId("busy-text").textContent = busy.share === null ? busy.text : `${busy.text} ${Math.round(busy.share * 100)} %`;
    if (busy.share === null) byId("busy-bar").removeAttribute("value");
    else byId("busy-bar").value = busy.share * 100;
  }
}

/** The parts of a measured click, in their order. @returns {[string, number][]} */
function partsOf(measured) {
  const way = measured.where === "server" ? "Round trip" : "To the worker and back";
  const parts = [
    ["Engine", measured.engine],
    ["Mask", measured.mask],
    [way, measured.way],
    ["Painting", measured.painting],
  ];
  return /** @type {any} */ (parts.filter(([, time]) => time !== null && time !== undefined));
}
