/** An image's features in half precision, as mmms_deploy/page/features.py frames them. */

import { unframe } from "../answers.js";
import { decodeHalf } from "./half.js";

/**
 * Return an image's features in single precision.
 *
 * @param {ArrayBuffer} buffer What mmms_deploy.page.features.encode_features wrote.
 * @returns {{imageSize: [number, number], tensors: Map<string, {shape: number[], numbers: Float32Array}>}}
 *     The image's size (H0, W0), and the tensors by name.
 */
export function readFeatures(buffer) {
  const { header, payload } = unframe(buffer);
  const tensors = new Map();
  for (const { name, shape, offset, values } of header.tensors) {
    const numbers = decodeHalf(new Uint16Array(buffer, payload.byteOffset + offset, values));
    if (shape.reduce((product, side) => product * side, 1) !== values) {
      throw new TypeError(`the features ${name} have ${values} numbers and the shape ${shape}`);
    }
    tensors.set(name, { shape, numbers });
  }
  return { imageSize: header.image_size, tensors };
}
