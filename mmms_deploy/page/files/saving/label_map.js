import { refusal, shown } from "./refusal.js";

/** The greatest label that a PNG file holds. */
export const GREATEST = 65535;
/** The most pixels of a picture, as the Python package takes them. */
export const PIXELS = 178956970;

/**
 * @typedef {object} LabelMap
 * @property {Uint16Array} labels The label of every pixel, row by row; 0 is background
 * @property {number} width
 * @property {number} height
 */

/**
 * @typedef {object} SavedObject
 * @property {number} label Its number in the label map, 1 to 65535
 * @property {string} name Its name
 * @property {Array<[number, number, 0 | 1]>} [clicks] x, y in image pixels, pixel centres at integers; 1 on the object
 * @property {string} [category] Name of its category in a COCO file; left out, its own name
 */

/**
 * Check that a label map fits its size.
 *
 * @param {LabelMap} map
 * @throws {AnswerError} AnnotationError: it does not
 */
export function checkMap({ labels, width, height }) {
  const sides = [width, height].every((side) => Number.isInteger(side) && side >= 1);
  if (labels instanceof Uint16Array && sides && labels.length === width * height) return;
  const what = labels instanceof Uint16Array ? `${labels.length} labels` : `labels of type ${typeof labels}`;
  throw refusal(
    "AnnotationError",
    `${what} for ${shown(width)} columns and ${shown(height)} rows`,
    "a Uint16Array with the label of every pixel, row by row",
    "pass labels, width and height of one image",
  );
}

/**
 * Check the name of an object or a file.
 *
 * @param {unknown} name
 * @returns {string} The name
 * @throws {AnswerError} AnnotationError: it is no text, empty, or holds half of a surrogate pair
 */
export function checkedName(name) {
  if (typeof name === "string" && name !== "" && !/\p{Surrogate}/u.test(name)) return name;
  const expected = "a text in Unicode that is not empty";
  throw refusal("AnnotationError", `the name ${shown(name)}`, expected, "choose another name");
}

/**
 * Check a label.
 *
 * @param {unknown} label
 * @param {string} name Name of its object, for messages
 * @throws {AnswerError} AnnotationError: it is no whole number from 1 to 65535
 */
export function checkLabel(label, name) {
  if (Number.isInteger(label) && label >= 1 && label <= GREATEST) return;
  throw refusal(
    "AnnotationError",
    `the name ${shown(name)} has the label ${shown(label)}`,
    `a whole number from 1 to ${GREATEST}`,
    "number the objects from 1",
  );
}

/**
 * Check the objects of a label map.
 *
 * @param {SavedObject[]} objects
 * @throws {AnswerError} AnnotationError: a name, a label or a click is none, or two objects have the same label
 */
export function checkObjects(objects) {
  const seen = new Set();
  for (const { label, name, clicks = [], category = name } of objects) {
    checkedName(name);
    checkedName(category);
    checkLabel(label, name);
    if (seen.has(label)) {
      const given = `two objects have the label ${label}`;
      throw refusal("AnnotationError", given, "one object a label", "give each its own");
    }
    seen.add(label);
    for (const click of clicks) {
      const right = Array.isArray(click) && click.length === 3 && click.every(Number.isFinite);
      if (right && (click[2] === 0 || click[2] === 1)) continue;
      const given = `a click is ${shown(click)}`;
      throw refusal("AnnotationError", given, "[x, y, 1 or 0], finite", "pass the answer's clicks");
    }
  }
}
