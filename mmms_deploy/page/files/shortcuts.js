// The list of shortcuts, which the keys run and the help sheet shows.

import { byId } from "./elements.js";

/**
 * Returns all shortcuts.
 * @param {any} parts The parts of the page that they are about.
 * @returns {import("./keys.js").Shortcut[]}
 */
export function shortcuts({
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
}) {
  const group = (name, ones) => ones.map(([what, keys, run]) => ({ group: name, name: what, keys, run }));
  const swapped = () => tool(state.tool === "remove" ? "add" : "remove");
  return [
    ...group("Clicks", [
      ["Add to the object", ["Left click", "Enter"]],
      ["Remove from the object", ["Right click", "Shift+Enter", "Backspace"]],
      ["Swap both", ["X"], swapped],
      ["Undo", ["Ctrl+Z"], () => annotating.undo()],
      ["Redo", ["Ctrl+Shift+Z", "Ctrl+Y"], () => annotating.redo()],
      ["Reset the object", ["R"], () => annotating.reset()],
      ["Another candidate", [",", "."]],
    ]),
    ...group("Crosshair, on the picture", [
      ["One pixel", ["Arrow keys"]],
      ["Ten pixels", ["Shift+Arrow"]],
      ["A tenth of the view", ["Ctrl+Arrow"]],
    ]),
    ...group("Objects", [
      ["New object", ["N"], () => objects.add()],
      ["Select an object", ["1 to 9"]],
      ["Rename it", ["F2"], () => objects.rename()],
      ["Hide or show it", ["H"], () => objects.toggle()],
      ["Delete it", ["Delete"], () => objects.remove()],
    ]),
    ...group("View", [
      ["Zoom", ["Wheel", "+", "-"]],
      ["Fit the picture", ["0"], () => view.fit()],
      ["100 %", ["Z"], () => view.zoomTo(view.ratio)],
      ["Move the picture", ["Space, drag", "Middle button"]],
      ["Confidence", ["C"], () => viewPanel.toggle("confidence")],
      ["Outline", ["O"], () => viewPanel.toggle("outline")],
      ["Clicks", ["K"], () => viewPanel.toggle("markers")],
      ["Opacity", ["[", "]"]],
      ["Next layer", ["L"], () => layers.move(1)],
    ]),
    ...group("Pictures and files", [
      ["Open", ["Ctrl+O"], choose],
      ["Save", ["Ctrl+S"], () => saving.toggle(true)],
      ["Picture before, next", ["PageUp", "PageDown"]],
      ["This help", ["?"], help],
      ["To the picture", ["Escape"], () => byId("canvas").focus()],
    ]),
    // These are in the rows above, each for itself.
    ...unlisted({
      ",": () => candidates.move(-1),
      ".": () => candidates.move(1),
      "[": () => viewPanel.fade(-0.1),
      "]": () => viewPanel.fade(0.1),
      PageUp: () => folder.move(-1),
      PageDown: () => folder.move(1),
      "+": () => view.zoomTo(view.scale * 1.4),
      "=": () => view.zoomTo(view.scale * 1.4),
      "-": () => view.zoomTo(view.scale / 1.4),
      "Shift+L": () => layers.move(-1),
      ...Object.fromEntries(
        [1, 2, 3, 4, 5, 6, 7, 8, 9].map((number) => [String(number), () => objects.pick(number - 1)]),
      ),
    }),
  ];
}

const unlisted = (runs) => Object.entries(runs).map(([key, run]) => ({ group: "", name: "", keys: [key], run }));
