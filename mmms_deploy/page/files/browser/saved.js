/**
 * An annotation as plain data, and back, in the form of Session.to_dict() (mmms_deploy/session/saved.py).
 *
 * @typedef {import("./masks.js").Mask} Mask
 * @typedef {{kind: "click", x: number, y: number, positive: boolean}} Click
 * @typedef {{kind: "choice", index: number}} Choice
 * @typedef {{kind: "mask", mask: Mask, previous: Float32Array, binary: boolean}} MaskInput  A mask that was put in, and
 *     what the network sees of it.
 * @typedef {Click|Choice|MaskInput} Interaction
 */

import { Failure } from "./failures.js";
import { previousOf, previousRule } from "./forms.js";
import { maskOfRle, rleOf, wholeOf } from "./masks.js";
import { resize, throughImage } from "./resize.js";

const FORMAT = "mmms-deploy-session";
const VERSION = 1;
const EXPECTED = "what annotation() returned, also as JSON reads it";
/** The largest label of a map of 16 bits. */
export const GREATEST = 65535;
/** The most numbers of a map. */
const MOST = 1 << 24;

/**
 * Check a click.
 *
 * @param {number} x
 * @param {number} y
 * @param {boolean|number} positive
 * @param {[number, number]} size (H0, W0).
 * @returns {Click}
 */
export function checkedClick(x, y, positive, [height, width]) {
  const given = `click (${x}, ${y})`;
  if (typeof x !== "number" || typeof y !== "number") {
    throw new Failure("ClickError", given, "two numbers, x and y in image pixels", "pass the numbers");
  }
  if (!(positive === true || positive === false || positive === 1 || positive === 0)) {
    throw new Failure(
      "ClickError",
      `${given} with positive=${positive}`,
      "true or 1 on the object, false or 0 off it",
      "pass one of them",
    );
  }
  if (!(Number.isFinite(x) && Number.isFinite(y))) {
    throw new Failure("ClickError", given, "finite numbers", "check how the click was computed");
  }
  if (!(x >= -0.5 && x < width - 0.5 && y >= -0.5 && y < height - 0.5)) {
    throw new Failure(
      "ClickError",
      `${given} is outside of the image`,
      `-0.5 <= x < ${width - 0.5} and -0.5 <= y < ${height - 0.5} (x is the column, y the row)`,
      "click inside the image",
    );
  }
  return { kind: "click", x, y, positive: Boolean(positive) };
}

/** Check the name of an object. @param {unknown} name @returns {string} */
export function checkedName(name) {
  if (typeof name !== "string" || !name) {
    throw new Failure("SurfaceError", `surface ${JSON.stringify(name)}`, "a name, such as 'car'", "give it a name");
  }
  return name;
}

/**
 * Return objects as an annotation.
 *
 * @param {{all: Map<string, any>, name: string, given: number}} surfaces
 * @param {[number, number]} size (H0, W0).
 * @param {[number, number]} network (H, W) of the answer.
 * @param {any} contract
 * @returns {Promise<object>}
 */
export async function saved(surfaces, size, network, contract) {
  const described = [];
  for (const [name, { label, changed, history }] of surfaces.all) {
    const interactions = [];
    for (const given of history.newest.interactions) {
      interactions.push(await savedInteraction(given, size, network, contract));
    }
    described.push({ name, label, changed, undone: history.future.length, interactions });
  }
  return {
    format: FORMAT,
    version: VERSION,
    image_size: [...size],
    surface: surfaces.name,
    labels_given: surfaces.given,
    surfaces: described,
  };
}

async function savedInteraction(given, size, network, contract) {
  if (given.kind === "click") {
    return [given.x, given.y, given.positive ? 1 : 0];
  }
  if (given.kind === "choice") {
    return { choice: given.index };
  }
  const mask = rleOf(given.mask, size);
  const plain = given.binary || isSame(previousOf(wholeOf(given.mask, size), size, network, contract), given.previous);
  return plain ? { mask } : { mask, previous: { size: [...network], zlib: await packed(given.previous) } };
}

function isSame(one, other) {
  return one.every((number, i) => number === other[i]);
}

/**
 * Check an annotation as far as no network is needed for it.
 *
 * @param {any} given
 * @param {[number, number]} size (H0, W0) of the image.
 * @returns {any} The same.
 */
export function checkedAnnotation(given, size) {
  const fix = "check where it comes from";
  const problem = formProblem(given);
  if (problem) {
    throw new Failure("SessionError", `this is no saved session: ${problem}`, EXPECTED, fix);
  }
  const contradiction = contradictionIn(given);
  if (contradiction) {
    throw new Failure("SessionError", `the saved session contradicts itself: ${contradiction}`, EXPECTED, fix);
  }
  if (given.image_size[0] !== size[0] || given.image_size[1] !== size[1]) {
    throw new Failure(
      "SessionError",
      `the saved session is about an image of (${given.image_size.join(", ")}), and this one has (${size.join(", ")})`,
      "the same image: (height, width)",
      "open the image that was annotated",
    );
  }
  return given;
}

const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isSize = (value) => Array.isArray(value) && value.length === 2 && value.every((side) => isCount(side) && side);

