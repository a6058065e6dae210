// Makes elements of the page. Text is always set as text, never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * The element of an id, which index.html has.
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element.
 * @param {string} tag
 * @param {Object<string, any>} [attributes] ``class``, ``text``, ``on`` (events by name), any attribute; null is left
 *   out.
 * @param {(Node | null)[]} [children]
 * @returns {any}
 */
export function make(tag, attributes = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on")
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * A drawing of the sprite in index.html; it says nothing to a screen reader.
 * @param {string} name Without "i-".
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button with a drawing and a name.
 * @param {string} drawing
 * @param {string} name What a screen reader says.
 * @param {() => void} press
 * @param {Object<string, any>} [attributes]
 */
export function iconButton(drawing, name, press, attributes = {}) {
  const all = {
    type: "button",
    class: "button icon",
    "aria-label": name,
    title: name,
    on: { click: press },
    ...attributes,
  };
  return make("button", all, [icon(drawing)]);
}

/** 24133 as "24,133". @param {number} number */
export const counted = (number) => number.toLocaleString("en-US");

/** A number of things in words: "1 click", "2 clicks". @param {number} number @param {string} thing */
export const several = (number, thing) => `${counted(number)} ${thing}${number === 1 ? "" : "s"}`;
