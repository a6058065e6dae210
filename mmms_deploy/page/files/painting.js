// The label map and what is painted of it. Only what an answer changed is painted again, tile by tile, at the picture's own
// resolution; drawing it larger or smaller is the canvas' work.

import { colourOf, heatScale } from "./colours.js";

/** Side of the tiles by which outlines are found, in picture pixels. */
const TILE = 256;

/** Where the next tile begins, or the part ends. */
const nextTile = (place, end) => Math.min(end, (Math.floor(place / TILE) + 1) * TILE);

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
  // Columns: what is left and right of each of them, from which row on. A column belongs to the part on its right, the
  // last one to the part on its left.
  const across = lastColumn - x0;
  const [lefts, rights, starts] = [new Uint16Array(across), new Uint16Array(across), new Int32Array(across)];
  const end = (x, y) => {
    const place = x - x0;
    const [left, right] = [lefts[place], rights[place]];
    if (left === right) return;
    if (left !== 0) edge(left, x, starts[place], x, y);
    if (right !== 0) edge(right, x, starts[place], x, y);
  };
  const turn = (x, y) => {
    const [place, row] = [x - x0, y * width];
    const left = x > 0 ? labels[row + x - 1] : 0;
    const right = x < width ? labels[row + x] : 0;
    if (left === lefts[place] && right === rights[place]) return;
    end(x, y);
    [lefts[place], rights[place], starts[place]] = [left, right, y];
  };
  for (let x = x0; x < lastColumn; x += 1) turn(x, y0);
  // Lines: above and below each of them. A line belongs to the part below it, the last one to the part above. Where both
  // rows are the same there is nothing to do, for the columns neither; that is nearly everywhere.
  for (let y = y0; y < lastLine; y += 1) {
    const outside = y === 0 || y === height;
    const [above, below] = [(y - 1) * width, y * width];
    const turns = y > y0 && y < y1;
    if (turns && x0 > 0 && labels[above + x0 - 1] !== labels[below + x0 - 1]) turn(x0, y);
    for (let x = x0; x < x1; ) {
      if (!outside) {
        while (x < x1 && labels[above + x] === labels[below + x]) x += 1;
        if (x === x1) break;
      }
      const start = x;
      const one = y === 0 ? 0 : labels[above + x];
      const other = y === height ? 0 : labels[below + x];
      do x += 1;
      while (x < x1 && (y === 0 || labels[above + x] === one) && (y === height || labels[below + x] === other));
      if (one !== 0 && one !== other) edge(one, start, y, x, y);
      if (other !== 0 && one !== other) edge(other, start, y, x, y);
      // The column behind a piece is turned with the piece after it, where there is one.
      if (turns) for (let place = start; place <= x && place < lastColumn; place += 1) turn(place, y);
    }
  }
  for (let x = x0; x < lastColumn; x += 1) end(x, y1);
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
   * Takes a part of the label map, and paints what is different in it.
   * @param {{x: number, y: number, width: number, height: number}} box
   * @param {Uint16Array} values Labels in the box, row by row.
   */
  change(box, values) {
    const { labels, width } = this;
    const [right, bottom] = [box.x + box.width, box.y + box.height];
    const touched = new Set();
    for (let top = box.y; top < bottom; top = nextTile(top, bottom)) {
      for (let left = box.x; left < right; left = nextTile(left, right)) {
        const [x1, y1] = [nextTile(left, right), nextTile(top, bottom)];
        let [firstX, lastX, firstY, lastY] = [x1, left, y1, top];
        for (let y = top; y < y1; y += 1) {
          const from = (y - box.y) * box.width - box.x;
          const row = y * width;
          let [x, end] = [left, x1];
          while (x < end && labels[row + x] === values[from + x]) x += 1;
          if (x === end) continue;
          while (labels[row + end - 1] === values[from + end - 1]) end -= 1;
          labels.set(values.subarray(from + x, from + end), row + x);
          [firstX, lastX] = [Math.min(firstX, x), Math.max(lastX, end)];
          [firstY, lastY] = [Math.min(firstY, y), y + 1];
        }
        if (firstX >= lastX) continue;
        this.paint(firstX, firstY, lastX - firstX, lastY - firstY);
        // An outline on the other side of the part's edge may begin or end there.
        this.touch(touched, firstX - 1, firstY - 1, lastX + 1, lastY + 1);
      }
    }
    for (const tile of touched) this.outline(tile);
  }

  /** Paints everything again, after other objects are hidden. */
  repaint() {
    this.paint(0, 0, this.width, this.height);
  }

  paint(x0, y0, width, height) {
    const { labels } = this;
    const image = this.brush.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = new Map([[0, 0]]);
    for (let row = 0; row < height; row += 1) {
      const from = (y0 + row) * this.width + x0;
      for (let x = 0; x < width; ) {
        const [label, start] = [labels[from + x], x];
        do x += 1;
        while (x < width && labels[from + x] === label);
        if (!colours.has(label)) colours.set(label, this.packed(label));
        if (colours.get(label) !== 0) pixels.fill(colours.get(label), row * width + start, row * width + x);
      }
    }
    this.brush.putImageData(image, x0, y0);
  }

  /** RGBA in one number, as the bytes lie in memory. */
  packed(label) {
    if (this.hidden.has(label)) return 0;
    return new Uint32Array(new Uint8ClampedArray([...colourOf(label), 255]).buffer)[0];
  }

  /** Notes the tiles that a part of the map touches. */
  touch(tiles, x0, y0, x1, y1) {
    const across = Math.ceil(this.width / TILE);
    const last = (edge, side) => Math.ceil(Math.min(edge, side) / TILE);
    for (let row = Math.floor(Math.max(0, y0) / TILE); row < last(y1, this.height); row += 1) {
      for (let column = Math.floor(Math.max(0, x0) / TILE); column < last(x1, this.width); column += 1) {
        tiles.add(row * across + column);
      }
    }
  }

  /** Finds the outlines in a tile anew. @param {number} tile Its number, row by row. */
  outline(tile) {
    const across = Math.ceil(this.width / TILE);
    const [left, top] = [(tile % across) * TILE, Math.floor(tile / across) * TILE];
    const [right, bottom] = [Math.min(left + TILE, this.width), Math.min(top + TILE, this.height)];
    const paths = new Map();
    findEdges(this.labels, this.width, this.height, left, top, right, bottom, (label, ax, ay, bx, by) => {
      if (!paths.has(label)) paths.set(label, new Path2D());
      paths.get(label).moveTo(ax, ay);
      paths.get(label).lineTo(bx, by);
    });
    this.tiles.set(tile, paths);
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