function formProblem(given) {
  if (typeof given !== "object" || given === null || given.format !== FORMAT || given.version !== VERSION) {
    return `its format is not ${FORMAT} ${VERSION}`;
  }
  if (!isSize(given.image_size) || typeof given.surface !== "string" || !isCount(given.labels_given)) {
    return "its size, current surface or number of labels is none";
  }
  if (!Array.isArray(given.surfaces) || !given.surfaces.every(isSurface)) {
    return "one of its surfaces is none";
  }
  return given.surfaces.flatMap((surface) => surface.interactions).every(isInteraction)
    ? ""
    : "an interaction is neither a click, nor a mask, nor a choice";
}

function isSurface(one) {
  return (
    typeof one === "object" &&
    one !== null &&
    typeof one.name === "string" &&
    one.name !== "" &&
    isCount(one.label) &&
    one.label > 0 &&
    isCount(one.changed) &&
    isCount(one.undone) &&
    Array.isArray(one.interactions)
  );
}

function isInteraction(one) {
  if (Array.isArray(one)) {
    return one.length === 3 && one.every((number) => typeof number === "number") && (one[2] === 0 || one[2] === 1);
  }
  if (typeof one !== "object" || one === null) {
    return false;
  }
  const isMask = isSize(one.mask?.size) && typeof one.mask.counts === "string";
  const isMap = one.previous == null || (isSize(one.previous.size) && typeof one.previous.zlib === "string");
  return one.choice == null ? isMask && isMap : isCount(one.choice) && one.mask == null && one.previous == null;
}

function contradictionIn({ surface, surfaces, labels_given: given }) {
  const names = surfaces.map((one) => one.name);
  const labels = surfaces.map((one) => one.label);
  if (!names.includes(surface)) {
    return `its current surface '${surface}' is none of its surfaces`;
  }
  if (new Set(names).size < names.length || new Set(labels).size < labels.length) {
    return "two of its surfaces have the same name or label";
  }
  const greatest = labels.reduce((most, label) => Math.max(most, label), 0);
  if (greatest > given) {
    return "a surface has a label that was never given";
  }
  if (greatest > GREATEST) {
    return `a label is above ${GREATEST}, the largest in a browser`;
  }
  return surfaces.some((one) => one.undone > one.interactions.length) ? "more is undone than there is" : "";
}

/**
 * Return the interactions of a saved object, checked.
 *
 * @param {any} surface As it was saved.
 * @param {[number, number]} size (H0, W0).
 * @param {[number, number]} network (H, W) of the answer.
 * @param {any} contract
 * @returns {Promise<Interaction[]>}
 */
export async function interactionsOf(surface, size, network, contract) {
  const found = [];
  for (const [place, given] of surface.interactions.entries()) {
    try {
      found.push(await interactionOf(given, size, network, contract));
    } catch (error) {
      throw new Failure(
        "SessionError",
        `interaction ${place + 1} of the surface '${surface.name}' cannot be restored: ${error.given ?? error.message}`,
        EXPECTED,
        "check where it comes from",
      );
    }
  }
  return found;
}

async function interactionOf(given, size, network, contract) {
  if (Array.isArray(given)) {
    return checkedClick(given[0], given[1], given[2], size);
  }
  if (given.choice != null) {
    return { kind: "choice", index: given.choice };
  }
  if (given.mask.size[0] !== size[0] || given.mask.size[1] !== size[1]) {
    throw new RangeError(`its mask has the size (${given.mask.size.join(", ")})`);
  }
  const mask = maskOfRle(given.mask.counts, size);
  if (given.previous == null) {
    return { kind: "mask", mask, previous: previousOf(wholeOf(mask, size), size, network, contract), binary: true };
  }
  const seen = await unpacked(given.previous);
  return { kind: "mask", mask, previous: atNetwork(seen, size, network, contract).numbers, binary: false };
}

/** Return a probability of any size as the network sees it; one of its own size is that already. */
function atNetwork(plane, size, network, contract) {
  if (plane.height === network[0] && plane.width === network[1]) {
    return plane;
  }
  const resized = resize(plane, network, previousRule(contract));
  return contract.previous_resize === null
    ? resized
    : throughImage(resized, size, contract.mask_resize, contract.previous_resize);
}

async function packed(numbers) {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const content = await through(bytes, CompressionStream);
  let text = "";
  for (let start = 0; start < content.length; start += 0x8000) {
    text += String.fromCharCode(...content.subarray(start, start + 0x8000));
  }
  return btoa(text);
}

async function unpacked({ size: [height, width], zlib }) {
  if (height * width > MOST) {
    throw new RangeError(`its map has the size (${height}, ${width})`);
  }
  const content = await through(Uint8Array.from(atob(zlib), (letter) => letter.charCodeAt(0)), DecompressionStream);
  if (content.byteLength !== 4 * height * width) {
    throw new RangeError("its map has another number of bytes than its size says");
  }
  const numbers = new Float32Array(content.buffer, content.byteOffset, height * width);
  if (!numbers.every((number) => number >= 0 && number <= 1)) {
    throw new RangeError("its map holds numbers that are no probabilities");
  }
  return { height, width, numbers };
}

/** Send bytes through a stream of zlib; what comes out is cut off a little beyond the largest map. */
async function through(bytes, Stream) {
  const reader = new Blob([bytes]).stream().pipeThrough(new Stream("deflate")).getReader();
  const parts = [];
  let length = 0;
  for (let part = await reader.read(); !part.done && length <= 4 * MOST; part = await reader.read()) {
    parts.push(part.value);
    length += part.value.length;
  }
  await reader.cancel();
  const whole = new Uint8Array(length);
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}
