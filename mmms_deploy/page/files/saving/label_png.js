import { deflated, inflate } from "./deflate.js";
import { checkedName, checkLabel, checkMap, GREATEST, PIXELS } from "./label_map.js";
import { chunk, chunksOf, SIGNATURE } from "./png_chunks.js";
import { rowBytes, RowReader } from "./png_rows.js";
import { refusal, shown } from "./refusal.js";

/** The keyword of the text chunk with the names: a JSON object of names and labels. */
const KEY = "mmms_labels";
/** The most bytes of a file that is read, and of its names when they are unpacked. */
const [FILE, TEXT] = [512 << 20, 1 << 20];
/** The most bytes that one packed byte can stand for. */
const RATIO = 1032;
const CHANNELS = { 2: 3, 4: 2, 6: 4 };
const BITS = { 0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8] };
const EXPECTED = "a picture of labels, one number a pixel: PNG with a palette, or grey with 8 or 16 bits";

/**
 * Write a label map with the names of its labels as a PNG file, as `Session.save_labels` does.
 *
 * Labels up to 255 are a palette picture in the colours of PASCAL VOC, which every viewer shows; others are 16-bit
 * grey. The names are in the file, as JSON in a text chunk.
 *
 * @param {object} given
 * @param {Uint16Array} given.labels The label of every pixel, row by row; 0 is background
 * @param {number} given.width
 * @param {number} given.height
 * @param {Map<number, string>} given.names The name of every label
 * @returns {Promise<Blob>} image/png
 * @throws {AnswerError} AnnotationError: they are no labels, or two labels have the same name
 */
export async function labelPng({ labels, width, height, names }) {
  checkMap({ labels, width, height });
  const text = textOf(names);
  let greatest = Math.max(0, ...names.keys());
  for (let place = 0; place < labels.length; place += 1) if (labels[place] > greatest) greatest = labels[place];
  const wide = greatest > 255;
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = wide ? 16 : 8;
  header[9] = wide ? 0 : 3;
  const parts = [SIGNATURE, chunk("IHDR", header), chunk("iTXt", text)];
  if (!wide) parts.push(chunk("PLTE", palette()));
  parts.push(chunk("IDAT", await deflated(rowsOf(labels, width, height, wide))), chunk("IEND", new Uint8Array(0)));
  return new Blob(parts, { type: "image/png" });
}

function textOf(names) {
  for (const [label, name] of names) checkLabel(label, checkedName(name));
  if (new Set(names.values()).size < names.size) {
    throw refusal("AnnotationError", "two labels have the same name", "each name once", "give each label its own");
  }
  // Not by an object, which would sort names that are numbers.
  const json = [...names].map(([label, name]) => `${JSON.stringify(name)}: ${label}`).join(", ");
  // Not packed, and neither a language nor a translated keyword.
  return new TextEncoder().encode(`${KEY}\0\0\0\0\0{${json}}`);
}

/** Return the colours of PASCAL VOC: R, G, B of the labels 0 to 255. */
function palette() {
  const colours = new Uint8Array(768);
  for (let place = 0; place < 768; place += 1) {
    const [label, channel] = [Math.floor(place / 3), place % 3];
    for (let bit = 0; bit < 8; bit += 1) colours[place] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit);
  }
  return colours;
}

/** Return the rows as PNG has them: the filter's number, which is 0, and the samples with the greater byte first. */
function rowsOf(labels, width, height, wide) {
  const bytes = wide ? 2 * width : width;
  const rows = new Uint8Array((bytes + 1) * height);
  for (let row = 0; row < height; row += 1) {
    const start = row * (bytes + 1) + 1;
    if (!wide) {
      rows.set(labels.subarray(row * width, (row + 1) * width), start);
      continue;
    }
    for (let column = 0; column < width; column += 1) {
      const label = labels[row * width + column];
      rows[start + 2 * column] = label >> 8;
      rows[start + 2 * column + 1] = label;
    }
  }
  return rows;
}

/**
 * Read a label map and the names of its labels from a PNG file, as `mmms_deploy.annotations.read_labels` does.
 *
 * Every checksum is compared. Nothing of the picture's size is allocated before the file is long enough to hold so
 * much, and nothing beyond that size is ever unpacked.
 *
 * @param {Blob} file With a palette, or grey with 1 to 16 bits; interlaced or not
 * @param {[number, number]} [size] [H, W] that it has to have; left out, any with at most 178,956,970 pixels
 * @returns {Promise<{labels: Uint16Array, width: number, height: number, names: Map<number, string>}>} The numbers as
 *   stored; and the name of every label, smallest label first: one without a name is called by its number
 * @throws {AnswerError} AnnotationError: it cannot be read, its numbers are no labels, or it has another size
 */
