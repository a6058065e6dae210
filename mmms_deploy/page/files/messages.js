// What the page says: notices and errors on the stage, the banner of a lost server, and a line for screen readers.

import { byId, icon, iconButton, make } from "./elements.js";

const NOTICE_SECONDS = 6;
const MOST = 3;

/**
 * Says something to a screen reader.
 * @param {string} text
 */
export function say(text) {
  const line = byId("said");
  // The same words twice are read twice only when the line changes.
  line.textContent = line.textContent === text ? `${text}\u00a0` : text;
}

/**
 * Shows a notice, which goes by itself unless there is something to press.
 * @param {string} text
 * @param {{action?: string, press?: () => void, seconds?: number}} [options] A button in it.
 */
export function notice(text, { action, press, seconds = NOTICE_SECONDS } = {}) {
  const words = make("div", { class: "toast-text" }, [make("p", { text })]);
  const toast = make("div", { class: "toast", role: "status" }, [words]);
  if (action && press) {
    const pressed = () => {
      toast.remove();
      press();
    };
    toast.append(make("button", { type: "button", class: "button", text: action, on: { click: pressed } }));
  }
  toast.append(iconButton("close", "Dismiss", () => toast.remove()));
  show(toast);
  let left = setTimeout(() => toast.remove(), seconds * (action ? 2000 : 1000));
  // It waits while someone reads it or is about to press.
  for (const event of ["pointerenter", "focusin"]) toast.addEventListener(event, () => clearTimeout(left));
  toast.addEventListener("pointerleave", () => {
    clearTimeout(left);
    left = setTimeout(() => toast.remove(), 3000);
  });
}

/**
 * Shows an error: what was given, and how to fix it. It stays until it is dismissed.
 * @param {any} error An AnswerError, or anything else that was thrown.
 */
export function showError(error) {
  const given = error?.given ?? error?.message ?? String(error);
  const lines = [sentence(given)];
  if (error?.expected) lines.push(`Expected: ${error.expected}`);
  if (error?.fix) lines.push(sentence(error.fix));
  const words = make(
    "div",
    { class: "toast-text" },
    lines.map((text) => make("p", { text })),
  );
  const toast = make("div", { class: "toast error", role: "alert", "data-kind": error?.kind ?? "Error" }, [words]);
  toast.append(iconButton("close", "Dismiss", () => toast.remove()));
  for (const other of byId("toasts").querySelectorAll(".toast.error")) {
    if (other.textContent === toast.textContent) other.remove();
  }
  show(toast);
}

/** Takes errors away, because the next thing worked. */
export function clearErrors() {
  for (const toast of byId("toasts").querySelectorAll(".toast.error")) toast.remove();
}

function show(toast) {
  const place = byId("toasts");
  place.append(toast);
  while (place.children.length > MOST) place.firstElementChild.remove();
}

const sentence = (text) => {
  const trimmed = String(text).trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
};

/**
 * Shows the banner, or takes it away.
 * @param {string | null} text
 */
export function banner(text) {
  const line = byId("banner");
  line.hidden = text === null;
  line.replaceChildren(...(text === null ? [] : [icon("warn"), make("span", { text })]));
}
