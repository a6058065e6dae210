/**
 * Masks of an image: kept as the box that holds them, and as COCO's run lengths.
 *
 * @typedef {{x: number, y: number, width: number, height: number, pixels: Uint8Array}} Mask  Its box, and 1 or 0 for
 *     every pixel in it, row by row. An empty mask has a box without pixels.
 */

/**
 * Cut a mask of the whole image to its box.
 *
 * @param {Uint8Array} pixels H * W, 1 and 0.
 * @param {[number, number]} size (H, W).
 * @returns {Mask}
 */
export function maskOf(pixels, [height, width]) {
  let top = -1;
  let bottom = -1;
  let left = width;
  let right = -1;
  for (let y = 0; y < height; y += 1) {
    const start = y * width;
    const first = pixels.subarray(start, start + width).indexOf(1);
    if (first >= 0) {
      const last = pixels.subarray(start, start + width).lastIndexOf(1);
      top = top < 0 ? y : top;
      bottom = y;
      left = Math.min(left, first);
      right = Math.max(right, last);
    }
  }
  if (top < 0) {
    return EMPTY;
  }
  const box = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  const kept = new Uint8Array(box.width * box.height);
  for (let y = 0; y < box.height; y += 1) {
    const start = (top + y) * width + left;
    kept.set(pixels.subarray(start, start + box.width), y * box.width);
  }
  return { ...box, pixels: kept };
}

/** A mask without a pixel. */
export const EMPTY = Object.freeze({ x: 0, y: 0, width: 0, height: 0, pixels: new Uint8Array(0) });

/**
 * Return a mask as a plane of the whole image.
 *
 * @param {Mask} mask
 * @param {[number, number]} size (H, W).
 * @returns {Uint8Array}
 */
export function wholeOf(mask, [height, width]) {
  const pixels = new Uint8Array(height * width);
  for (let y = 0; y < mask.height; y += 1) {
    pixels.set(mask.pixels.subarray(y * mask.width, (y + 1) * mask.width), (mask.y + y) * width + mask.x);
  }
  return pixels;
}

/**
 * Return COCO's compressed run lengths: down the columns, background first.
 *
 * @param {Mask} mask
 * @param {[number, number]} size (H, W).
 * @returns {{size: [number, number], counts: string}}
 */
export function rleOf(mask, [height, width]) {
  const counts = [];
  let run = 0;
  let value = 0;
  const pass = (pixel, length) => {
    if (length > 0 && pixel !== value) {
      counts.push(run);
      run = 0;
      value = pixel;
    }
    run += length;
  };
  pass(0, mask.x * height);
  for (let x = 0; x < mask.width; x += 1) {
    pass(0, mask.y);
    for (let y = 0; y < mask.height; y += 1) {
      pass(mask.pixels[y * mask.width + x], 1);
    }
    pass(0, height - mask.y - mask.height);
  }
  pass(0, (width - mask.x - mask.width) * height);
  counts.push(run);
  return { size: [height, width], counts: compressed(counts) };
}

/**
 * Draw COCO's run lengths.
 *
 * @param {string} text The compressed text.
 * @param {[number, number]} size (H, W).
 * @returns {Mask}
 * @throws {RangeError} They do not fill the size exactly.
 */
export function maskOfRle(text, size) {
  const [height, width] = size;
  const pixels = new Uint8Array(height * width);
  let place = 0;
  uncompressed(text).forEach((run, number) => {
    if (run < 0 || place + run > height * width) {
      throw new RangeError(`its runs do not add up to ${height}x${width} pixels`);
    }
    for (let i = place; number % 2 === 1 && i < place + run; i += 1) {
      pixels[(i % height) * width + Math.floor(i / height)] = 1;
    }
    place += run;
  });
  if (place !== height * width) {
    throw new RangeError(`its runs do not add up to ${height}x${width} pixels`);
  }
  return maskOf(pixels, size);
}

/** Write numbers as COCO does: five bits a character, and from the fourth on the difference to the one two before. */
function compressed(counts) {
  let text = "";
  counts.forEach((count, i) => {
    let rest = i > 2 ? count - counts[i - 2] : count;
    let more = true;
    while (more) {
      const bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest !== -1 : rest !== 0;
      text += String.fromCharCode((more ? bits | 32 : bits) + 48);
    }
  });
  return text;
}

function uncompressed(text) {
  const numbers = [];
  let place = 0;
  while (place < text.length) {
    let number = 0;
    let shift = 0;
    let code = 32;
    while (code & 32) {
      code = text.charCodeAt(place) - 48;
      if (!(code >= 0 && code <= 63) || shift > 30) {
        throw new RangeError("its run lengths hold characters where none belong, or end in the middle of a number");
      }
      number += (code & 31) * 2 ** shift;
      shift += 5;
      place += 1;
    }
    if (code & 16) {
      number -= 2 ** shift;
    }
    numbers.push(numbers.length > 2 ? number + numbers[numbers.length - 2] : number);
  }
  return numbers;
}
