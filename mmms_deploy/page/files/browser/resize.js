/**
 * Bilinear resizing by a bundle's rules (mmms_deploy/imaging/resize.py), and a mask of it without the resized map.
 *
 * A plane is `{height, width, numbers}`, row by row. Rules are the manifest's: `{align_corners, antialias}`.
 *
 * @typedef {{height: number, width: number, numbers: Float32Array|Uint8Array}} Plane
 * @typedef {{align_corners: boolean, antialias: boolean}} ResizeRule
 * @typedef {{first: Int32Array, weights: Float32Array, count: number}} Weights  For every output pixel its first input
 *     pixel, and `count` weights of that one and those after it.
 */

/** Relative distance from the threshold at which rounding cannot move a pixel across it. */
const MARGIN = 2 ** -19;

/**
 * Return what every output pixel of an axis is made of.
 *
 * @param {number} sizeIn Input pixels.
 * @param {number} sizeOut Output pixels.
 * @param {ResizeRule} rule
 * @returns {{first: Int32Array, weights: Float64Array, count: number}}
 */
export function resamplingWeights(sizeIn, sizeOut, rule) {
  return rule.antialias ? antialiased(sizeIn, sizeOut) : twoPixels(sizeIn, sizeOut, rule.align_corners);
}

function twoPixels(sizeIn, sizeOut, alignCorners) {
  const first = new Int32Array(sizeOut);
  const weights = new Float64Array(2 * sizeOut);
  const corners = sizeOut > 1 ? (sizeIn - 1) / (sizeOut - 1) : 1;
  for (let i = 0; i < sizeOut; i += 1) {
    const source = alignCorners ? i * corners : Math.max((i + 0.5) * (sizeIn / sizeOut) - 0.5, 0);
    first[i] = Math.min(Math.trunc(source), sizeIn - 1);
    weights[2 * i + 1] = first[i] < sizeIn - 1 ? source - first[i] : 0;
    weights[2 * i] = 1 - weights[2 * i + 1];
  }
  return { first, weights, count: 2 };
}

function antialiased(sizeIn, sizeOut) {
  const scale = sizeIn / sizeOut;
  const support = Math.max(scale, 1);
  const first = new Int32Array(sizeOut);
  const last = new Int32Array(sizeOut);
  let count = 0;
  for (let i = 0; i < sizeOut; i += 1) {
    const centre = scale * (i + 0.5);
    first[i] = Math.max(Math.trunc(centre - support + 0.5), 0);
    last[i] = Math.min(Math.trunc(centre + support + 0.5), sizeIn);
    count = Math.max(count, last[i] - first[i]);
  }
  const weights = new Float64Array(sizeOut * count);
  for (let i = 0; i < sizeOut; i += 1) {
    let sum = 0;
    for (let pixel = first[i]; pixel < last[i]; pixel += 1) {
      const weight = Math.max(1 - Math.abs(pixel + 0.5 - scale * (i + 0.5)) / support, 0);
      weights[i * count + pixel - first[i]] = weight;
      sum += weight;
    }
    for (let k = 0; k < count; k += 1) {
      weights[i * count + k] /= sum;
    }
  }
  return { first, weights, count };
}

/**
 * Return the weights of an axis that is resized to another size and back to its own.
 *
 * @param {number} sizeIn Input pixels, and output pixels.
 * @param {number} sizeBetween Pixels between the two.
 * @param {ResizeRule} up The rule to the other size.
 * @param {ResizeRule} down The rule back.
 * @returns {{first: Int32Array, weights: Float64Array, count: number}}
 */
export function joinedWeights(sizeIn, sizeBetween, up, down) {
  const inner = resamplingWeights(sizeIn, sizeBetween, up);
  const outer = resamplingWeights(sizeBetween, sizeIn, down);
  const rows = [];
  let count = 1;
  for (let i = 0; i < sizeIn; i += 1) {
    const sums = new Map();
    for (let k = 0; k < outer.count; k += 1) {
      const weight = outer.weights[i * outer.count + k];
      const pixel = outer.first[i] + k;
      for (let j = 0; j < inner.count && weight !== 0; j += 1) {
        const part = weight * inner.weights[pixel * inner.count + j];
        if (part !== 0) {
          const source = inner.first[pixel] + j;
          sums.set(source, (sums.get(source) ?? 0) + part);
        }
      }
    }
    const low = Math.min(...sums.keys());
    count = Math.max(count, Math.max(...sums.keys()) - low + 1);
    rows.push({ low, sums });
  }
  const first = new Int32Array(sizeIn);
  const weights = new Float64Array(sizeIn * count);
  rows.forEach(({ low, sums }, i) => {
    first[i] = low;
    sums.forEach((weight, source) => {
      weights[i * count + source - low] = weight;
    });
  });
  return { first, weights, count };
}

