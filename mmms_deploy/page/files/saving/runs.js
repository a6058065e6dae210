/**
 * Return the run lengths of an object as COCO counts them: down the columns, background first.
 *
 * @param {import("./traces.js").Corners} corners Of the object
 * @param {number} width
 * @param {number} height
 * @returns {Int32Array} They add up to width * height
 */
export function runsOf(corners, width, height) {
  const changes = changesOf(corners, width, height);
  const runs = new Int32Array(changes.length + 1);
  let before = 0;
  for (let number = 0; number < changes.length; number += 1) {
    runs[number] = changes[number] - before;
    before = changes[number];
  }
  runs[changes.length] = width * height - before;
  return changes.length && before === width * height ? runs.subarray(0, changes.length) : runs;
}

/** Return where runs of the object and of the background begin, in turn, counted down the columns. */
function changesOf(corners, width, height) {
  const { x, y, count } = corners;
  // How many horizontal edges of the object every column has.
  const ends = new Int32Array(width + 1);
  for (let left = 0; left < count; left += 2) {
    ends[x[left]] += 1;
    ends[x[left + 1]] -= 1;
  }
  let [edges, total] = [0, 0];
  const places = new Int32Array(width);
  for (let column = 0; column < width; column += 1) {
    edges += ends[column];
    places[column] = total;
    total += edges;
  }
  const changes = new Int32Array(total);
  // Edges come from the top down, so that every column gets its own in order.
  for (let left = 0; left < count; left += 2) {
    for (let column = x[left]; column < x[left + 1]; column += 1) {
      changes[places[column]] = column * height + y[left];
      places[column] += 1;
    }
  }
  // A run that ends at the foot of the image goes on where the next one begins at the head.
  let kept = 0;
  for (let number = 0; number < total; number += 1) {
    if (kept && changes[kept - 1] === changes[number]) {
      kept -= 1;
    } else {
      changes[kept] = changes[number];
      kept += 1;
    }
  }
  return changes.subarray(0, kept);
}

/**
 * Write run lengths as COCO's compressed text.
 *
 * A character holds five bits, the least significant ones first; its sixth bit says that more characters follow. From
 * the fourth on, a number is the difference to the one two places before.
 *
 * @param {Int32Array} runs
 * @returns {string}
 */
export function compressed(runs) {
  const text = new Uint8Array(7 * runs.length);
  let length = 0;
  for (let number = 0; number < runs.length; number += 1) {
    let left = number > 2 ? runs[number] - runs[number - 2] : runs[number];
    let more = true;
    while (more) {
      const digit = left & 31;
      left >>= 5;
      more = digit & 16 ? left !== -1 : left !== 0;
      text[length] = (more ? digit | 32 : digit) + 48;
      length += 1;
    }
  }
  return new TextDecoder("latin1").decode(text.subarray(0, length));
}
