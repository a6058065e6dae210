// Pictures as the browser can draw them: files of the user are seen while they are still being sent.

/**
 * Decodes a picture upright, or returns null for a file that the browser cannot draw, such as a TIFF.
 * @param {Blob} blob
 * @returns {Promise<ImageBitmap | null>}
 */
export async function decoded(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

/**
 * A small picture of a file, for the strip.
 * @param {Blob} blob
 * @returns {Promise<Blob>}
 */
export async function smallPicture(blob) {
  const whole = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    resizeHeight: 112,
    resizeQuality: "medium",
  });
  const canvas = new OffscreenCanvas(whole.width, whole.height);
  canvas.getContext("2d").drawImage(whole, 0, 0);
  whole.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 });
}
