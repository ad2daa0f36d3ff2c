// A capture's network for blocks of any length: amp_stream.onnx, with its state carried from block to block.

export class Stream {
  /** `start`: the values of each state input before the first sample. */
  static async load(ort, bytes, start) {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Stream(ort, session, start);
  }

  constructor(ort, session, start) {
    Object.assign(this, { ort, session, start });
    this.states = session.inputNames.filter(name => name.startsWith("state_"));
    this.shapes = Object.fromEntries(session.inputMetadata.map(about => [about.name, about.shape]));
    this.rest();
  }

  /** Begin again, after silence. */
  rest() {
    this.state = Object.fromEntries(this.states.map(name =>
      [name, new this.ort.Tensor("float32", Float32Array.from(this.start[name]), this.shapes[name])]));
  }

  /** Float32Array in, Float32Array of the same length out. */
  async play(audio) {
    const given = { audio: new this.ort.Tensor("float32", audio, [1, audio.length]), ...this.state };
    const made = await this.session.run(given);
    for (const name of this.states) this.state[name] = made[name.replace("state_", "next_")];
    return made.sound.data;
  }
}
