// A small synthesiser with WebAudio: one voice a note, a timbre for each instrument family, and drums.

/** Family -> [wave, seconds of attack, seconds of decay, sustained level, cut-off in multiples of the pitch, level]. */
const TIMBRES = [
  ["triangle", 0.004, 0.7, 0.15, 8, 0.9], ["sine", 0.002, 0.4, 0, 12, 0.9], ["square", 0.02, 0.1, 0.8, 5, 0.4],
  ["sawtooth", 0.004, 0.4, 0.2, 5, 0.5], ["triangle", 0.006, 0.4, 0.6, 4, 1.1], ["sawtooth", 0.09, 0.2, 0.8, 4, 0.4],
  ["sawtooth", 0.12, 0.3, 0.8, 3, 0.4], ["sawtooth", 0.03, 0.2, 0.7, 6, 0.45], ["square", 0.03, 0.2, 0.7, 4, 0.4],
  ["sine", 0.04, 0.2, 0.8, 6, 0.8], ["square", 0.01, 0.2, 0.7, 6, 0.35], ["triangle", 0.25, 0.4, 0.8, 4, 0.6],
  ["sawtooth", 0.15, 0.4, 0.6, 4, 0.4], ["triangle", 0.004, 0.35, 0.1, 9, 0.8], ["sine", 0.002, 0.25, 0, 10, 0.9],
  ["sawtooth", 0.05, 0.5, 0.4, 6, 0.3],
];
const RELEASE = 0.12;
/** Drum keys -> [seconds, hertz of the tone or 0, cut-off of the noise, level of the noise]. */
const DRUMS = { kick: [0.22, 60, 400, 0.15], snare: [0.18, 190, 6000, 0.7], hat: [0.06, 0, 9000, 0.5],
  open: [0.3, 0, 8000, 0.45], cymbal: [0.9, 0, 7000, 0.4], tom: [0.3, 110, 900, 0.2] };

export class Synth {
  constructor(context) {
    this.context = context;
    this.out = new DynamicsCompressorNode(context, { threshold: -16, ratio: 6 });
    this.level = new GainNode(context, { gain: 0.22 });
    this.level.connect(this.out);
    this.noise = new AudioBuffer({ length: context.sampleRate, sampleRate: context.sampleRate });
    const data = this.noise.getChannelData(0);
    for (let at = 0, state = 1; at < data.length; at++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      data[at] = state / 2 ** 31;
    }
  }

  /** Play a note of NoteReader at `when`, in the context's seconds. */
  play(note, when) {
    const loud = (note.velocity / 127) ** 1.5;
    if (note.drum) this.#drum(note.pitch, when, loud);
    else this.#tone(note, when, loud);
  }

  #tone({ family, pitch, seconds }, when, loud) {
    const [wave, attack, decay, sustain, bright, level] = TIMBRES[family % TIMBRES.length];
    const hertz = 440 * 2 ** ((pitch - 69) / 12), end = when + Math.max(seconds, attack + 0.03);
    const voice = new OscillatorNode(this.context, { type: wave, frequency: hertz });
    const highest = this.context.sampleRate / 2.2;
    const filter = new BiquadFilterNode(this.context, { frequency: Math.min(highest, 300 + hertz * bright) });
    const gain = new GainNode(this.context, { gain: 0 }), peak = loud * level;
    gain.gain.setValueAtTime(0, when);
    gain.gain.linearRampToValueAtTime(peak, when + attack);
    gain.gain.setTargetAtTime(peak * sustain, when + attack, decay / 3);
    gain.gain.setTargetAtTime(0, end, RELEASE / 4);
    voice.connect(filter).connect(gain).connect(this.level);
    voice.start(when);
    voice.stop(end + RELEASE);
  }

  #drum(key, when, loud) {
    const name = key < 37 ? "kick" : key === 38 || key === 40 || key === 39 ? "snare" : key === 42 || key === 44 ? "hat"
      : key === 46 ? "open" : [49, 51, 52, 53, 55, 57, 59].includes(key) ? "cymbal" : "tom";
    const [seconds, hertz, bright, hiss] = DRUMS[name];
    const fade = gain => {
      gain.gain.setValueAtTime(gain.gain.value, when);
      gain.gain.exponentialRampToValueAtTime(0.001, when + seconds);
    };
    const noise = new AudioBufferSourceNode(this.context, { buffer: this.noise, loop: true });
    const filter = new BiquadFilterNode(this.context, { type: hertz ? "lowpass" : "highpass", frequency: bright });
    const rush = new GainNode(this.context, { gain: loud * hiss });
    fade(rush);
    noise.connect(filter).connect(rush).connect(this.level);
    noise.start(when);
    noise.stop(when + seconds);
    if (!hertz) return;
    const skin = new OscillatorNode(this.context, { frequency: hertz * 2 });
    skin.frequency.setValueAtTime(hertz * 2, when);
    skin.frequency.exponentialRampToValueAtTime(hertz, when + 0.06);
    const body = new GainNode(this.context, { gain: loud * 1.2 });
    fade(body);
    skin.connect(body).connect(this.level);
    skin.start(when);
    skin.stop(when + seconds);
  }
}
