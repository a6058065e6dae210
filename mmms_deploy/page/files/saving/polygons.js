import { BELOW, FALLING, TOUCHING } from "./traces.js";

/**
 * @typedef {object} Rings The rings of an object along its pixel edges, with the object at the right hand
 * @property {Int32Array} x Of every corner, ring after ring: its column of vertices, 0 to W
 * @property {Int32Array} y Its row of vertices, 0 to H
 * @property {number[]} starts Where every ring begins in them, and where the last one ends
 * @property {Float64Array} areas Of every ring, the pixels inside; negative for a hole
 */

/**
 * Return the outlines of an object, exactly along its pixel edges: the same rings with the same points in the same
 * order as `polygons_of` in Python.
 *
 * @param {import("./label_map.js").LabelMap} map
 * @param {number} label The object's
 * @param {import("./traces.js").Corners} corners The object's
 * @returns {Array<{outer: Ring, holes: Ring[]}>} One for every piece whose pixels share edges, the largest first
 *
 * @typedef {Array<[number, number]>} Ring Its corners in pixel edges; clockwise on the screen, holes the other way
 */
export function polygonsOf(map, label, corners) {
  if (!corners.count) return [];
  const columns = columnsOf(corners, map.width);
  const walked = walkedOf(corners, columns, map.width);
  const { areas } = walked;
  const pieces = new Map();
  for (let ring = 0; ring < areas.length; ring += 1) {
    if (areas[ring] > 0) pieces.set(ring, { area: areas[ring], holes: [] });
  }
  for (const [hole, outer] of ownersOf(map, label, corners, columns, walked)) {
    const piece = pieces.get(outer);
    piece.area += areas[hole];
    piece.holes.push(hole);
  }
  return [...pieces]
    .sort(([, one], [, other]) => other.area - one.area)
    .map(([outer, { holes }]) => {
      return { outer: pointsOf(walked, outer), holes: holes.map((hole) => pointsOf(walked, hole)) };
    });
}

function pointsOf({ x, y, starts }, ring) {
  const points = [];
  for (let place = starts[ring]; place < starts[ring + 1]; place += 1) points.push([x[place], y[place]]);
  return points;
}

/**
 * Sort corners by columns: in a column they are the ends of vertical edges, two by two from the top down.
 *
 * @returns {{order: Int32Array, starts: Int32Array}} The corners in that order, and where every column begins
 */
function columnsOf({ x, y, flags, count }, width) {
  const starts = new Int32Array(width + 2);
  for (let corner = 0; corner < count; corner += 1) starts[x[corner] + 1] += 1;
  for (let column = 0; column <= width; column += 1) starts[column + 1] += starts[column];
  const order = new Int32Array(count);
  const next = starts.slice();
  for (let corner = 0; corner < count; corner += 1) {
    if (!(flags[corner] & TOUCHING)) {
      order[next[x[corner]]++] = corner;
      continue;
    }
    // Of the two corners at a vertex, the first one has the edge to the left, the second one the edge to the right. The
    // one with the edge upwards comes first: that of the upper left pixel, or of the upper right one.
    const pair = flags[corner] & FALLING ? [corner, corner + 1] : [corner + 1, corner];
    for (const one of pair) order[next[x[corner]]++] = one;
    corner += 1;
  }
  return { order, starts };
}

/** Walk along all rings; of every corner, `ring` says which one it is in. */
function walkedOf(corners, columns, width) {
  const { flags, count } = corners;
  const along = new Int32Array(count);
  for (let place = 0; place < count; place += 2) {
    const [upper, lower] = [columns.order[place], columns.order[place + 1]];
    along[upper] = lower;
    along[lower] = upper;
  }
  const order = new Int32Array(count);
  const starts = [];
  const seen = new Uint8Array(count);
  let length = 0;
  for (let left = 0; left < count; left += 2) {
    // The object is at the right hand on the way to the right when it is below, and on the way to the left when above.
    let corner = flags[left] & BELOW ? left : left + 1;
    if (seen[corner]) continue;
    const start = length;
    let touches = 0;
    while (!seen[corner]) {
      seen[corner] = 1;
      const other = corner ^ 1;
      order[length++] = corner;
      order[length++] = other;
      touches |= flags[corner] | flags[other];
      corner = along[other];
    }
    if (touches & TOUCHING) {
      cut(order, start, length, corners, width, starts);
    } else {
      starts.push(start);
    }
  }
  starts.push(length);
  const ring = new Int32Array(count);
  const [x, y] = [new Int32Array(count), new Int32Array(count)];
  const areas = new Float64Array(starts.length - 1);
  for (let number = 0; number < areas.length; number += 1) {
    for (let place = starts[number]; place < starts[number + 1]; place += 1) {
      x[place] = corners.x[order[place]];
      y[place] = corners.y[order[place]];
      ring[order[place]] = number;
    }
    // By the trapezoids under its edges; those of vertical ones are 0.
    let before = starts[number + 1] - 1;
    for (let place = starts[number]; place < starts[number + 1]; place += 1) {
      areas[number] -= (x[place] - x[before]) * y[before];
      before = place;
    }
  }
  return { x, y, starts, areas, ring };
}

/** Cut a ring wherever it passes a vertex for the second time; the parts take its place in the order. */
function cut(order, start, end, corners, width, starts) {
  const ring = order.slice(start, end);
  const path = [];
  const passed = new Map();
  const vertex = (corner) => corners.y[corner] * (width + 1) + corners.x[corner];
  let length = start;
  const add = (part) => {
    starts.push(length);
    order.set(part, length);
    length += part.length;
  };
  for (const corner of ring) {
    if (corners.flags[corner] & TOUCHING) {
      const since = passed.get(vertex(corner));
      if (since !== undefined) {
        const part = path.splice(since);
        for (const gone of part) {
          if (corners.flags[gone] & TOUCHING) passed.delete(vertex(gone));
        }
        add(part);
      }
      passed.set(vertex(corner), path.length);
    }
    path.push(corner);
  }
  add(path);
}

/**
 * Return the outer ring that every hole belongs to.
 *
 * The pixel to the left of a hole belongs to the same piece as the whole run of pixels that ends there, and so does the
 * ring along the left end of that run: it is the piece's outer ring, or another of its holes, further left.
 *
 * @returns {Array<[number, number]>} Hole and outer ring, in the order of the holes
 */
function ownersOf({ labels, width }, label, corners, columns, { x, y, starts, areas, ring }) {
  const owners = new Map();
  const holes = [];
  for (let number = 0; number < areas.length; number += 1) {
    if (areas[number] > 0) {
      owners.set(number, number);
      continue;
    }
    let corner = starts[number];
    for (let place = corner + 1; place < starts[number + 1]; place += 1) {
      if (x[place] < x[corner] || (x[place] === x[corner] && y[place] < y[corner])) corner = place;
    }
    holes.push({ number, column: x[corner], row: y[corner] });
  }
  for (const { number, column, row } of [...holes].sort((one, other) => one.column - other.column)) {
    let left = column - 1;
    while (left > 0 && labels[row * width + left - 1] === label) left -= 1;
    owners.set(number, owners.get(ring[lowerEnd(corners, columns, left, row)]));
  }
  return holes.map(({ number }) => [number, owners.get(number)]);
}

/** Return the lower corner of the vertical edge of a column that passes a row; the walk goes from there upwards. */
function lowerEnd(corners, { order, starts }, column, row) {
  let [low, high] = [starts[column] >> 1, (starts[column + 1] >> 1) - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (corners.y[order[2 * middle]] <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return order[2 * low + 1];
}
