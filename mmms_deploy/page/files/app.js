// The page: makes its parts, connects them, and opens pictures.

import { Annotating } from "./annotating.js";
import { byId } from "./elements.js";
import { Folder } from "./folder.js";
import { connectHelp, Keys } from "./keys.js";
import { clearErrors, say, showError } from "./messages.js";
import { Mode } from "./mode.js";
import { Candidates, Objects } from "./objects.js";
import { connectOpening } from "./opening.js";
import { Painting } from "./painting.js";
import { connectPanel } from "./panel.js";
import { Pictures } from "./pictures.js";
import { connectTools, Pointer } from "./pointer.js";
import { SavingMenu } from "./saving_menu.js";
import { makeScene } from "./scene.js";
import { shortcuts } from "./shortcuts.js";
import { openSource } from "./source.js";
import { State } from "./state.js";
import { engineLine, Status } from "./status.js";
import { connectTheme } from "./theme.js";
import { Viewport } from "./viewport.js";
import { Layers, ViewPanel } from "./view_panel.js";

const state = new State();
const painting = new Painting(state.hidden);
const layer = { image: null, ground: "" };
const crosshair = { at: null };
const view = new Viewport(byId("canvas"), makeScene(state, painting, layer, crosshair));
connectTheme((ground) => {
  layer.ground = ground;
  view.plan();
});
connectPanel();
const narrow = matchMedia("(max-width: 720px)");
view.insets = () =>
  narrow.matches ? { left: 10, top: 10, right: 10, bottom: 70 } : { left: 84, top: 20, right: 20, bottom: 20 };

/** Makes everything that needs to know where answers come from. */
async function begin() {
  const annotating = new Annotating(state, painting, view);
  const status = new Status(state, view, annotating);
  view.onchange = () => status.zoomed();
  const source = await openSource(state, annotating);
  state.emit("model");
  const mode = new Mode(state, annotating, source);
  const layers = new Layers(state, layer, (name) => source.layer(name), view);
  const pictures = new Pictures({ state, annotating, source, mode, layers, view });
  layers.onadd = (name, file) => pictures.addModality(name, file);
  const folder = new Folder(
    state,
    (entry) => pictures.open(entry),
    (entry) => source.thumbnail(entry),
  );
  const viewPanel = new ViewPanel(state, painting, annotating, view);
  const candidates = new Candidates(state, annotating, layer);
  const objects = new Objects(state, annotating, () => {
    painting.repaint();
    view.plan();
  });
  const saving = new SavingMenu(state, annotating, { saveOnServer: () => pictures.saveOnServer() });
  const choose = connectOpening((files) => pictures.take(files));
  const tool = connectTools(state, view);
  const pointer = new Pointer(state, view, crosshair);
  pointer.onclick = (x, y, positive) => annotating.click(x, y, positive);
  pointer.onhover = (pixel) => status.point(pixel);
  pointer.under = (pixel) => status.under(pixel) || "background";
  const help = connectHelp();
  new Keys(
    shortcuts({
      state,
      annotating,
      view,
      viewPanel,
      layers,
      candidates,
      objects,
      saving,
      folder,
      tool,
      help,
      choose,
    }),
  );

  state.on("annotated", () => folder.mark());
  state.on("picture", () => {
    const { picture } = state;
    byId("empty").hidden = picture !== null;
    byId("canvas").setAttribute(
      "aria-label",
      picture ? `Picture ${picture.name}, ${picture.width} by ${picture.height} pixels` : "Picture: none is open",
    );
    pointer.cursor();
  });
  window.addEventListener("beforeunload", (event) => {
    if (state.unsaved) event.preventDefault();
  });
  byId("about").textContent =
    `${state.model.name} on mmms-deploy ${state.model.version}. ${engineLine(state.model.engine)}`;
  // A static export has its one picture.
  byId("open").hidden = byId("open-first").hidden = source.link === null;
  publish({ pictures, annotating, mode, source });
  await pictures.begin();
}

/** What tests and pages that embed this one use; only the last two change anything. */
function publish({ pictures, annotating, mode, source }) {
  window.mmmsDemo = {
    /** The state, to be read. */
    state,
    /** The label map: {width, height, labels: Uint16Array (height * width), row by row, 0 is background}. */
    labels: () => ({ width: painting.width, height: painting.height, labels: painting.labels.slice() }),
    /** The painted masks at the picture's resolution, RGBA. */
    painted: () => painting.brush.getImageData(0, 0, painting.width, painting.height),
    /** Size [h, w] of the confidence that is painted, or null. */
    confidence: () => (painting.confidence ? [painting.confidence.height, painting.confidence.width] : null),
    /** Where the centre of a pixel is on the page: [clientX, clientY]. */
    clientOf: (x, y) => view.client(x, y),
    /** The annotation that was kept last. */
    annotation: () => annotating.annotation,
    /** The session's name on the server, or null. */
    session: () => source.link?.session ?? null,
    /** Whether nothing is being opened, answered or fetched. */
    idle: () =>
      !pictures.opening &&
      !pictures.asking &&
      state.pending.length === 0 &&
      state.busy === null &&
      annotating.calls === 0 &&
      !mode.switching,
    /** What idle() asks for, in parts. */
    doing: () => ({
      opening: pictures.opening,
      calls: annotating.calls,
      switching: mode.switching,
      busy: state.busy,
      pending: state.pending.length,
    }),
    /** Opens files as if they were dropped. */
    open: (files) => pictures.take(files),
    /** Puts an annotation in the place of this one. */
    restore: (annotation) => annotating.restore(annotation),
  };
}

begin().catch((error) => {
  state.busy = null;
  state.emit("busy");
  clearErrors();
  showError(error);
  say("The page could not be opened.");
});
