// The label map and what is painted of it. Only the box that an answer changed is painted again, at the picture's own
// resolution; drawing it larger or smaller is the canvas' work.

import { colourOf, heatScale } from "./colours.js";

/** Side of the tiles by which outlines are found, in picture pixels. */
const TILE = 256;

/**
 * Finds the outlines inside of a part of a label map.
 *
 * @param {Uint16Array} labels (height, width), row by row.
 * @param {number} width
 * @param {number} height
 * @param {number} x0 The part's first column.
 * @param {number} y0
 * @param {number} x1 The column after its last one.
 * @param {number} y1
 * @param {(label: number, x0: number, y0: number, x1: number, y1: number) => void} edge Gets every straight piece of
 *   the outline of a label's pixels, in pixel edges: pixel 0 lies between 0 and 1.
 */
export function findEdges(labels, width, height, x0, y0, x1, y1, edge) {
  const [lastLine, lastColumn] = [y1 === height ? height + 1 : y1, x1 === width ? width + 1 : x1];
  // Lines: above and below each of them. A line belongs to the part below it, the last one to the part above.
  for (let y = y0; y < lastLine; y += 1) {
    const [above, below] = [y > 0 ? (y - 1) * width : -1, y < height ? y * width : -1];
    let [one, other, start] = [0, 0, x0];
    for (let x = x0; x < x1; x += 1) {
      const upper = above < 0 ? 0 : labels[above + x];
      const lower = below < 0 ? 0 : labels[below + x];
      if (upper === one && lower === other) continue;
      if (one !== other) {
        if (one !== 0) edge(one, start, y, x, y);
        if (other !== 0) edge(other, start, y, x, y);
      }
      [one, other, start] = [upper, lower, x];
    }
    if (one !== other) {
      if (one !== 0) edge(one, start, y, x1, y);
      if (other !== 0) edge(other, start, y, x1, y);
    }
  }
  // Columns, the same; row by row too, as the labels lie in memory, with what every column is in the middle of.
  const across = lastColumn - x0;
  const [lefts, rights, starts] = [new Uint16Array(across), new Uint16Array(across), new Int32Array(across)];
  const end = (place, y) => {
    const [left, right, x] = [lefts[place], rights[place], x0 + place];
    if (left === right) return;
    if (left !== 0) edge(left, x, starts[place], x, y);
    if (right !== 0) edge(right, x, starts[place], x, y);
  };
  for (let y = y0; y < y1; y += 1) {
    const row = y * width;
    let left = x0 > 0 ? labels[row + x0 - 1] : 0;
    for (let place = 0; place < across; place += 1) {
      const right = x0 + place < width ? labels[row + x0 + place] : 0;
      if (left !== lefts[place] || right !== rights[place]) {
        end(place, y);
        [lefts[place], rights[place], starts[place]] = [left, right, y];
      }
      left = right;
    }
  }
  for (let place = 0; place < across; place += 1) end(place, y1);
}

/** The label map of the open picture, its painted masks, outlines and confidence. */
export class Painting {
  /** @param {Set<number>} hidden Labels that are not painted; the caller changes it and calls repaint. */
  constructor(hidden) {
    this.hidden = hidden;
    this.scale = heatScale();
    this.begin(1, 1);
  }

  /** Begins an empty map of a picture. @param {number} width @param {number} height */
  begin(width, height) {
    this.width = width;
    this.height = height;
    /** @type {Uint16Array} The label of every pixel, row by row; 0 is background. */
    this.labels = new Uint16Array(width * height);
    this.masks = Object.assign(document.createElement("canvas"), { width, height });
    this.brush = this.masks.getContext("2d");
    /** @type {Map<number, Map<number, Path2D>>} Outlines by tile and label. */
    this.tiles = new Map();
    this.confidence = null;
  }

