/**
 * What answers of the API are made of: errors, frames, and label maps as run lengths.
 */

/**
 * @typedef {{x: number, y: number, width: number, height: number}} Changed Where the label map changed, in pixels.
 * @typedef {{name: string, label: number, clicks: number[][], area: number, box: number[] | null}} Surface An object.
 * @typedef {object} Answer
 * @property {Surface[]} surfaces
 * @property {string} surface Name of the current object.
 * @property {boolean} can_undo
 * @property {boolean} can_redo
 * @property {{score: number, taken: boolean}[]} candidates
 * @property {{engine: ?number, mask: ?number, total: ?number, compile: ?number}} timings Milliseconds.
 * @property {"server" | "browser"} where
 * @property {?Changed} changed
 * @property {Uint16Array} labels The labels of the changed rectangle, row by row; empty where nothing changed.
 */

/** A call that failed: what was given, what was expected, and how to fix it. */
export class AnswerError extends Error {
  /**
   * @param {{kind: string, given: string, expected?: ?string, fix?: ?string, text?: string}} fields
   * @param {number} [status] The HTTP status; 0 where there is none.
   */
  constructor(fields, status = 0) {
    const parts = [fields.given, fields.expected && `expected: ${fields.expected}`, fields.fix && `to fix: ${fields.fix}`];
    super(fields.text ?? parts.filter(Boolean).join("\n  "));
    this.name = "AnswerError";
    this.kind = fields.kind;
    this.given = fields.given;
    this.expected = fields.expected ?? null;
    this.fix = fields.fix ?? null;
    this.status = status;
  }
}

/**
 * Return the error of calls whose server or worker is gone.
 * @param {string} [given] What happened.
 */
export function lostError(given = "the connection to the server is lost") {
  return new AnswerError({
    kind: "LostError",
    given,
    expected: "a server that answers",
    fix: "check that the server runs, and try again",
  });
}

/**
 * Take a frame apart.
 * @param {ArrayBuffer} content uint32 length of the header, the header in JSON, the payload.
 * @returns {{header: object, payload: Uint8Array}} The payload begins at a multiple of 4 bytes of its buffer.
 */
export function unframe(content) {
  const length = content.byteLength < 4 ? Infinity : new DataView(content).getUint32(0, true);
  if (length % 4 !== 0 || 4 + length > content.byteLength) {
    throw new RangeError(`a frame of ${content.byteLength} bytes announces a header of ${length}`);
  }
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  return { header, payload: new Uint8Array(content, 4 + length) };
}

/**
 * Return labels that are written as run lengths.
 * @param {Uint8Array} payload Pairs (label, run length), uint32, little-endian; it begins at a multiple of 4 bytes.
 * @param {number} count How many labels there are.
 * @returns {Uint16Array}
 */
export function decodeRuns(payload, count) {
  if (payload.byteLength % 8 !== 0) {
    throw new RangeError(`run lengths have pairs of 8 bytes, and not ${payload.byteLength} bytes`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const labels = new Uint16Array(count);
  let at = 0;
  for (let byte = 0; byte < payload.byteLength; byte += 8) {
    const label = view.getUint32(byte, true);
    const end = at + view.getUint32(byte + 4, true);
    if (end > count) {
      throw new RangeError(`run lengths of more than ${count} labels`);
    }
    if (label !== 0) {
      labels.fill(label, at, end);
    }
    at = end;
  }
  if (at !== count) {
    throw new RangeError(`run lengths of ${at} labels, and not of ${count}`);
  }
  return labels;
}

/**
 * Return an answer with its labels in the place of the payload.
 * @param {object} answer The answer of a live header.
 * @param {Uint8Array} payload
 * @returns {Answer}
 */
export function answerOf(answer, payload) {
  const { changed } = answer;
  return { ...answer, labels: decodeRuns(payload, changed === null ? 0 : changed.width * changed.height) };
}
