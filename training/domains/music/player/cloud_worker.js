// Draws clouds from sound in a worker: spectocloud_frontend.onnx, then spectocloud.onnx. Messages in: {load},
// {samples}, {emotion}, {run}, {exact}; messages out: {device}, {ready}, {cloud}, {arrays}, {failed}.

import { Graph, onFasterDevice } from "./device.js";
import { metadataOf } from "./onnx_file.js";
import { loadModel, loadRuntime } from "./runtime.js";

const EMOTION = 64, FEATURES = 32;
let frontend, cloud;
let shape; // of a spectrogram
let sound; // the last samples that one window takes, oldest first
let fresh = 0; // samples that no cloud has used yet
let emotion = [0, 0, 0.5];
let running = false, busy = false;
let rate, hop;

async function load(about, device) {
  const ort = await loadRuntime(about.runtime);
  const bytes = await loadModel(about.models.spectocloud_frontend);
  const metadata = metadataOf(bytes);
  rate = Number(metadata.sample_rate);
  hop = Number(metadata.hop);
  if (!rate || !hop) throw new Error("spectocloud_frontend.onnx names no sample rate in its metadata: export it again");
  frontend = await Graph.load(ort, bytes, "wasm");
  sound = new Float32Array(frontend.session.inputMetadata[0].shape[1]);
  const model = await loadModel(about.models.spectocloud), onWasm = await Graph.load(ort, model, "wasm");
  shape = [1, ...onWasm.session.inputMetadata[0].shape.slice(1)];
  const say = text => postMessage({ device: text });
  const heard = await spectrogramOf(sound.map((_, at) => 0.3 * Math.sin(at * (0.02 + at * 2e-6)))); // a rising tone
  const { graph, text } = await onFasterDevice(about.runtime, onWasm, model, inputsOf(heard, emotion), device, say);
  cloud = graph;
  say(text);
  postMessage({ ready: { rate, window: sound.length / rate } });
}

function hear(samples) {
  const given = samples.length > sound.length ? samples.subarray(samples.length - sound.length) : samples;
  sound.copyWithin(0, given.length);
  sound.set(given, sound.length - given.length);
  fresh += given.length;
}

async function spectrogramOf(waveform) {
  return (await frontend.run({ waveform: { data: waveform, dims: [1, waveform.length] } })).spectrogram;
}

/** The inputs of a cloud. `spectrogram`: {data, dims}. */
function inputsOf(spectrogram, mood, features = new Float32Array(FEATURES)) {
  const wanted = new Float32Array(EMOTION);
  wanted.set(mood);
  return {
    spectrogram, emotion: { data: wanted, dims: [1, EMOTION] }, midi_features: { data: features, dims: [1, FEATURES] },
  };
}

/** A cloud as often as this machine can, while there is new sound. */
async function run() {
  if (busy) return;
  busy = true;
  while (running) {
    if (fresh < hop) {
      await new Promise(resolve => setTimeout(resolve, 8));
      continue;
    }
    fresh = 0;
    const begun = performance.now();
    const spectrogram = await spectrogramOf(sound.slice());
    const middle = performance.now();
    const { positions, colors, properties } = await cloud.run(inputsOf(spectrogram, emotion));
    const ended = performance.now();
    postMessage({
      cloud: { positions: positions.data, colors: colors.data, properties: properties.data },
      milliseconds: { frontend: middle - begun, cloud: ended - middle },
    });
    await new Promise(resolve => setTimeout(resolve, 0)); // messages come in between
  }
  busy = false;
}

/** The outputs for given inputs: `waveform`, or `spectrogram` with `emotion` and `features`. */
async function exact({ waveform, spectrogram, emotion: mood, features }) {
  if (waveform) return { spectrogram: (await spectrogramOf(waveform)).data };
  const { positions, colors, properties } = await cloud.run(inputsOf({ data: spectrogram, dims: shape }, mood, features));
  return { positions: positions.data, colors: colors.data, properties: properties.data };
}

onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load, data.device);
    if (data.emotion) emotion = data.emotion;
    if (data.samples) hear(data.samples);
    if (data.exact) postMessage({ arrays: await exact(data.exact) });
    if (data.run !== undefined) {
      running = data.run;
      if (running) await run();
    }
  } catch (error) {
    running = busy = false;
    postMessage({ failed: String(error.message ?? error) });
  }
};
