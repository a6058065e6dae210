import { refusal, shown } from "./refusal.js";

const FORMAT = "mmms-deploy-session";
const VERSION = 1;
const GREATEST = 1 << 30;
const CHOICES = 64;
const EXPECTED = "an annotation that was saved here, or what Session.to_dict() returned";

/**
 * Write an annotation as a file: the very data that `Session.restore` takes, to which nothing can be added.
 *
 * @param {object} given
 * @param {object} given.annotation `Session.to_dict()`'s form
 * @returns {string} JSON
 * @throws {AnswerError} SessionError: it is something else
 */
export function annotationJson({ annotation }) {
  check(annotation);
  return `${JSON.stringify(annotation)}\n`;
}

/**
 * Read an annotation from a file.
 *
 * @param {string} text JSON
 * @param {[number, number]} [size] [H0, W0] of the image that it has to belong to; left out, of any
 * @returns {object} `Session.to_dict()`'s form; its masks are not decoded yet
 * @throws {AnswerError} SessionError: it is something else, contradicts itself, or belongs to an image of another size
 */
export function readAnnotation(text, size) {
  let annotation;
  try {
    annotation = JSON.parse(text);
  } catch (error) {
    throw refused(`the file is no JSON: ${error.message}`);
  }
  check(annotation);
  const found = annotation.image_size;
  if (size && (found[0] !== size[0] || found[1] !== size[1])) {
    throw refusal(
      "SessionError",
      `the annotation is about an image of ${found[1]} x ${found[0]}, and this one has ${size[1]} x ${size[0]}`,
      "the same image",
      "open the image that was annotated",
    );
  }
  return annotation;
}

/** @param {unknown} given */
function check(given) {
  const found = fields(given, "the file", {
    format: (value) => value === FORMAT,
    version: (value) => value === VERSION,
    image_size: isSize,
    surface: isText,
    labels_given: isLabel,
    surfaces: Array.isArray,
    order: optional((value) => Array.isArray(value) && value.every(isLabel)),
  });
  for (const surface of found.surfaces) checkSurface(surface, found.image_size);
  const names = new Set(found.surfaces.map(({ name }) => name));
  const labels = new Set(found.surfaces.map(({ label }) => label));
  if (!names.has(found.surface)) {
    throw refused(`its current surface ${shown(found.surface)} is none of its surfaces`);
  }
  if (names.size < found.surfaces.length || labels.size < found.surfaces.length) {
    throw refused("two of its surfaces have the same name or label");
  }
  if (found.surfaces.some(({ label }) => label > found.labels_given)) {
    throw refused("a surface has a label that was never given");
  }
  if (found.order !== undefined && !isOrder(found)) throw refused("its order is not that of its interactions");
}

function checkSurface(given, size) {
  const surface = fields(given, "a surface", {
    name: (value) => isText(value) && value !== "",
    label: isLabel,
    changed: isCount,
    undone: isCount,
    interactions: Array.isArray,
  });
  surface.interactions.forEach((one, number) => {
    checkInteraction(one, size, `interaction ${number + 1} of the surface ${shown(surface.name)}`);
  });
  if (surface.undone > surface.interactions.length) throw refused("more interactions are undone than there are");
}

function checkInteraction(given, [height, width], where) {
  if (Array.isArray(given)) {
    const [x, y, positive] = given;
    const right = given.length === 3 && Number.isFinite(x) && Number.isFinite(y) && (positive === 0 || positive === 1);
    if (!right) throw refused(`${where} is ${shown(given)}, no [x, y, 1 or 0]`);
    if (!(x >= -0.5 && x < width - 0.5 && y >= -0.5 && y < height - 0.5)) {
      throw refused(`${where} is a click outside of the image: ${shown(given)}`);
    }
    return;
  }
  const step = fields(given, where, {
    mask: optional((value) => isObject(value)),
    previous: optional((value) => isObject(value)),
    choice: optional((value) => isCount(value) && value < CHOICES),
  });
  const [mask, previous, choice] = [step.mask ?? null, step.previous ?? null, step.choice ?? null];
  if ((mask === null) === (choice === null) || (mask === null && previous !== null)) {
    throw refused(`${where} is no click, mask or choice`);
  }
  if (mask !== null) {
    fields(mask, `the mask of ${where}`, { size: isSize, counts: isText });
    if (mask.size[0] !== height || mask.size[1] !== width) throw refused(`the mask of ${where} has another size`);
  }
  if (previous !== null) fields(previous, `the map of ${where}`, { size: isSize, zlib: isText });
}

/** Whether the order has every interaction once, and those that are undone last. */
function isOrder({ order, surfaces }) {
  const undone = surfaces.reduce((sum, surface) => sum + surface.undone, 0);
  const every = counts(order);
  const last = counts(order.slice(Math.max(0, order.length - undone)));
  const length = surfaces.reduce((sum, surface) => sum + surface.interactions.length, 0);
  return (
    order.length === length &&
    surfaces.every(({ label, interactions, undone: own }) => {
      return (every.get(label) ?? 0) === interactions.length && (last.get(label) ?? 0) === own;
    })
  );
}

function counts(labels) {
  const found = new Map();
  for (const label of labels) found.set(label, (found.get(label) ?? 0) + 1);
  return found;
}

/**
 * Check the fields of an object: each is there unless it is optional, and there is no other one.
 *
 * @param {unknown} given
 * @param {string} where What it is, for messages
 * @param {Record<string, (value: unknown) => boolean>} rules Whether a field is right
 * @returns {any} The object
 */
function fields(given, where, rules) {
  if (!isObject(given)) throw refused(`${where} is ${shown(given)}`);
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(rules, key)) throw refused(`${where} has the field ${shown(key)}`);
  }
  for (const [key, rule] of Object.entries(rules)) {
    const value = Object.hasOwn(given, key) ? given[key] : undefined;
    if (rule(value)) continue;
    throw refused(value === undefined ? `${where} has no ${key}` : `${where} has the ${key} ${shown(value)}`);
  }
  return given;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isLabel = (value) => Number.isInteger(value) && value >= 1 && value <= GREATEST;
const isSide = (value) => isCount(value) && value >= 1;
const isSize = (value) => Array.isArray(value) && value.length === 2 && value.every(isSide);
const optional = (rule) => (value) => value === undefined || value === null || rule(value);

function refused(given) {
  return refusal("SessionError", `this is no saved annotation: ${given}`, EXPECTED, "check where the file comes from");
}
