// Runs the networks in a worker. Messages in: {load}, {port}, {capture}, {side}, {drive}, {exact}; out: {ready}, {load},
// {sound}, {failed}. Blocks of sound come and leave through the port of the audio thread.

import { loadModel, loadRuntime } from "./runtime.js";
import { Stream } from "./stream.js";

const FADE = 256; // samples over which a change of side is blended
let ort, about;
let streams = {}, gains = {};
let side = "teacher", before = "teacher", drive = 1;
let shares = [];
let chain = Promise.resolve();
let pending = 0; // blocks that wait: above MOST, a machine too slow answers with silence, instead of falling behind
const MOST = 16;

async function capture(name) {
  const found = about.extra.captures[name];
  const made = {};
  for (const one of ["teacher", "student"]) {
    const bytes = await loadModel(about.models[`${name}/${one}`]);
    made[one] = await Stream.load(ort, bytes, found.start[one]);
  }
  streams = made;
  gains = found.gains;
}

async function through(one, guitar) {
  if (one === "none") return guitar;
  const sound = await streams[one].play(guitar);
  return sound.map(sample => sample * gains[one]);
}

async function block(guitar, port, rate) {
  const begun = performance.now();
  for (let at = 0; at < guitar.length; at++) guitar[at] *= drive;
  const wanted = side;
  const sound = Float32Array.from(await through(wanted, guitar));
  if (before !== wanted) {
    const old = await through(before, guitar);
    for (let at = 0; at < Math.min(FADE, sound.length); at++) sound[at] += (old[at] - sound[at]) * (1 - at / FADE);
    before = wanted;
  }
  shares.push((performance.now() - begun) / (1000 * guitar.length / rate));
  port.postMessage(sound, [sound.buffer]);
  if (shares.length < 40) return;
  postMessage({ share: shares.sort((a, b) => a - b)[20] });
  shares = [];
}

const failed = error => postMessage({ failed: String(error.message ?? error) });

onmessage = ({ data }) => {
  chain = chain.then(async () => {
    if (data.load) {
      about = data.load;
      ort = await loadRuntime(about.runtime);
      postMessage({ ready: true });
    }
    if (data.capture) {
      await capture(data.capture);
      postMessage({ captured: data.capture });
    }
    if (data.drive !== undefined) drive = data.drive;
    if (data.side) side = data.side;
    if (data.port) {
      data.port.onmessage = ({ data: guitar }) => {
        const late = pending++ >= MOST;
        const answer = () => late ? data.port.postMessage(guitar.fill(0)) : block(guitar, data.port, data.rate);
        chain = chain.then(answer).catch(failed).finally(() => { pending--; });
      };
    }
    if (data.exact) {
      const stream = streams[data.exact.side], sound = [];
      stream.rest();
      for (const part of data.exact.blocks) sound.push(...await stream.play(Float32Array.from(part)));
      stream.rest();
      postMessage({ sound });
    }
  }).catch(failed);
};
