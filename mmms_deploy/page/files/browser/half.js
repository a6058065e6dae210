/** Half-precision numbers, in which an image's features are sent. */

/** The numbers of float16 for every sign and exponent, as a factor of (1024 + fraction), or of the fraction alone. */
let tables = null;

function madeTables() {
  const scale = new Float32Array(64);
  const implied = new Uint16Array(64);
  for (let high = 0; high < 64; high += 1) {
    const exponent = high & 31;
    const sign = high & 32 ? -1 : 1;
    scale[high] = sign * 2 ** (Math.max(exponent, 1) - 25);
    implied[high] = exponent === 0 ? 0 : 1024;
  }
  return { scale, implied };
}

/**
 * Return half-precision numbers in single precision, which holds them exactly.
 *
 * @param {Uint16Array} bits Their bits.
 * @returns {Float32Array}
 */
export function decodeHalf(bits) {
  if (typeof Float16Array === "function") {
    return new Float32Array(new Float16Array(bits.buffer, bits.byteOffset, bits.length));
  }
  return decodeBits(bits);
}

/**
 * The same for browsers without Float16Array.
 *
 * @param {Uint16Array} bits Their bits.
 * @returns {Float32Array}
 */
export function decodeBits(bits) {
  tables = tables ?? madeTables();
  const { scale, implied } = tables;
  const numbers = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 1) {
    const high = bits[i] >> 10;
    const fraction = bits[i] & 1023;
    if ((high & 31) === 31) {
      numbers[i] = fraction ? NaN : high & 32 ? -Infinity : Infinity;
    } else {
      numbers[i] = scale[high] * (implied[high] + fraction);
    }
  }
  return numbers;
}
