/**
 * The corners of the objects in a label map, found in one pass over its vertices whatever the number of objects.
 *
 * An object has a corner where, of the four pixels around a vertex, an odd number belong to it, or two that touch at
 * the vertex alone. In a row of vertices, corners in order are the ends of horizontal edges, two by two. Where two
 * pixels of the object touch at a vertex alone, that vertex is two corners. This is how
 * `mmms_deploy/annotations/outlines.py` counts, so that rings have the same points in the same order.
 */

/** The corner is one of the two at a vertex. */
export const TOUCHING = 1;
/** The pixels that touch there are the upper left and the lower right one. */
export const FALLING = 2;
/** The edge to the right of the corner, if there is one, has the object below. */
export const BELOW = 4;

/** The corners of one object: from the top down, and from left to right in a row. */
export class Corners {
  constructor() {
    this.count = 0;
    this.x = new Int32Array(64);
    this.y = new Int32Array(64);
    this.flags = new Uint8Array(64);
  }

  /**
   * @param {number} x Column of vertices, 0 to W
   * @param {number} y Row of vertices, 0 to H
   * @param {number} flags
   */
  push(x, y, flags) {
    if (this.count === this.x.length) {
      for (const key of ["x", "y", "flags"]) {
        const longer = new this[key].constructor(2 * this.count);
        longer.set(this[key]);
        this[key] = longer;
      }
    }
    this.x[this.count] = x;
    this.y[this.count] = y;
    this.flags[this.count] = flags;
    this.count += 1;
  }

  /** @returns {number} How many pixels the object has: the rows between its horizontal edges. */
  get area() {
    let area = 0;
    for (let left = 0; left < this.count; left += 2) {
      const covered = (this.x[left + 1] - this.x[left]) * this.y[left];
      area += this.flags[left] & BELOW ? -covered : covered;
    }
    return area;
  }

  /** @returns {[number, number, number, number]} x, y, width and height; zeros without a pixel. */
  get box() {
    if (!this.count) return [0, 0, 0, 0];
    let [left, right] = [Infinity, 0];
    for (let corner = 0; corner < this.count; corner += 1) {
      left = Math.min(left, this.x[corner]);
      right = Math.max(right, this.x[corner]);
    }
    const top = this.y[0];
    return [left, top, right - left, this.y[this.count - 1] - top];
  }
}

/**
 * Find the corners of objects.
 *
 * @param {import("./label_map.js").LabelMap} map
 * @param {Iterable<number>} wanted The labels of the objects
 * @returns {Map<number, Corners>} Those of every label that is wanted; without corners where no pixel has it
 */
export function tracesOf({ labels, width, height }, wanted) {
  const found = new Map([...wanted].map((label) => [label, new Corners()]));
  /** @type {Array<Corners | undefined>} */
  const table = new Array(65536);
  for (const [label, corners] of found) table[label] = corners;
  const nothing = new Uint16Array(width);
  let above = nothing;
  for (let y = 0; y <= height; y += 1) {
    const row = y < height ? labels.subarray(y * width, (y + 1) * width) : nothing;
    let [upperLeft, lowerLeft] = [0, 0];
    for (let x = 0; x <= width; x += 1) {
      const upper = x < width ? above[x] : 0;
      const lower = x < width ? row[x] : 0;
      // No corner where an edge goes straight on, of whatever objects.
      if (!((upper === upperLeft && lower === lowerLeft) || (upper === lower && upperLeft === lowerLeft))) {
        addCorners(table, x, y, upperLeft, upper, lowerLeft, lower);
      }
      upperLeft = upper;
      lowerLeft = lower;
    }
    above = row;
  }
  return found;
}

function addCorners(table, x, y, upperLeft, upperRight, lowerLeft, lowerRight) {
  addCorner(table[upperLeft], upperLeft, x, y, upperLeft, upperRight, lowerLeft, lowerRight);
  if (upperRight !== upperLeft) {
    addCorner(table[upperRight], upperRight, x, y, upperLeft, upperRight, lowerLeft, lowerRight);
  }
  if (lowerLeft !== upperLeft && lowerLeft !== upperRight) {
    addCorner(table[lowerLeft], lowerLeft, x, y, upperLeft, upperRight, lowerLeft, lowerRight);
  }
  if (lowerRight !== upperLeft && lowerRight !== upperRight && lowerRight !== lowerLeft) {
    addCorner(table[lowerRight], lowerRight, x, y, upperLeft, upperRight, lowerLeft, lowerRight);
  }
}

function addCorner(corners, label, x, y, upperLeft, upperRight, lowerLeft, lowerRight) {
  if (corners === undefined) return;
  const falling = upperLeft === label;
  const below = lowerRight === label;
  const upper = falling !== (upperRight === label);
  const lower = below !== (lowerLeft === label);
  const touching = upper && lower;
  if (upper === lower && !(touching && falling !== (lowerLeft === label))) return;
  const flags = (touching ? TOUCHING : 0) | (falling ? FALLING : 0) | (below ? BELOW : 0);
  corners.push(x, y, flags);
  if (touching) corners.push(x, y, flags);
}
