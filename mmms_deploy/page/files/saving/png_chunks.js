/** The first bytes of a PNG file. */
export const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

const TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  let value = number;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/**
 * Return the CRC32 of bytes, as PNG has it.
 *
 * @param {Uint8Array} bytes
 * @returns {number} Unsigned
 */
export function crc32(bytes) {
  let value = -1;
  for (let place = 0; place < bytes.length; place += 1) value = TABLE[(value ^ bytes[place]) & 255] ^ (value >>> 8);
  return (value ^ -1) >>> 0;
}

/**
 * Write a chunk.
 *
 * @param {string} type Four letters
 * @param {Uint8Array} content
 * @returns {Uint8Array}
 */
export function chunk(type, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let letter = 0; letter < 4; letter += 1) bytes[4 + letter] = type.charCodeAt(letter);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc32(bytes.subarray(4, content.length + 8)));
  return bytes;
}

/**
 * Return the chunks of a PNG file, up to the one that ends it.
 *
 * @param {Uint8Array} bytes The file
 * @returns {Array<{type: string, content: Uint8Array}>}
 * @throws {Error} It is no PNG file, ends too early, or a chunk is damaged; the message says which
 */
export function chunksOf(bytes) {
  if (bytes.length < 8 || SIGNATURE.some((byte, place) => bytes[place] !== byte)) throw new Error("it is no PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = [];
  for (let place = 8; ; ) {
    if (place + 12 > bytes.length) throw new Error("it ends too early");
    const length = view.getUint32(place);
    const type = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw new Error("one of its chunks has no name");
    if (length > bytes.length - place - 12) throw new Error(`it ends in the middle of its chunk ${type}`);
    if (view.getUint32(place + 8 + length) !== crc32(bytes.subarray(place + 4, place + 8 + length))) {
      throw new Error(`its chunk ${type} is damaged: the checksum is another one`);
    }
    found.push({ type, content: bytes.subarray(place + 8, place + 8 + length) });
    if (type === "IEND") return found;
    place += length + 12;
  }
}
