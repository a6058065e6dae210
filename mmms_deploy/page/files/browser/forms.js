/**
 * A network's answers in the form that its bundle says, and masks in the form that a network takes them
 * (mmms_deploy/session/answers.py, click_labels.py).
 *
 * @typedef {import("./resize.js").Plane} Plane
 */

import { toNetwork } from "./coordinates.js";
import { Failure } from "./failures.js";
import { resize, resizeAbove } from "./resize.js";

/** Largest logit of a mask that is put in. */
const GIVEN_LOGITS = 10;
/** What a map of labels says of a pixel. */
const [BACKGROUND, LIKELY_BACKGROUND, LIKELY_OBJECT, OBJECT] = [0, 1, 3, 4];

/** Whether a network answers with logits. @param {any} contract @returns {boolean} */
export function hasLogits(contract) {
  return contract.answers !== null && contract.answers.form === "logits";
}

/**
 * Return where an answer is above the threshold at the image's size.
 *
 * @param {Plane} plane
 * @param {boolean} logits Whether the numbers are logits; else probabilities.
 * @param {[number, number]} size (H0, W0).
 * @param {any} contract The click contract.
 * @returns {Uint8Array}
 */
export function aboveThreshold(plane, logits, size, contract) {
  const { threshold } = contract;
  const limit = logits ? Math.log(threshold) - Math.log1p(-threshold) : threshold;
  return resizeAbove(plane, size, contract.mask_resize, limit);
}

/**
 * Return numbers as probabilities in 255 steps.
 *
 * @param {Float32Array} numbers
 * @param {boolean} logits
 * @returns {Uint8Array}
 */
export function inSteps(numbers, logits) {
  const steps = new Uint8Array(numbers.length);
  for (let i = 0; i < steps.length; i += 1) {
    const probability = logits ? 1 / (1 + Math.exp(-numbers[i])) : numbers[i];
    steps[i] = Math.round(255 * probability);
  }
  return steps;
}

/**
 * Check an answer.
 *
 * @param {Float32Array} numbers
 * @param {boolean} logits
 * @returns {Float32Array} The same.
 * @throws {Failure} It has numbers that are none of its form.
 */
export function checkedAnswer(numbers, logits) {
  for (let i = 0; i < numbers.length; i += 1) {
    const number = numbers[i];
    if (logits ? !Number.isFinite(number) : !(number >= 0 && number <= 1)) {
      throw new Failure(
        "AnswerError",
        `the network answers with ${number} in the browser, which is no ${logits ? "logit" : "probability"}`,
        logits ? "finite numbers" : "numbers from 0 to 1 for every pixel",
        "click on the server",
      );
    }
  }
  return numbers;
}

/**
 * Return how a mask at the image's size is brought to the network's.
 *
 * @param {any} contract
 * @returns {import("./resize.js").ResizeRule}
 */
export function previousRule(contract) {
  const aligned = contract.mask_resize.align_corners;
  return contract.previous_resize ?? { align_corners: aligned, antialias: !aligned };
}

/**
 * Return a mask of the image as the probability that the network sees.
 *
 * @param {Uint8Array} pixels H0 * W0.
 * @param {[number, number]} image (H0, W0).
 * @param {[number, number]} network (H, W) of the answer.
 * @param {any} contract
 * @returns {Float32Array}
 */
export function previousOf(pixels, image, network, contract) {
  return resize({ height: image[0], width: image[1], numbers: pixels }, network, previousRule(contract)).numbers;
}

/**
 * Return the logits of a probability that is put in.
 *
 * @param {Float32Array} probability
 * @returns {Float32Array}
 */
export function givenLogits(probability) {
  return probability.map((given) => {
    const p = Math.min(Math.max(given, 0), 1); // a resize may have rounded it beyond
    return Math.min(Math.max(Math.log(p) - Math.log1p(-p), -GIVEN_LOGITS), GIVEN_LOGITS);
  });
}

/**
 * Return the labels that a mask and the clicks before it stand for.
 *
 * @param {Float32Array} probability H * W: the mask as the network sees it.
 * @param {{x: number, y: number, positive: boolean}[]} clicks Oldest first.
 * @param {[number, number]} image (H0, W0).
 * @param {[number, number]} network (H, W).
 * @param {any} contract
 * @returns {Uint8Array}
 */
export function labelsOfMask(probability, clicks, image, network, contract) {
  const threshold = Math.fround(contract.threshold);
  const labels = Uint8Array.from(probability, (p) => (p > threshold ? LIKELY_OBJECT : LIKELY_BACKGROUND));
  const reach = Math.fround(contract.radius ** 2);
  for (const click of clicks) {
    const [x, y] = toNetwork(click.x, click.y, image, network, contract.coordinates).map(Math.fround);
    for (let row = 0; row < network[0]; row += 1) {
      for (let column = 0; column < network[1]; column += 1) {
        // In single precision, as in the click stage, so that both draw the same pixels.
        const across = Math.fround(column - x);
        const down = Math.fround(row - y);
        if (Math.fround(Math.fround(across * across) + Math.fround(down * down)) <= reach) {
          labels[row * network[1] + column] = click.positive ? OBJECT : BACKGROUND;
        }
      }
    }
  }
  return labels;
}
