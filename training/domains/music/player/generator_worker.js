// Writes music in a worker, ahead of the sound. Messages in: {load}, {emotion}, {play}, {stop}, {heard}, {once};
// messages out: {ready}, {notes}, {tick}, {piece}, {failed}. {notes} or {tick} comes all the time while music plays: the
// page's clock, since browsers slow down the timers of a page in the background, but not those of its workers.

import { Generator } from "./generator.js";
import { NoteReader } from "./notes.js";
import { loadModel, loadRuntime } from "./runtime.js";
import { Uniform } from "./sampling.js";

let generator, reader, uniform;
let emotion = [0, 0, 0.5];
let playing = false, running = false;
let heard = 0; // seconds of the piece that have sounded
let ahead = 4; // seconds that are written before they sound
let times = [];
const BATCH = { tokens: 16, milliseconds: 60 }; // written between two messages

async function load(about) {
  const ort = await loadRuntime(about.runtime);
  generator = await Generator.load(ort, await loadModel(about.models.midi_generator_step));
  postMessage({ ready: { decoding: generator.decoding, vocabulary: generator.vocabulary } });
}

/** Write while the music is less than `ahead` seconds in front of the sound. */
async function write() {
  if (running) return;
  running = true;
  while (playing) {
    if (reader.start > heard + ahead) {
      await new Promise(resolve => setTimeout(resolve, 20));
      postMessage({ tick: true });
      continue;
    }
    const notes = [], begun = performance.now();
    let count = 0;
    while (playing && count < BATCH.tokens && (count === 0 || performance.now() - begun < BATCH.milliseconds)) {
      const note = reader.feed(await generator.next(emotion, uniform.next(), true));
      if (note) notes.push(note);
      count++;
    }
    times.push((performance.now() - begun) / count);
    times = times.slice(-64);
    const sorted = [...times].sort((a, b) => a - b);
    postMessage({ notes, written: reader.start, bars: reader.bars.slice(), token: sorted[sorted.length >> 1] });
    await new Promise(resolve => setTimeout(resolve, 0)); // messages come in between
  }
  running = false;
}

/** One complete piece, as the settings in the file say: {ids, milliseconds a token}. */
async function once({ seed, emotion: wanted, settings }) {
  const before = generator.settings;
  generator.settings = { ...before, ...settings };
  generator.restart();
  const numbers = new Uniform(seed), ids = [...generator.written], milliseconds = [];
  while (!generator.finished) {
    const begun = performance.now();
    ids.push(await generator.next(wanted, numbers.next(), false));
    milliseconds.push(performance.now() - begun);
  }
  generator.settings = before;
  return { ids, milliseconds };
}

onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load);
    if (data.emotion) emotion = data.emotion;
    if (data.ahead) ahead = data.ahead;
    if (data.heard !== undefined) heard = data.heard;
    if (data.once) postMessage({ piece: await once(data.once) });
    if (data.play) {
      generator.restart();
      reader = new NoteReader(generator.decoding, generator.vocabulary);
      for (const id of generator.written) reader.feed(id);
      uniform = new Uniform(data.play.seed);
      heard = 0;
      playing = true;
      await write();
    }
    if (data.stop) playing = false;
  } catch (error) {
    playing = running = false;
    postMessage({ failed: String(error.message ?? error) });
  }
};
