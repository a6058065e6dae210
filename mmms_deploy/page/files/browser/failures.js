/** Errors of clicks that are answered in the browser: what was given, what was expected, and how to fix it. */

/** An error that crosses from the worker to the page; the page sees it as an AnswerError. */
export class Failure extends Error {
  /**
   * @param {string} kind Name of the error as the server has it, such as "ClickError".
   * @param {string} given
   * @param {string} [expected]
   * @param {string} [fix]
   */
  constructor(kind, given, expected = "", fix = "") {
    super([given, expected && `expected: ${expected}`, fix && `to fix: ${fix}`].filter(Boolean).join("\n  "));
    this.kind = kind;
    this.given = given;
    this.expected = expected;
    this.fix = fix;
  }

  /** @returns {{kind: string, given: string, expected: string, fix: string, text: string}} */
  toJSON() {
    return { kind: this.kind, given: this.given, expected: this.expected, fix: this.fix, text: this.message };
  }
}

/** Return any error as one that has all fields. @param {unknown} error @returns {Failure} */
export function asFailure(error) {
  if (error instanceof Failure) {
    return error;
  }
  const text = error instanceof Error ? error.message : String(error);
  return new Failure("EngineError", `the click stage in the browser fails: ${text}`, "", "click on the server");
}
