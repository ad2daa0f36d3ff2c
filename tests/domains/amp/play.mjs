// Plays sound through a capture with the players' C++ core, built as WebAssembly (npm: @opendaw/nam-wasm).
// node play.mjs DIST CAPTURE RATE IN OUT      IN and OUT: raw float32
// Prints the seconds of processor time for a second of sound: of the fastest of five parts.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [dist, capture, rate, input, output] = process.argv.slice(2);
const of = name => import(pathToFileURL(path.join(dist, name)).href);
const { default: createNamModule } = await of("nam.js");
const { NamWasmModule } = await of("NamWasmModule.js");
const nam = NamWasmModule.fromModule(await createNamModule({ wasmBinary: fs.readFileSync(path.join(dist, "nam.wasm")) }));
nam.setSampleRate(Number(rate));
nam.setMaxBufferSize(128);
const id = nam.createInstance();
if (!nam.loadModel(id, fs.readFileSync(capture, "utf8"))) {
  console.error("the core refuses the capture");
  process.exit(3);
}
const bytes = fs.readFileSync(input);
const sound = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const played = new Float32Array(sound.length);
const times = [];
for (let at = 0, begun = process.cpuUsage(), from = 0; at < sound.length; at += 128) {
  const block = new Float32Array(128);
  block.set(sound.subarray(at, at + 128));
  const out = new Float32Array(128);
  nam.process(id, block, out);
  played.set(out.subarray(0, Math.min(128, sound.length - at)), at);
  if (at + 128 - from >= sound.length / 5) {
    times.push(process.cpuUsage(begun).user / 1e6 * rate / (at + 128 - from));
    [begun, from] = [process.cpuUsage(), at + 128];
  }
}
console.log(Math.min(...times));
fs.writeFileSync(output, Buffer.from(played.buffer));
