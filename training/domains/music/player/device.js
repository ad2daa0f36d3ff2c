// Where a graph is computed: on the processor (WASM), or by WebGPU where that gives the same and is faster.

import { loadRuntime } from "./runtime.js";

const TOLERANCE = 1e-3; // as for the golden files
const TRIES = 5;

/** A graph in one runtime. */
export class Graph {
  static async load(ort, bytes, provider) {
    const options = { executionProviders: [provider], logSeverityLevel: 3 }; // 3: errors, not which nodes run where
    return new Graph(ort, await ort.InferenceSession.create(bytes, options));
  }

  constructor(ort, session) {
    Object.assign(this, { ort, session });
  }

  /** {name: {data, dims}} for {name: {data, dims}}; all of them are float32. */
  run(inputs) {
    const tensors = Object.entries(inputs).map(([name, { data, dims }]) =>
      [name, new this.ort.Tensor("float32", data, dims)]);
    return this.session.run(Object.fromEntries(tensors));
  }
}

/** A graph that WebGPU runs until it fails or its device is lost (another program may take it); from then on, WASM. */
export class GraphWithSpare {
  /** `lost`: resolves to {message} when the device is lost; `onFailure`: is called once with the reason. */
  constructor(webgpu, wasm, lost, onFailure) {
    Object.assign(this, { webgpu, wasm, onFailure, waiting: new Set() });
    lost.then(({ message }) => this.fail(`its device was lost: ${message}`));
  }

  async run(inputs) {
    if (this.webgpu) {
      // not Promise.race with `lost`, which would keep each result in memory until the device is lost
      const made = await new Promise(resolve => {
        this.waiting.add(resolve);
        this.webgpu.run(inputs).then(resolve, error => this.fail(String(error.message ?? error)))
          .finally(() => this.waiting.delete(resolve));
      });
      if (made) return made;
    }
    return this.wasm.run(inputs);
  }

  fail(reason) {
    if (this.webgpu) this.onFailure(reason);
    this.webgpu = null;
    for (const resolve of this.waiting) resolve(null);
  }
}

/**
 * The graph on the device to use: {graph, text for the page}. `wasm`: a Graph; `bytes`: its file; `inputs`: of one run, by
 * which both are compared; `wanted`: "wasm" or "webgpu" (the other is not tried for its speed), or null: the faster one;
 * `say`: is called with another text when WebGPU fails later.
 */
export async function onFasterDevice(about, wasm, bytes, inputs, wanted, say) {
  const stay = why => ({ graph: wasm, text: `WASM (${why})` });
  if (wanted === "wasm") return stay("as ?device=wasm says");
  if (!navigator.gpu) return stay("this browser has no WebGPU");
  let webgpu, lost;
  try {
    if (!await navigator.gpu.requestAdapter()) return stay("the browser has WebGPU, but no adapter for it");
    const ort = await loadRuntime(about, about.webgpu);
    webgpu = await Graph.load(ort, bytes, "webgpu");
    ({ lost } = await ort.env.webgpu.device);
    const { use, text } = await compared(wasm, webgpu, inputs, wanted);
    if (use === "wasm") {
      await webgpu.session.release();
      return { graph: wasm, text };
    }
    const failed = why => say(`WASM (WebGPU failed: ${why})`);
    return { graph: new GraphWithSpare(webgpu, wasm, lost, failed), text };
  } catch (error) {
    return stay(`WebGPU failed: ${error.message ?? error}`);
  }
}

/** {use: "wasm" or "webgpu", text}. `now`: the clock, in milliseconds. */
export async function compared(wasm, webgpu, inputs, wanted = null, now = () => performance.now()) {
  const apart = difference(await wasm.run(inputs), await webgpu.run(inputs)); // the first run prepares both, too
  if (!(apart <= TOLERANCE)) return { use: "wasm", text: `WASM (the result of WebGPU differs by ${apart.toPrecision(2)})` };
  if (wanted === "webgpu") return { use: "webgpu", text: "WebGPU (as ?device=webgpu says)" };
  const times = [[], []];
  for (let turn = 0; turn < TRIES; turn++) {
    for (const [index, graph] of [wasm, webgpu].entries()) {
      const begun = now();
      await graph.run(inputs);
      times[index].push(now() - begun);
    }
  }
  const [onWasm, onWebgpu] = times.map(all => all.sort((a, b) => a - b)[TRIES >> 1]);
  const texts = [`WASM ${milliseconds(onWasm)}`, `WebGPU ${milliseconds(onWebgpu)}`];
  return onWebgpu < onWasm ? { use: "webgpu", text: texts.reverse().join(", ") } : { use: "wasm", text: texts.join(", ") };
}

const milliseconds = time => `${time.toFixed(time < 10 ? 1 : 0)} ms`;

/** The largest difference between the values of two results; NaN if a value is none. */
function difference(one, other) {
  let most = 0;
  for (const [name, { data }] of Object.entries(one)) {
    const against = other[name].data;
    for (let at = 0; at < data.length; at++) {
      const apart = Math.abs(data[at] - against[at]);
      if (!(apart <= most)) most = apart;
      if (Number.isNaN(most)) return most;
    }
  }
  return most;
}
