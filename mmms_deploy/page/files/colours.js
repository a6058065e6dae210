// Colours: one for every label, and the scale of the confidence view.

/** The first objects' colours: apart from each other for every kind of colour vision, and on most photographs. */
const FIRST = [
  [37, 132, 255],
  [255, 145, 26],
  [23, 190, 120],
  [233, 60, 140],
  [160, 92, 255],
  [0, 198, 212],
  [250, 208, 30],
  [240, 74, 60],
  [138, 206, 52],
  [206, 130, 96],
  [120, 140, 255],
  [255, 132, 220],
];
const GOLDEN_ANGLE = 137.508;

/**
 * The colour of a label.
 * @param {number} label From 1.
 * @returns {[number, number, number]} Red, green, blue, 0 to 255.
 */
export function colourOf(label) {
  if (label <= FIRST.length) return /** @type {any} */ (FIRST[label - 1]);
  const hue = (label * GOLDEN_ANGLE) % 360;
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.56 - 0.38 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

/** The same for CSS. @param {number} label */
export const cssColour = (label) => `rgb(${colourOf(label).join(" ")})`;

/** Black is unlikely, violet and orange are in between, light yellow is sure. */
const STOPS = [
  [0, 10, 8, 30],
  [0.2, 75, 18, 110],
  [0.4, 150, 38, 110],
  [0.55, 205, 65, 75],
  [0.7, 240, 115, 35],
  [0.85, 252, 180, 50],
  [1, 252, 253, 190],
];

/**
 * The scale of the confidence view.
 * @returns {Uint8ClampedArray} 256 colours, RGBA: the alpha falls where the network sees nothing of the object.
 */
export function heatScale() {
  const scale = new Uint8ClampedArray(256 * 4);
  for (let value = 0; value < 256; value += 1) {
    const share = value / 255;
    const next = Math.max(
      1,
      STOPS.findIndex((stop) => stop[0] >= share),
    );
    const [low, high] = [STOPS[next - 1], STOPS[next]];
    const part = (share - low[0]) / (high[0] - low[0]);
    for (let band = 0; band < 3; band += 1)
      scale[value * 4 + band] = low[band + 1] + part * (high[band + 1] - low[band + 1]);
    scale[value * 4 + 3] = 255 * (0.35 + 0.65 * Math.min(1, share * 2));
  }
  return scale;
}
