// The live generator: notes come from the worker ahead of time and are given to the synthesiser or a MIDI output.

import { midiFile } from "./notes.js";
import { Synth } from "./synth.js";

const SOON = 1.2; // seconds before its onset at which a note is handed to the sound
const LEAD = 0.3; // seconds between the first notes and the first sound
const ENOUGH = { start: 1.5, again: 3.5 }; // seconds written before the sound starts, and before it continues

export class Music {
  /** `worker`: generator_worker.js, loaded; `changed`: called after each message with notes. */
  constructor(worker, decoding, changed) {
    Object.assign(this, { worker, decoding, changed });
    this.playing = false;
    this.#clear();
    worker.addEventListener("message", ({ data }) => {
      if (data.notes) this.#receive(data);
      if (data.notes || data.tick) this.#hand();
    });
  }

  /** `paused`: where in the piece it waits, in seconds; null while it sounds. `pauses`: how often it had to wait. */
  #clear() {
    Object.assign(this, { notes: [], bars: [], given: 0, late: 0, pauses: 0, written: 0, token: NaN, paused: 0 });
  }

  async start(seed, volume) {
    this.context ??= new AudioContext({ sampleRate: 44100 });
    this.synth ??= new Synth(this.context);
    this.volume ??= new GainNode(this.context);
    this.synth.out.connect(this.volume).connect(this.context.destination);
    this.volume.gain.value = volume;
    await this.context.resume();
    this.#clear();
    this.playing = true;
    this.worker.postMessage({ play: { seed } });
  }

  stop() {
    this.playing = false;
    this.worker.postMessage({ stop: true });
    this.synth.out.disconnect();
    this.synth = null;
    this.output?.clear?.();
    for (let channel = 0; channel < 16; channel++) this.output?.send([0xb0 | channel, 123, 0]);
  }

  /** Seconds of the piece that have sounded. */
  get now() {
    return this.paused ?? this.context.currentTime - this.begin;
  }

  get ahead() {
    return this.written - this.now;
  }

  file() {
    return midiFile(this.notes, this.bars, this.decoding);
  }

  #receive({ notes, written, bars, token }) {
    if (!this.playing) return;
    this.notes.push(...notes);
    Object.assign(this, { written, bars, token });
    this.changed();
  }

  /** Hands over what sounds soon. Only complete bars: where writing is too slow the music waits at a bar line, instead
   * of falling out of time. */
  #hand() {
    if (!this.playing) return;
    if (this.paused === null && this.now >= this.written) {
      this.paused = this.written;
      this.pauses++;
      this.changed();
    }
    if (this.paused !== null) {
      if (this.written < this.paused + (this.pauses ? ENOUGH.again : ENOUGH.start)) return;
      this.begin = this.context.currentTime + LEAD - this.paused;
      this.paused = null;
    }
    const now = this.now;
    this.worker.postMessage({ heard: now });
    const end = Math.min(now + SOON, this.written);
    while (this.given < this.notes.length && this.notes[this.given].onset < end) {
      const note = this.notes[this.given++];
      if (note.onset < now - 0.005) this.late++;
      if (this.output) this.#send(note);
      else this.synth.play(note, Math.max(this.context.currentTime, this.begin + note.onset));
    }
  }

  #send({ pitch, velocity, family, drum, onset, seconds }) {
    const channel = drum ? this.decoding.drum_channel : family < 9 ? family : family === 15 ? 0 : family + 1;
    const when = performance.now() + 1000 * (onset - this.now);
    if (!drum) this.output.send([0xc0 | channel, this.decoding.programs[family]], when);
    this.output.send([0x90 | channel, pitch, velocity], when);
    this.output.send([0x80 | channel, pitch, 0], when + 1000 * seconds);
  }
}
