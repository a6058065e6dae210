/** Undo and redo as a line of snapshots, which are never written to (mmms_deploy/session/history.py). */

import { Failure } from "./failures.js";

/** A current snapshot, what came before it, and what was undone. Every step returns a new history. */
export class History {
  /**
   * @param {any} current
   * @param {number|null} limit How many steps can be undone; null for all of them.
   * @param {any[]} past Oldest first.
   * @param {any[]} future The newest step first.
   */
  constructor(current, limit, past = [], future = []) {
    this.current = current;
    this.limit = limit;
    this.past = past;
    this.future = future;
  }

  /** The snapshot that redoing everything would lead to. */
  get newest() {
    return this.future.length ? this.future[0] : this.current;
  }

  /** All snapshots that can be reached, oldest first. */
  get line() {
    return [...this.past, this.current, ...[...this.future].reverse()];
  }

  push(snapshot) {
    const past = [...this.past, this.current];
    const kept = this.limit === null ? past : past.slice(Math.max(0, past.length - this.limit));
    return new History(snapshot, this.limit, kept);
  }

  undo() {
    if (!this.past.length) {
      const within = this.limit === null ? "" : ` within the limit of ${this.limit}`;
      throw new Failure("HistoryError", "nothing to undo", `an earlier click${within}`, "reset the object");
    }
    const current = this.past[this.past.length - 1];
    return new History(current, this.limit, this.past.slice(0, -1), [...this.future, this.current]);
  }

  redo() {
    if (!this.future.length) {
      throw new Failure("HistoryError", "nothing to redo", "an undone click; a new click forgets them", "click on");
    }
    const current = this.future[this.future.length - 1];
    return new History(current, this.limit, [...this.past, this.current], this.future.slice(0, -1));
  }

  /** Return the history at a place of its line. @param {number} place */
  at(place) {
    const line = this.line;
    return new History(line[place], this.limit, line.slice(0, place), line.slice(place + 1).reverse());
  }

  /** Return it with another limit; the farthest steps beyond it are forgotten, undone ones first. */
  limited(limit) {
    if (limit === null) {
      return new History(this.current, null, this.past, this.future);
    }
    const past = this.past.slice(Math.max(0, this.past.length - limit));
    const room = limit - past.length;
    return new History(this.current, limit, past, this.future.slice(Math.max(0, this.future.length - room)));
  }
}
