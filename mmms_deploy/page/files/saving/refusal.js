import { AnswerError } from "../answers.js";

/**
 * Make the error of a file or a value that is refused, with the kinds that the Python package has.
 *
 * @param {string} kind "AnnotationError" or "SessionError"
 * @param {string} given What was given
 * @param {string} expected What was expected
 * @param {string} fix How to fix it
 * @returns {AnswerError}
 */
export function refusal(kind, given, expected, fix) {
  return new AnswerError({ kind, given, expected, fix });
}

/**
 * Return a value for a message, short.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function shown(value) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined;
  }
  text ??= String(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
