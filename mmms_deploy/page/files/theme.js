// Light or dark: as the system has it, or as the user chose.

import { byId } from "./elements.js";
import { recall, remember } from "./kept.js";

const ORDER = ["system", "light", "dark"];
const NAMES = { system: "as the system", light: "light", dark: "dark" };

/**
 * Connects the theme's button.
 * @param {(ground: string) => void} changed Gets the colour around the picture, which the canvas has to know.
 */
export function connectTheme(changed) {
  const button = byId("theme");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Theme: ${NAMES[theme]}`);
    button.title = `Theme: ${NAMES[theme]}`;
    changed(getComputedStyle(byId("stage")).backgroundColor);
  };
  const known = (theme) => (ORDER.includes(theme) ? theme : "system");
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(known(document.documentElement.dataset.theme)) + 1) % ORDER.length];
    remember("theme", next);
    apply(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(known(recall("theme"))));
  apply(known(recall("theme")));
}
