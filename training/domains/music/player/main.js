// The page: loads play.json and the models, and connects controls, sound and pictures.

import { CloudView } from "./cloud_view.js";
import { drawRoll, emotionControls } from "./controls.js";
import { Listening } from "./listening.js";
import { Music } from "./music.js";
import { midiFile, NoteReader } from "./notes.js";

const find = id => document.getElementById(id);
const show = (id, text) => { find(id).textContent = text; };
const workers = {};
let music, listening, view, vocabulary;

function problem(text) {
  const place = find("problem");
  place.hidden = false;
  place.textContent = place.textContent ? `${place.textContent} · ${text}` : text;
}

/** A worker that has loaded its models, and what it says about them. */
function started(name, file, about, device) {
  const worker = new Worker(new URL(file, import.meta.url), { type: "module" });
  workers[name] = worker;
  return new Promise((resolve, reject) => {
    worker.addEventListener("error", event => reject(new Error(event.message || `${file} could not be loaded`)));
    worker.addEventListener("message", ({ data }) => {
      if (data.device) show("device", `Clouds: ${data.device}.`);
      if (data.ready) resolve(data.ready);
      if (data.failed) {
        problem(data.failed);
        reject(new Error(data.failed));
      }
    });
    worker.postMessage({ load: about, device });
  });
}

/** One message to a worker and the answer under `key`. */
function ask(name, message, key) {
  return new Promise((resolve, reject) => {
    const answer = ({ data }) => {
      if (!(key in data) && !data.failed) return;
      workers[name].removeEventListener("message", answer);
      if (data.failed) reject(new Error(data.failed));
      else resolve(data[key]);
    };
    workers[name].addEventListener("message", answer);
    workers[name].postMessage(message);
  });
}

async function startMusic(about) {
  const { decoding, ...tables } = await started("generator", "generator_worker.js", about);
  vocabulary = tables.vocabulary;
  music = new Music(workers.generator, decoding, () => {
    show("token", `${music.token.toFixed(1)} ms`);
    show("count", String(music.notes.length));
    show("late", String(music.late));
    show("pauses", String(music.pauses));
    find("slow").hidden = !music.pauses;
    find("save").disabled = !music.notes.length;
  });
  const play = find("play");
  play.disabled = false;
  play.addEventListener("click", async () => {
    if (music.playing) music.stop();
    else {
      await music.start(Number(find("seed").value), Number(find("volume").value));
      listening?.attach();
    }
    play.textContent = music.playing ? "Stop" : "Play";
    show("status", music.playing ? "The generator plays" : "The generator has stopped");
  });
  find("volume").addEventListener("input", event => {
    if (music.volume) music.volume.gain.value = Number(event.target.value);
  });
  find("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([music.file()], { type: "audio/midi" }));
    link.download = "athanor.mid";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers begin to read it later
  });
  await midiOutputs();
}

/** Offers the MIDI outputs of the system in the list of sounds. */
async function midiOutputs() {
  const list = find("sound");
  if (!navigator.requestMIDIAccess) {
    list.add(new Option("MIDI output: not in this browser", "none"));
    list.options[1].disabled = true;
    return;
  }
  list.add(new Option("MIDI output…", "ask"));
  let access;
  list.addEventListener("change", async () => {
    if (list.value === "ask") {
      try {
        access = await navigator.requestMIDIAccess();
      } catch {
        problem("The browser does not allow MIDI output.");
      }
      for (const [id, output] of access?.outputs ?? []) list.add(new Option(output.name, id));
      if (access && !access.outputs.size) problem("There is no MIDI output on this system.");
      list.value = list.options[2]?.value ?? "synth";
    }
    music.output = access?.outputs.get(list.value) ?? null;
  });
}

