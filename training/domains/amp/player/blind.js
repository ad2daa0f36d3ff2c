// A blind comparison: which of A and B is the trained capture?

/** The probability of at least `right` of `answers` right answers by guessing. */
export function byChance(right, answers) {
  let total = 0, ways = 1; // ways to be right `k` times
  for (let k = 0; k <= answers; k++) {
    if (k >= right) total += ways;
    ways = ways * (answers - k) / (k + 1);
  }
  return total / 2 ** answers;
}

export class Blind {
  constructor() {
    this.restart();
  }

  restart() {
    this.right = this.answers = 0;
    this.#shuffle();
  }

  /** The side that is behind the letter. */
  side(letter) {
    return (letter === "a") === this.studentIsA ? "student" : "teacher";
  }

  /** Records an answer; returns a sentence about all of them. */
  answer(letter) {
    const right = this.side(letter) === "student";
    this.answers++;
    if (right) this.right++;
    this.#shuffle();
    const chance = (100 * byChance(this.right, this.answers)).toFixed(0);
    return `${right ? "Right" : "Wrong"}. ${this.right} of ${this.answers} answers are right; guessing gives as many or ` +
      `more in ${chance} % of such tests.`;
  }

  #shuffle() {
    this.studentIsA = crypto.getRandomValues(new Uint8Array(1))[0] < 128;
  }
}
