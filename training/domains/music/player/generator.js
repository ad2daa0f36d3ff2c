// Writes music token by token with midi_generator_step.onnx, its key-value cache and the grammar in its metadata.

import { Grammar } from "./grammar.js";
import { metadataOf } from "./onnx_file.js";
import { draw } from "./sampling.js";

const EMOTION = 64;

export class Generator {
  /** `ort`: onnxruntime-web; `bytes`: the file (Uint8Array). */
  static async load(ort, bytes) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Generator(ort, session, metadataOf(bytes));
  }

  constructor(ort, session, metadata) {
    for (const key of ["vocabulary", "grammar_rules", "decoding", "generation", "context", "vocabulary_size"]) {
      if (!(key in metadata)) {
        throw new Error(`midi_generator_step.onnx has no \`${key}\` in its metadata: export it again`);
      }
    }
    this.ort = ort;
    this.session = session;
    this.vocabulary = JSON.parse(metadata.vocabulary);
    this.rules = JSON.parse(metadata.grammar_rules);
    this.decoding = JSON.parse(metadata.decoding);
    this.settings = JSON.parse(metadata.generation);
    this.context = Number(metadata.context);
    this.size = Number(metadata.vocabulary_size);
    this.states = session.inputNames.filter(name => name.startsWith("past_"));
    this.shapes = Object.fromEntries(session.inputMetadata.map(about => [about.name, about.shape]));
    this.allowed = new Uint8Array(this.size);
    this.logits = new Float64Array(this.size);
    this.restart();
  }

  /** Begin a new piece. */
  restart() {
    this.grammar = new Grammar(this.rules, this.vocabulary, this.size);
    this.written = []; // of an endless piece, the last ids only
    this.count = this.bars = 0;
    this.#read(this.vocabulary.bos[0]);
    this.#forget(this.written.slice());
  }

  get finished() {
    return this.grammar.finished;
  }

  /**
   * The next id. `emotion`: [valence, arousal, intensity], or none for an empty array; `uniform`: a number in [0, 1);
   * `endless`: never end the piece, else as the settings in the file say.
   */
  async next(emotion, uniform, endless) {
    if (this.cached + this.fresh.length > this.context) {
      this.#forget(this.written.slice(-Math.max(1, Math.floor(this.context / 2))));
    }
    await this.#step(emotion);
    this.grammar.mask(this.allowed);
    const { closing, max_tokens, min_bars } = this.settings;
    const eos = this.vocabulary.eos[0];
    if (endless) this.allowed[eos] = 0;
    else if (this.count >= max_tokens - closing.tokens) this.#towardsTheEnd(closing.direct);
    else if (this.bars < min_bars) this.allowed[eos] = 0;
    const id = draw(this.logits, this.allowed, uniform, this.settings);
    this.#read(id);
    this.fresh = [id];
    return id;
  }

  #read(id) {
    this.grammar.advance(id);
    this.written.push(id);
    this.count++;
    if (id === this.vocabulary.bar[0]) this.bars++;
    if (this.written.length > 4 * this.context) this.written.splice(0, 2 * this.context);
  }

  #forget(fresh) {
    this.fresh = fresh;
    this.cached = 0;
    this.past = null;
  }

  /** Run the graph on the new ids; `this.logits` are those after the last one. */
  async #step(emotion) {
    const guided = this.settings.guidance !== 1, batch = guided ? 2 : 1, count = this.fresh.length;
    const ids = BigInt64Array.from({ length: batch * count }, (_, at) => BigInt(this.fresh[at % count]));
    const wanted = new Float32Array(batch * EMOTION);
    wanted.set(emotion); // the second row stays zero: no emotion
    const feeds = {
      input_ids: new this.ort.Tensor("int64", ids, [batch, count]),
      emotion: new this.ort.Tensor("float32", wanted, [batch, EMOTION]),
    };
    for (const name of this.states) {
      const [, heads, , width] = this.shapes[name];
      feeds[name] = this.past?.[name.replace("past_", "present_")]
        ?? new this.ort.Tensor("float32", new Float32Array(0), [batch, heads, 0, width]);
    }
    const results = await this.session.run(feeds);
    this.past = results;
    this.cached += count;
    const all = results.logits.data, size = this.size;
    const given = all.subarray((count - 1) * size, count * size);
    if (guided) {
      const plain = all.subarray((2 * count - 1) * size, 2 * count * size);
      for (let id = 0; id < size; id++) this.logits[id] = plain[id] + this.settings.guidance * (given[id] - plain[id]);
    } else this.logits.set(given);
  }

  /** Keep only those of the allowed ids that lead most directly to the end. */
  #towardsTheEnd(direct) {
    for (const kind of direct) {
      const [first, count] = this.vocabulary[kind];
      if (this.allowed.subarray(first, first + count).some(Boolean)) {
        this.allowed.fill(0, 0, first);
        this.allowed.fill(0, first + count);
        return;
      }
    }
  }
}