async function startClouds(about) {
  const device = new URLSearchParams(location.search).get("device");
  if (![null, "wasm", "webgpu"].includes(device)) {
    throw new Error(`?device=${device} is neither wasm nor webgpu; without it, the page takes the faster one.`);
  }
  const { rate } = await started("cloud", "cloud_worker.js", about, device);
  try {
    view = new CloudView(find("cloud"));
  } catch (error) {
    problem(error.message);
    return;
  }
  const times = [];
  workers.cloud.addEventListener("message", ({ data }) => {
    if (!data.cloud) return;
    view.set(data.cloud);
    times.push(performance.now());
    while (times.length > 1 && times[0] < times.at(-1) - 2000) times.shift();
    show("front", `${data.milliseconds.frontend.toFixed(1)} ms`);
    show("core", `${data.milliseconds.cloud.toFixed(1)} ms`);
    show("rate", times.length > 1 ? (1000 * (times.length - 1) / (times.at(-1) - times[0])).toFixed(1) : "–");
  });
  listening = new Listening(workers.cloud, rate);
  const listen = find("listen"), source = find("source");
  const label = () => { find("file-label").hidden = source.value !== "file"; };
  source.addEventListener("change", () => {
    label();
    if (listening.active) listen.click();
  });
  label();
  if (!music) source.value = source.options[1].value;
  listen.disabled = false;
  listen.addEventListener("click", async () => {
    if (listening.active) listening.stop();
    else {
      const file = find("file").files[0];
      if (source.value === "file" && !file) {
        find("file").click();
        return;
      }
      music ??= {};
      try {
        await listening.start(source.value, music, file);
      } catch (error) {
        problem(`This cannot be heard: ${error.message}`);
      }
    }
    listen.textContent = listening.active ? "Stop listening" : "Listen";
    show("status", listening.active ? "The cloud follows the sound" : "The cloud is still");
  });
}

/** A phone that rings, or a browser that saves power, stops the sound: it continues when the page is used again. */
function continueSound() {
  if ((music?.playing || listening?.active) && music.context.state !== "running") music.context.resume();
}

function frames() {
  let count = 0, since = performance.now();
  const frame = now => {
    if (music?.notes) {
      drawRoll(find("roll"), music.notes, music.now);
      if (music.playing && music.context.state !== "running") show("ahead", "the browser stopped the sound: touch the page");
      else if (music.playing) show("ahead", music.paused ? "writing…" : `${music.ahead.toFixed(1)} s`);
    }
    view?.draw(now);
    count++;
    if (now - since > 1000) {
      show("frames", (1000 * count / (now - since)).toFixed(0));
      count = 0;
      since = now;
    }
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

async function main() {
  const answer = await fetch(new URL("play.json", import.meta.url));
  const about = await answer.json();
  show("about", about.about);
  show("runtime", about.runtime.text);
  find("synthetic").hidden = !about.synthetic;
  document.querySelector(".music").hidden = !about.models.midi_generator_step;
  document.querySelector(".cloud").hidden = !about.models.spectocloud;
  if (about.models.midi_generator_step) await startMusic(about);
  if (about.models.spectocloud) await startClouds(about);
  for (const event of ["visibilitychange", "pointerdown", "keydown"]) document.addEventListener(event, continueSound);
  emotionControls(emotion => Object.values(workers).forEach(worker => worker.postMessage({ emotion })));
  frames();
}

const ready = main().catch(error => problem(error.message));
/** For tests: the models themselves, without sound. */
globalThis.athanor = {
  ready,
  piece: once => ask("generator", { once }, "piece"),
  file: ids => {
    const reader = new NoteReader(music.decoding, vocabulary);
    const notes = ids.map(id => reader.feed(id)).filter(note => note);
    return [...midiFile(notes, reader.bars, music.decoding)];
  },
  arrays: exact => ask("cloud", { exact }, "arrays"),
  state: () => music && { notes: music.notes.length, late: music.late, pauses: music.pauses, ahead: music.ahead, now: music.now,
    token: music.token, file: [...music.file()] },
};
