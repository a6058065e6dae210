/** Where the pixels of every pass begin, and the steps between them: one pass of all pixels, or the seven of Adam7. */
const PASSES = [
  [[0, 0, 1, 1]],
  [
    [0, 0, 8, 8],
    [4, 0, 8, 8],
    [0, 4, 4, 8],
    [2, 0, 4, 4],
    [0, 2, 2, 4],
    [1, 0, 2, 2],
    [0, 1, 1, 2],
  ],
];

/**
 * @typedef {object} Header
 * @property {number} width
 * @property {number} height
 * @property {number} bits Of a sample: 1, 2, 4, 8 or 16; there is one sample a pixel
 * @property {0 | 1} interlaced
 */

/** @param {Header} header */
function passesOf({ width, height, bits, interlaced }) {
  return PASSES[interlaced]
    .map(([x, y, across, down]) => {
      const columns = Math.ceil((width - x) / across);
      const rows = Math.ceil((height - y) / down);
      return { x, y, across, down, columns, rows, bytes: Math.ceil((columns * bits) / 8) };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
}

/**
 * Return how many bytes the rows of a picture have before they are packed.
 *
 * @param {Header} header
 * @returns {number}
 */
export function rowBytes(header) {
  return passesOf(header).reduce((sum, { rows, bytes }) => sum + rows * (bytes + 1), 0);
}

/** Receives the unpacked bytes of a picture in parts of any length, and fills in the samples. */
export class RowReader {
  /** @param {Header} header */
  constructor(header) {
    this.header = header;
    this.samples = new Uint16Array(header.width * header.height);
    this.passes = passesOf(header);
    this.pass = -1;
    this.turnPass();
  }

  turnPass() {
    this.pass += 1;
    this.row = 0;
    this.filled = 0;
    if (this.complete) return;
    const { bytes } = this.passes[this.pass];
    // The filter's number, and the bytes of the row.
    this.line = new Uint8Array(bytes + 1);
    this.above = new Uint8Array(bytes + 1);
  }

  /** Whether every row is there. */
  get complete() {
    return this.pass === this.passes.length;
  }

  /**
   * @param {Uint8Array} part
   * @throws {Error} There is more than the picture has, or a row has an unknown filter
   */
  take(part) {
    for (let place = 0; place < part.length; ) {
      if (this.complete) throw new Error("its data has more rows than the picture");
      const taken = Math.min(part.length - place, this.line.length - this.filled);
      this.line.set(part.subarray(place, place + taken), this.filled);
      this.filled += taken;
      place += taken;
      if (this.filled === this.line.length) this.takeRow();
    }
  }

  takeRow() {
    const pass = this.passes[this.pass];
    unfilter(this.line, this.above, this.header.bits === 16 ? 2 : 1);
    const start = (pass.y + this.row * pass.down) * this.header.width + pass.x;
    spread(this.line, this.header.bits, this.samples, start, pass.across, pass.columns);
    [this.line, this.above] = [this.above, this.line];
    this.filled = 0;
    this.row += 1;
    if (this.row === pass.rows) this.turnPass();
  }
}

/** Take back the filter of a row; both lines begin with the filter's number. `step` is the bytes of a pixel. */
function unfilter(line, above, step) {
  const { length } = line;
  switch (line[0]) {
    case 0:
      return;
    case 1:
      for (let place = step + 1; place < length; place += 1) line[place] += line[place - step];
      return;
    case 2:
      for (let place = 1; place < length; place += 1) line[place] += above[place];
      return;
    case 3:
      for (let place = 1; place < length; place += 1) {
        line[place] += ((place > step ? line[place - step] : 0) + above[place]) >> 1;
      }
      return;
    case 4:
      for (let place = 1; place < length; place += 1) {
        const first = place <= step;
        line[place] += paeth(first ? 0 : line[place - step], above[place], first ? 0 : above[place - step]);
      }
      return;
    default:
      throw new Error(`a row has the filter ${line[0]}, and PNG has 0 to 4`);
  }
}

function paeth(left, up, corner) {
  const [toLeft, toUp, toCorner] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

/** Write the samples of a row into the picture, from `start` on, `across` pixels apart. */
function spread(line, bits, samples, start, across, columns) {
  if (bits === 8 && across === 1) {
    samples.set(line.subarray(1), start);
    return;
  }
  const mask = (1 << bits) - 1;
  for (let column = 0, place = start; column < columns; column += 1, place += across) {
    if (bits === 16) {
      samples[place] = (line[2 * column + 1] << 8) | line[2 * column + 2];
    } else {
      const bit = column * bits;
      samples[place] = (line[1 + (bit >> 3)] >> (8 - bits - (bit & 7))) & mask;
    }
  }
}