export async function readLabelPng(file, size) {
  if (file.size > FILE) throw refused(`it has ${file.size} bytes, and at most ${FILE} are read`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const chunks = attempted(() => chunksOf(bytes));
  const header = headerOf(chunks[0]);
  const { width, height } = header;
  if (size && (height !== size[0] || width !== size[1])) {
    throw refusal(
      "AnnotationError",
      `the labels have ${width} columns and ${height} rows`,
      `those of the image: ${size[1]} columns and ${size[0]} rows`,
      "open the image that was annotated",
    );
  }
  checkUpright(chunks);
  const packed = chunks.filter(({ type }) => type === "IDAT").map(({ content }) => content);
  const length = packed.reduce((sum, part) => sum + part.length, 0);
  if (length * RATIO < rowBytes(header)) {
    throw refused(`it says ${width} x ${height} pixels, and its data is too short`);
  }
  const stored = await namesOf(chunks);
  const reader = attempted(() => new RowReader(header));
  await unpack(packed, (part) => attempted(() => reader.take(part)));
  if (!reader.complete) throw refused("its data ends too early");
  return { labels: reader.samples, width, height, names: named(reader.samples, stored) };
}

function headerOf(first) {
  if (first.type !== "IHDR" || first.content.length !== 13) throw refused("it does not begin with its size");
  const view = new DataView(first.content.buffer, first.content.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [bits, colour, packing, filters, interlaced] = first.content.subarray(8);
  if (colour in CHANNELS) throw refused(`it has ${CHANNELS[colour]} channels: its colours are no labels`);
  if (!BITS[colour]?.includes(bits) || packing || filters || interlaced > 1) throw refused("its header is damaged");
  if (!width || !height || width * height > PIXELS) {
    throw refused(`it says ${width} x ${height} pixels, and at most ${PIXELS} are read`);
  }
  return { width, height, bits, interlaced };
}

/** Refuse a picture that other programs would turn: its numbers are not in the places where they are seen. */
function checkUpright(chunks) {
  const content = chunks.find(({ type }) => type === "eXIf")?.content;
  if (!content || content.length < 8) return;
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const little = content[0] === 0x49;
  const start = view.getUint32(4, little);
  const entries = start + 2 <= content.length ? view.getUint16(start, little) : 0;
  for (let entry = start + 2; entry < start + 2 + 12 * entries && entry + 12 <= content.length; entry += 12) {
    const turned = view.getUint16(entry, little) === 0x112 && view.getUint16(entry + 8, little);
    if (turned > 1 && turned < 9) throw refused("its EXIF data says that it has to be turned");
  }
}

/** Return the names in a file, by label; none where it has no names. */
async function namesOf(chunks) {
  const texts = chunks.filter(({ type, content }) => {
    return ["iTXt", "tEXt", "zTXt"].includes(type) && latin(content.subarray(0, KEY.length + 1)) === `${KEY}\0`;
  });
  if (!texts.length) return new Map();
  try {
    return checkedNames(JSON.parse(await contentOf(texts.at(-1))));
  } catch (error) {
    throw refused(`the names of its labels are damaged: ${error.given ?? error.message}`);
  }
}

async function contentOf({ type, content }) {
  let rest = content.subarray(KEY.length + 1);
  if (type === "tEXt") return latin(rest);
  const packed = type === "zTXt" || rest[0] === 1;
  if (type === "zTXt") {
    rest = rest.subarray(1);
  } else {
    // Whether it is packed and how, then a language and a translated keyword, each up to a zero.
    const language = rest.indexOf(0, 2);
    const keyword = language < 0 ? -1 : rest.indexOf(0, language + 1);
    if (keyword < 0) throw new Error("the text has no end");
    rest = rest.subarray(keyword + 1);
  }
  if (packed) rest = await unpackedText(rest);
  return type === "zTXt" ? latin(rest) : new TextDecoder("utf-8", { fatal: true }).decode(rest);
}

async function unpackedText(packed) {
  const parts = [];
  let length = 0;
  await unpack([packed], (part) => {
    length += part.length;
    if (length > TEXT) throw new Error(`they have more than ${TEXT} bytes`);
    parts.push(part);
  });
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function latin(bytes) {
  if (bytes.length > TEXT) throw new Error(`they have more than ${TEXT} bytes`);
  // The decoder's "latin1" is another code between 128 and 159.
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function checkedNames(found) {
  if (typeof found !== "object" || found === null || Array.isArray(found)) throw new Error(`they are ${shown(found)}`);
  const names = new Map();
  for (const [name, label] of Object.entries(found)) {
    checkLabel(label, checkedName(name));
    if (names.has(label)) throw new Error(`two names have the label ${label}`);
    names.set(label, name);
  }
  return names;
}

/** Return a name for every label, smallest label first. */
function named(labels, stored) {
  const present = new Uint8Array(GREATEST + 1);
  for (let place = 0; place < labels.length; place += 1) present[labels[place]] = 1;
  const taken = new Set(stored.values());
  const names = [...stored];
  for (let label = 1; label <= GREATEST; label += 1) {
    if (!present[label] || stored.has(label)) continue;
    let name = String(label);
    while (taken.has(name)) name += "'";
    taken.add(name);
    names.push([label, name]);
  }
  return new Map(names.sort(([one], [other]) => one - other));
}

async function unpack(parts, take) {
  try {
    await inflate(parts, take);
  } catch (error) {
    throw error instanceof TypeError ? refused("its data is damaged or ends too early") : error;
  }
}

function attempted(read) {
  try {
    return read();
  } catch (error) {
    throw error instanceof RangeError ? refused("there is not enough memory") : refused(error.message);
  }
}

function refused(problem) {
  const given = `the labels cannot be read: ${problem}`;
  return refusal("AnnotationError", given, EXPECTED, "check where the file comes from");
}
