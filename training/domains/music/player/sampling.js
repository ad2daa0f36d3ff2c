// Drawing an id from logits, as training/domains/music/midi_generator/generate.py does.

/** Uniform numbers in [0, 1) from a seed: SplitMix64 (Steele et al. 2014), the upper 53 bits. */
export class Uniform {
  constructor(seed) {
    this.state = BigInt.asUintN(64, BigInt(seed));
  }

  next() {
    this.state = BigInt.asUintN(64, this.state + 0x9e3779b97f4a7c15n);
    let z = this.state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
  }
}

/**
 * An id from `logits` (Float64Array) by temperature, top-k, then top-p (Holtzman et al. 2020). `allowed`: one byte an
 * id; `uniform`: a number in [0, 1); `settings`: temperature, top_k, top_p.
 */
export function draw(logits, allowed, uniform, settings) {
  const order = [];
  for (let id = 0; id < logits.length; id++) if (allowed[id]) order.push(id);
  order.sort((a, b) => logits[b] - logits[a] || a - b);
  if (settings.temperature === 0) return order[0];
  const kept = settings.top_k ? order.slice(0, settings.top_k) : order;
  const weights = kept.map(id => Math.exp((logits[id] - logits[kept[0]]) / settings.temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  const totals = [];
  let total = 0;
  for (const weight of weights) {
    total += weight / sum;
    totals.push(total);
    if (total >= settings.top_p) break; // up to and including the id that reaches p
  }
  const wanted = uniform * total;
  const at = totals.findIndex(reached => reached > wanted);
  return kept[at < 0 ? totals.length - 1 : at];
}
