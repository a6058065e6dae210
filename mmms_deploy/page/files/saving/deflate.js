/**
 * Pack bytes as zlib does.
 *
 * @param {Uint8Array} bytes
 * @returns {Promise<Uint8Array>}
 */
export async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Unpack what zlib packed, part by part, so that no more is there at a time than one part.
 *
 * @param {Uint8Array[]} parts What was packed
 * @param {(part: Uint8Array) => void} take Receives what comes out; what it throws ends the unpacking
 * @throws {TypeError} They are damaged or incomplete
 */
export async function inflate(parts, take) {
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) take(value);
  } finally {
    // Ends the stream also where take has thrown; a stream that has ended or failed does not mind.
    reader.cancel().catch(() => {});
  }
}
