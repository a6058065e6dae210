// On a phone, the panel is a sheet at the bottom with tabs that can be folded away.

import { byId } from "./elements.js";

const TABS = ["objects", "view", "run"];

/** Connects the tabs; on a wide screen all parts are seen and the tabs are not. */
export function connectPanel() {
  const panel = byId("panel");
  const show = (tab, focus) => {
    panel.dataset.tab = tab;
    fold(false);
    for (const other of TABS) {
      const button = byId(`tab-${other}`);
      button.setAttribute("aria-selected", String(other === tab));
      button.tabIndex = other === tab ? 0 : -1;
      if (focus && other === tab) button.focus();
    }
  };
  const fold = (folded) => {
    panel.classList.toggle("folded", folded);
    byId("fold").setAttribute("aria-expanded", String(!folded));
    byId("fold").setAttribute("aria-label", folded ? "Unfold the panel" : "Fold the panel");
  };
  TABS.forEach((tab, place) => {
    byId(`tab-${tab}`).addEventListener("click", () => show(tab, false));
    byId(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) show(TABS[(place + step + TABS.length) % TABS.length], true);
    });
  });
  byId("fold").addEventListener("click", () => fold(!panel.classList.contains("folded")));
  show("objects", false);
}
