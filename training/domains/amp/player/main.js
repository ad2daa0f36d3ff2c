// The page: loads play.json and the captures, and connects guitar, worker and sound.

import { Blind } from "./blind.js";

const BLOCK = 512, AHEAD = 6; // samples of a block, and blocks that are there before the sound starts
const find = id => document.getElementById(id);
const show = (id, text) => { find(id).textContent = text; };
const blind = new Blind();
let about, worker, context, node, source, stream, volume;

function problem(text) {
  find("problem").hidden = false;
  show("problem", text);
}

function ask(message, key, transfer = []) {
  return new Promise((resolve, reject) => {
    const answer = ({ data }) => {
      if (!(key in data) && !data.failed) return;
      worker.removeEventListener("message", answer);
      if (data.failed) reject(new Error(data.failed));
      else resolve(data[key]);
    };
    worker.addEventListener("message", answer);
    worker.postMessage(message, transfer);
  });
}

async function guitar(kind) {
  if (kind === "live") {
    const processing = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: processing });
    return new MediaStreamAudioSourceNode(context, { mediaStream: stream });
  }
  const file = find("file").files[0];
  if (kind === "file" && !file) throw new Error("choose a recording first");
  const bytes = kind === "file" ? await file.arrayBuffer()
    : await (await fetch(new URL("plucked.wav", import.meta.url))).arrayBuffer();
  return new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(bytes), loop: true });
}

async function start() {
  const { rate } = about.extra.captures[find("capture").value];
  context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
  await context.audioWorklet.addModule(new URL("amp_worklet.js", import.meta.url));
  source = await guitar(find("source").value);
  const settings = { block: BLOCK, ahead: AHEAD };
  const mono = { channelCount: 1, channelCountMode: "explicit" };
  node = new AudioWorkletNode(context, "amp", { processorOptions: settings, ...mono });
  const { port1, port2 } = new MessageChannel();
  node.port.postMessage({ port: port1 }, [port1]);
  node.port.onmessage = ({ data }) => show("gaps", String(data.gaps));
  worker.postMessage({ port: port2, rate }, [port2]);
  volume = new GainNode(context, { gain: Number(find("volume").value) });
  source.connect(node).connect(volume).connect(context.destination);
  source.start?.();
  await context.resume();
  show("gaps", "0");
  show("latency", `${(1000 * (AHEAD + 1) * BLOCK / rate).toFixed(0)} ms`);
}

async function stop() {
  stream?.getTracks().forEach(track => track.stop());
  await context.close();
  context = stream = null;
}

/** Sound through one side; the radio buttons follow unless it is a blind one. */
function hear(side, letter) {
  worker.postMessage({ side });
  for (const one of ["a", "b"]) find(one).setAttribute("aria-pressed", String(one === letter));
  for (const radio of document.getElementsByName("side")) radio.checked = !letter && radio.value === side;
}

function connect() {
  const play = find("play"), blindButtons = ["a", "b", "is-a", "is-b", "again"].map(find);
  play.disabled = false;
  play.addEventListener("click", async () => {
    try {
      if (context) await stop();
      else await start();
    } catch (error) {
      problem(`This cannot be played: ${error.message}`);
      if (context) await stop();
    }
    play.textContent = context ? "Stop" : "Play";
    for (const button of blindButtons) button.disabled = !context;
  });
  find("source").addEventListener("change", event => { find("file-label").hidden = event.target.value !== "file"; });
  find("capture").addEventListener("change", async event => {
    if (context) play.click();
    await ask({ capture: event.target.value }, "captured").catch(error => problem(error.message));
  });
  find("side").addEventListener("change", event => hear(event.target.value));
  const drive = () => {
    const decibels = Number(find("drive").value);
    show("drive-text", `${decibels > 0 ? "+" : ""}${decibels} dB`);
    worker.postMessage({ drive: 10 ** (decibels / 20) });
  };
  find("drive").addEventListener("input", drive);
  drive();
  find("volume").addEventListener("input", event => { if (context) volume.gain.value = Number(event.target.value); });
  for (const letter of ["a", "b"]) {
    find(letter).addEventListener("click", () => hear(blind.side(letter), letter));
    find(`is-${letter}`).addEventListener("click", () => {
      show("score", blind.answer(letter));
      hear(blind.side("a"), "a");
    });
  }
  find("again").addEventListener("click", () => {
    blind.restart();
    show("score", "No answer yet.");
  });
}

async function main() {
  about = await (await fetch(new URL("play.json", import.meta.url))).json();
  show("about", about.about);
  show("runtime", about.runtime.text);
  find("synthetic").hidden = !about.synthetic;
  for (const name of Object.keys(about.extra.captures)) find("capture").add(new Option(name, name));
  worker = new Worker(new URL("amp_worker.js", import.meta.url), { type: "module" });
  worker.addEventListener("message", ({ data }) => {
    if (data.failed) problem(data.failed);
    if (data.share) show("load", `${(100 * data.share).toFixed(0)} %`);
  });
  await ask({ load: about }, "ready");
  await ask({ capture: find("capture").value }, "captured");
  connect();
}

/** For tests: the networks without sound, and the comparison. */
globalThis.athanor = {
  ready: main().catch(error => problem(error.message)),
  sound: exact => ask({ exact }, "sound"),
  blind,
};
