/** Frames: a header in JSON with numbers behind it, and an image's features in one (mmms_deploy/page/framing.py). */

import { decodeHalf } from "./half.js";

/**
 * Return the header of a frame, and where its payload begins.
 *
 * @param {ArrayBuffer} buffer The frame.
 * @returns {{header: any, start: number}}
 */
export function readFrame(buffer) {
  const length = buffer.byteLength < 4 ? -1 : new DataView(buffer).getUint32(0, true);
  if (length < 0 || length % 4 || 4 + length > buffer.byteLength) {
    throw new TypeError(`a frame of ${buffer.byteLength} bytes announces a header of ${length}`);
  }
  return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), start: 4 + length };
}

/**
 * Return an image's features in single precision.
 *
 * @param {ArrayBuffer} buffer What mmms_deploy.page.features.encode_features wrote.
 * @returns {{imageSize: [number, number], tensors: Map<string, {shape: number[], numbers: Float32Array}>}}
 *     The image's size (H0, W0), and the tensors by name.
 */
export function readFeatures(buffer) {
  const { header, start } = readFrame(buffer);
  const tensors = new Map();
  for (const { name, shape, offset, values } of header.tensors) {
    const numbers = decodeHalf(new Uint16Array(buffer, start + offset, values));
    if (shape.reduce((product, side) => product * side, 1) !== values) {
      throw new TypeError(`the features ${name} have ${values} numbers and the shape ${shape}`);
    }
    tensors.set(name, { shape, numbers });
  }
  return { imageSize: header.image_size, tensors };
}
