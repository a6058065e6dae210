// The shortcuts: what they do, and the help sheet that lists them.

import { byId, make } from "./elements.js";
import { recall, remember } from "./kept.js";

/**
 * @typedef {{group: string, name: string, keys: string[], run?: () => void}} Shortcut A key is written as people write
 *   it: "Ctrl+Shift+Z", "N", "?". Without ``run`` the canvas itself takes the key, or the mouse it.
 */

/** How a key press is written. @param {KeyboardEvent} event */
function written(event) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  // Signs such as ? and + need Shift on some keyboards and not on others.
  const letter = /^[A-Z]$/.test(key) || key.length > 1;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.shiftKey && letter ? "Shift+" : ""}${key}`;
}

/** Listens to the shortcuts. */
export class Keys {
  /** @param {Shortcut[]} shortcuts */
  constructor(shortcuts) {
    this.shortcuts = shortcuts;
    this.singles = recall("single-keys") !== false;
    this.runs = new Map();
    for (const { keys, run } of shortcuts) if (run) for (const key of keys) this.runs.set(key, run);
    window.addEventListener("keydown", (event) => this.press(event));
    const control = byId("single-keys");
    control.checked = this.singles;
    control.addEventListener("change", () => remember("single-keys", (this.singles = control.checked)));
    this.list();
  }

  press(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.defaultPrevented || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    const writes = target.matches("input:not([type=checkbox], [type=range], [type=file]), select, textarea");
    if (writes) return;
    const key = written(event);
    const single = !key.includes("Ctrl+");
    if (single && !this.singles && key.length === 1) return;
    // A slider has keys of its own.
    if (target.matches("input[type=range]") && /Arrow|Page|End/.test(key)) return;
    if (target.closest("[role=menu], [role=tablist]") && key.length > 1 && single) return;
    const run = this.runs.get(key);
    if (!run) return;
    event.preventDefault();
    run();
  }

  /** Writes the help sheet's tables. */
  list() {
    const groups = new Map();
    for (const one of this.shortcuts.filter((shortcut) => shortcut.group))
      groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
    byId("shortcuts").replaceChildren(
      ...[...groups].map(([group, ones]) =>
        make("table", {}, [
          make("caption", { text: group }),
          make(
            "tbody",
            {},
            ones.map(({ name, keys }) =>
              make("tr", {}, [make("th", { scope: "row", text: name }), make("td", {}, writtenKeys(keys))]),
            ),
          ),
        ]),
      ),
    );
  }
}

function writtenKeys(keys) {
  const parts = [];
  keys.forEach((key, number) => {
    if (number > 0) parts.push(" ");
    parts.push(make("kbd", { text: key }));
  });
  return parts;
}

/** Connects the help sheet; returns what opens it. */
export function connectHelp() {
  const sheet = byId("help");
  const open = () => sheet.showModal();
  byId("help-open").addEventListener("click", open);
  byId("help-close").addEventListener("click", () => sheet.close());
  // A click beside the sheet closes it.
  sheet.addEventListener("click", (event) => event.target === sheet && sheet.close());
  return open;
}
