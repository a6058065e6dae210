/** Where a pixel of the image lies in the network's input (mmms_deploy/imaging/coordinates.py). */

/**
 * @param {number} x Column in the image; pixel centres are at integers.
 * @param {number} y Row in the image.
 * @param {[number, number]} image (H0, W0).
 * @param {[number, number]} network (H, W).
 * @param {"half_pixel"|"align_corners"|"scale"} rule The checkpoint's rule.
 * @returns {[number, number]} (x, y) in network pixels.
 */
export function toNetwork(x, y, image, network, rule) {
  return [alongAxis(x, image[1], network[1], rule), alongAxis(y, image[0], network[0], rule)];
}

function alongAxis(value, size, target, rule) {
  if (rule === "align_corners") {
    return value * (Math.max(target - 1, 1) / Math.max(size - 1, 1));
  }
  const factor = target / size;
  return rule === "half_pixel" ? (value + 0.5) * factor - 0.5 : value * factor;
}
