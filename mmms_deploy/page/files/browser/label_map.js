/**
 * The label map of an image: masks laid over each other in the order in which their objects changed.
 *
 * @typedef {import("./masks.js").Mask} Mask
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {{label: number, mask: Mask}} Layer
 */

/** Keeps the map, and paints again only what changed. */
export class LabelMap {
  /** @param {[number, number]} size (H0, W0). */
  constructor(size) {
    this.size = size;
    /** @type {Uint16Array} H0 * W0, row by row; 0 is background. */
    this.labels = new Uint16Array(size[0] * size[1]);
    /** @type {Layer[]} */
    this.layers = [];
  }

  /**
   * Lay these masks over each other.
   *
   * @param {Layer[]} layers In the order in which the objects changed; later ones have the pixels.
   * @returns {Box|null} The smallest box that holds every pixel that changed.
   */
  paint(layers) {
    const region = changedRegion(this.layers, layers);
    this.layers = layers;
    return region === null ? null : this.#repaint(region);
  }

  #repaint(region) {
    const width = this.size[1];
    const painted = new Uint16Array(region.width * region.height);
    for (const { label, mask } of this.layers) {
      const left = Math.max(mask.x, region.x);
      const right = Math.min(mask.x + mask.width, region.x + region.width);
      const bottom = Math.min(mask.y + mask.height, region.y + region.height);
      for (let y = Math.max(mask.y, region.y); y < bottom; y += 1) {
        const from = (y - mask.y) * mask.width - mask.x;
        const to = (y - region.y) * region.width - region.x;
        for (let x = left; x < right; x += 1) {
          if (mask.pixels[from + x]) {
            painted[to + x] = label;
          }
        }
      }
    }
    let [top, bottom, left, right] = [-1, -1, region.width, -1];
    for (let y = 0; y < region.height; y += 1) {
      const row = painted.subarray(y * region.width, (y + 1) * region.width);
      const start = (region.y + y) * width + region.x;
      let first = 0;
      while (first < region.width && row[first] === this.labels[start + first]) {
        first += 1;
      }
      if (first < region.width) {
        let last = region.width - 1;
        while (row[last] === this.labels[start + last]) {
          last -= 1;
        }
        top = top < 0 ? y : top;
        bottom = y;
        left = Math.min(left, first);
        right = Math.max(right, last);
        this.labels.set(row, start);
      }
    }
    return top < 0
      ? null
      : { x: region.x + left, y: region.y + top, width: right - left + 1, height: bottom - top + 1 };
  }

  /**
   * Return the labels in a box, row by row; a new array.
   *
   * @param {Box} box
   * @returns {Uint16Array}
   */
  within(box) {
    const width = this.size[1];
    const labels = new Uint16Array(box.width * box.height);
    for (let y = 0; y < box.height; y += 1) {
      const start = (box.y + y) * width + box.x;
      labels.set(this.labels.subarray(start, start + box.width), y * box.width);
    }
    return labels;
  }

  /**
   * Return how many pixels every object has, and the box around them; objects without pixels are left out.
   *
   * @returns {Map<number, {area: number, box: [number, number, number, number]}>} By label; x, y, width, height.
   */
  extents() {
    const width = this.size[1];
    const found = new Map();
    const region = union(this.layers.map(({ mask }) => mask));
    for (let y = region.y; y < region.y + region.height; y += 1) {
      const end = y * width + region.x + region.width;
      let i = y * width + region.x;
      while (i < end) {
        const label = this.labels[i];
        const begin = i;
        while (i < end && this.labels[i] === label) {
          i += 1;
        }
        if (label !== 0) {
          widen(found, label, y, begin - y * width, i - y * width);
        }
      }
    }
    const extents = new Map();
    for (const [label, { area, left, right, top, bottom }] of found) {
      extents.set(label, { area, box: [left, top, right - left, bottom - top + 1] });
    }
    return extents;
  }

  /**
   * Return the pixels that one object has in the map.
   *
   * @param {number} label
   * @returns {Uint8Array} H0 * W0, 1 and 0.
   */
  pixelsOf(label) {
    const pixels = new Uint8Array(this.labels.length);
    for (let i = 0; i < pixels.length; i += 1) {
      pixels[i] = this.labels[i] === label ? 1 : 0;
    }
    return pixels;
  }

  /** Whether an object has every pixel of a mask in the map. @param {number} label @param {Mask} mask */
  hasAll(label, mask) {
    const width = this.size[1];
    for (let y = 0; y < mask.height; y += 1) {
      const start = (mask.y + y) * width + mask.x;
      for (let x = 0; x < mask.width; x += 1) {
        if (mask.pixels[y * mask.width + x] && this.labels[start + x] !== label) {
          return false;
        }
      }
    }
    return true;
  }
}

function widen(found, label, y, left, right) {
  const known = found.get(label);
  if (known === undefined) {
    found.set(label, { area: right - left, left, right, top: y, bottom: y });
    return;
  }
  known.area += right - left;
  known.left = Math.min(known.left, left);
  known.right = Math.max(known.right, right);
  known.bottom = y;
}

/** Return the box in which two stacks of masks can differ; null where they are the same. */
function changedRegion(before, after) {
  const within = (layers) => (layer) => layers.some((other) => isSame(other, layer));
  const kept = before.filter(within(after));
  const stillInOrder = after.filter(within(before)).every((layer, i) => isSame(layer, kept[i]));
  // Layers that stay in their order change nothing outside of those that came and went.
  const out = (layers) => (layer) => !stillInOrder || !within(layers)(layer);
  const region = union([...before.filter(out(after)), ...after.filter(out(before))].map(({ mask }) => mask));
  return region.width > 0 ? region : null;
}

function isSame(one, other) {
  return one.label === other.label && one.mask === other.mask;
}

/** Return the smallest box around boxes; one without pixels where there are none. */
function union(boxes) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const box of boxes) {
    if (box.width > 0) {
      left = Math.min(left, box.x);
      top = Math.min(top, box.y);
      right = Math.max(right, box.x + box.width);
      bottom = Math.max(bottom, box.y + box.height);
    }
  }
  return left === Infinity
    ? { x: 0, y: 0, width: 0, height: 0 }
    : { x: left, y: top, width: right - left, height: bottom - top };
}