  /**
   * Takes the changed part of the label map and paints it.
   * @param {{x: number, y: number, width: number, height: number}} box
   * @param {Uint16Array} values Labels in the box, row by row.
   */
  change(box, values) {
    for (let row = 0; row < box.height; row += 1) {
      const part = values.subarray(row * box.width, (row + 1) * box.width);
      this.labels.set(part, (box.y + row) * this.width + box.x);
    }
    this.paint(box.x, box.y, box.width, box.height);
    // An outline on the other side of the box's edge may begin or end there.
    this.outline(box.x - 1, box.y - 1, box.x + box.width + 1, box.y + box.height + 1);
  }

  /** Paints everything again, after other objects are hidden. */
  repaint() {
    this.paint(0, 0, this.width, this.height);
  }

  paint(x0, y0, width, height) {
    const image = this.brush.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = new Map([[0, 0]]);
    let [label, colour] = [0, 0];
    for (let row = 0, place = 0; row < height; row += 1) {
      let from = (y0 + row) * this.width + x0;
      for (const end = from + width; from < end; from += 1, place += 1) {
        const own = this.labels[from];
        if (own !== label) {
          if (!colours.has(own)) colours.set(own, this.packed(own));
          [label, colour] = [own, colours.get(own)];
        }
        pixels[place] = colour;
      }
    }
    this.brush.putImageData(image, x0, y0);
  }

  /** RGBA in one number, as the bytes lie in memory. */
  packed(label) {
    if (this.hidden.has(label)) return 0;
    return new Uint32Array(new Uint8ClampedArray([...colourOf(label), 255]).buffer)[0];
  }

  /** Finds the outlines anew in all tiles that a part of the map touches. */
  outline(x0, y0, x1, y1) {
    const across = Math.ceil(this.width / TILE);
    const last = (edge, side) => Math.ceil(Math.min(edge, side) / TILE);
    for (let row = Math.floor(Math.max(0, y0) / TILE); row < last(y1, this.height); row += 1) {
      for (let column = Math.floor(Math.max(0, x0) / TILE); column < last(x1, this.width); column += 1) {
        const paths = new Map();
        const [left, top] = [column * TILE, row * TILE];
        const [right, bottom] = [Math.min(left + TILE, this.width), Math.min(top + TILE, this.height)];
        findEdges(this.labels, this.width, this.height, left, top, right, bottom, (label, ax, ay, bx, by) => {
          if (!paths.has(label)) paths.set(label, new Path2D());
          paths.get(label).moveTo(ax, ay);
          paths.get(label).lineTo(bx, by);
        });
        this.tiles.set(row * across + column, paths);
      }
    }
  }

  /**
   * The outlines that a part of the picture shows.
   * @param {number} x0 In picture pixels.
   * @param {number} y0
   * @param {number} x1
   * @param {number} y1
   * @returns {Map<number, Path2D[]>} By label, in pixel edges, hidden ones left out.
   */
  outlines(x0, y0, x1, y1) {
    const across = Math.ceil(this.width / TILE);
    const found = new Map();
    for (const [number, paths] of this.tiles) {
      const [left, top] = [(number % across) * TILE, Math.floor(number / across) * TILE];
      if (left > x1 || top > y1 || left + TILE < x0 || top + TILE < y0) continue;
      for (const [label, path] of paths) {
        if (this.hidden.has(label)) continue;
        if (!found.has(label)) found.set(label, []);
        found.get(label).push(path);
      }
    }
    return found;
  }

  /**
   * Takes how sure the network is, at its own resolution.
   * @param {{size: [number, number], data: Uint8Array} | null} probability
   */
  setConfidence(probability) {
    if (probability === null) {
      this.confidence = null;
      return;
    }
    const [height, width] = probability.size;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const brush = canvas.getContext("2d");
    const image = brush.createImageData(width, height);
    for (let place = 0; place < width * height; place += 1) {
      const from = probability.data[place] * 4;
      for (let band = 0; band < 4; band += 1) image.data[place * 4 + band] = this.scale[from + band];
    }
    brush.putImageData(image, 0, 0);
    this.confidence = canvas;
  }
}
