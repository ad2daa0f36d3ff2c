// The state of one token sequence, kept by the rules in a file's metadata (training/domains/music/midi/rules.py
// describes their form).

export class Grammar {
  /** `rules`, `vocabulary`: the parsed texts `grammar_rules` and `vocabulary` of the metadata; `size`: how many ids. */
  constructor(rules, vocabulary, size) {
    this.rules = rules;
    this.kinds = new Array(size);
    this.values = new Int32Array(size);
    for (const [kind, [first, count]] of Object.entries(vocabulary)) {
      for (let value = 0; value < count; value++) {
        this.kinds[first + value] = kind;
        this.values[first + value] = value;
      }
    }
    this.stage = rules.start;
    this.registers = { ...rules.registers };
  }

  get finished() {
    return this.stage === this.rules.end;
  }

  /** Writes into `allowed`, a Uint8Array of one byte an id, 1 for the ids that may come next and 0 for the others. */
  mask(allowed) {
    const next = this.rules.stages[this.stage];
    const conditions = this.rules.forbidden.filter(([stage]) => stage === "*" || stage === this.stage);
    for (let id = 0; id < allowed.length; id++) {
      const kind = this.kinds[id], value = this.values[id];
      allowed[id] = kind in next && !conditions.some(([, kinds, condition]) =>
        kinds.includes(kind) && this.#holds(condition, value)) ? 1 : 0;
    }
    return allowed;
  }

  /** Reads an id that the mask allows. */
  advance(id) {
    const value = this.values[id], r = this.registers;
    this.stage = this.rules.stages[this.stage][this.kinds[id]];
    if (this.stage === undefined) throw new Error(`id ${id} is not legal here`);
    for (const [name, register, ...rest] of this.rules.entering[this.stage] ?? []) {
      if (name === "set") r[register] = rest[0];
      else if (name === "add") r[register] += rest[0];
      else if (name === "value") r[register] = value;
      else if (name === "digits") r[register] = r[rest[0]] * rest[1] + value;
      else if (name === "differs") {
        if (value !== r[register]) for (const other of rest[0]) r[other] = -1;
      } else throw new Error(`the file's grammar has a rule that this page does not know: ${name}`);
    }
  }

  #holds([name, register, ...rest], value) {
    const now = this.registers[register];
    switch (name) {
      case "below": return now < rest[0];
      case "above": return now > rest[0];
      case "value below": return value < now + rest[0];
      case "value is": return value === now;
      case "digits are": return this.registers[rest[0]] * rest[1] + value === now;
      default: throw new Error(`the file's grammar has a condition that this page does not know: ${name}`);
    }
  }
}