/**
 * Return a plane at another size.
 *
 * @param {Plane} plane
 * @param {[number, number]} size (H, W).
 * @param {ResizeRule} rule
 * @returns {Plane} Float32Array numbers, new.
 */
export function resize(plane, size, rule) {
  if (plane.height === size[0] && plane.width === size[1]) {
    return { ...plane, numbers: Float32Array.from(plane.numbers) };
  }
  return applied(plane, resamplingWeights(plane.height, size[0], rule), resamplingWeights(plane.width, size[1], rule));
}

/**
 * Return a plane after it was resized to another size and back, without ever holding the resized one.
 *
 * @param {Plane} plane
 * @param {[number, number]} size The size between.
 * @param {ResizeRule} up The rule to that size.
 * @param {ResizeRule} down The rule back.
 * @returns {Plane} Float32Array numbers, new.
 */
export function throughImage(plane, size, up, down) {
  if (plane.height === size[0] && plane.width === size[1]) {
    return { ...plane, numbers: Float32Array.from(plane.numbers) };
  }
  return applied(plane, joinedWeights(plane.height, size[0], up, down), joinedWeights(plane.width, size[1], up, down));
}

function applied(plane, rows, columns) {
  const { width, numbers } = plane;
  const height = rows.first.length;
  const wide = columns.first.length;
  const out = new Float32Array(height * wide);
  const row = new Float64Array(width);
  for (let y = 0; y < height; y += 1) {
    row.fill(0);
    for (let k = 0; k < rows.count; k += 1) {
      const weight = rows.weights[y * rows.count + k];
      if (weight !== 0) {
        const start = (rows.first[y] + k) * width;
        for (let x = 0; x < width; x += 1) {
          row[x] += weight * numbers[start + x];
        }
      }
    }
    for (let x = 0; x < wide; x += 1) {
      let sum = 0;
      for (let k = 0; k < columns.count; k += 1) {
        const weight = columns.weights[x * columns.count + k];
        if (weight !== 0) {
          sum += weight * row[columns.first[x] + k];
        }
      }
      out[y * wide + x] = sum;
    }
  }
  return { height, width: wide, numbers: out };
}

/**
 * Return where a plane is above a threshold once it is resized, without ever holding the resized one.
 *
 * Between two input columns all pixels of a row are means of two numbers. Where both are on one side of the threshold,
 * so are the pixels; only the outline is computed.
 *
 * @param {Plane} plane
 * @param {[number, number]} size (H, W).
 * @param {ResizeRule} rule Without antialias.
 * @param {number} threshold
 * @returns {Uint8Array} H * W, 1 above and 0 elsewhere.
 */
export function resizeAbove(plane, size, rule, threshold) {
  const limit = Math.fround(threshold);
  const { height, width, numbers } = plane;
  const out = new Uint8Array(size[0] * size[1]);
  if (height === size[0] && width === size[1]) {
    for (let i = 0; i < out.length; i += 1) {
      out[i] = numbers[i] > limit ? 1 : 0;
    }
    return out;
  }
  const rows = resamplingWeights(height, size[0], rule);
  const columns = resamplingWeights(width, size[1], rule);
  const begins = beginnings(columns.first, width);
  const margin = Math.abs(limit) * MARGIN;
  const row = new Float64Array(width + 1);
  for (let y = 0; y < size[0]; y += 1) {
    const upper = rows.weights[2 * y];
    const lower = rows.weights[2 * y + 1];
    const above = rows.first[y] * width;
    const below = Math.min(rows.first[y] + 1, height - 1) * width;
    for (let x = 0; x < width; x += 1) {
      row[x] = upper * numbers[above + x] + lower * numbers[below + x];
    }
    row[width] = row[width - 1];
    fillRow(out, y * size[1], row, columns.weights, begins, limit, margin);
  }
  return out;
}

/** Return for every input column the first output column that begins with it, and at the end how many there are. */
function beginnings(first, width) {
  const begins = new Int32Array(width + 1).fill(first.length);
  for (let x = first.length - 1; x >= 0; x -= 1) {
    begins[first[x]] = x;
  }
  for (let column = width - 1; column >= 0; column -= 1) {
    begins[column] = Math.min(begins[column], begins[column + 1]);
  }
  return begins;
}

function fillRow(out, start, row, weights, begins, limit, margin) {
  for (let column = 0; column + 1 < begins.length; column += 1) {
    const left = row[column];
    const right = row[column + 1];
    if (left < limit - margin && right < limit - margin) {
      continue;
    }
    const end = begins[column + 1];
    if (left > limit + margin && right > limit + margin) {
      out.fill(1, start + begins[column], start + end);
      continue;
    }
    for (let x = begins[column]; x < end; x += 1) {
      // In single precision, as everywhere.
      out[start + x] = Math.fround(weights[2 * x] * left + weights[2 * x + 1] * right) > limit ? 1 : 0;
    }
  }
}
