// Loads onnxruntime-web as play.json says: from this folder, or from a content delivery network with integrity hashes.

/** onnxruntime-web, with its WebAssembly loaded. `about`: the entry `runtime` of play.json; `files`: one of its builds. */
export async function loadRuntime(about, { script, wasm } = about.files) {
  const get = async ({ name, integrity }) => {
    try {
      return await fetch(new URL(about.base + name, import.meta.url), { integrity });
    } catch (error) { // an answer of 404 has another hash, too
      throw new Error(`${about.base + name} is missing, or not the file of this version: ${error.message}`);
    }
  };
  const binary = (await get(wasm)).arrayBuffer();
  let address = new URL(about.base + script.name, import.meta.url).href;
  if (!about.local) address = URL.createObjectURL(await (await get(script)).blob());
  const ort = await import(address);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await binary;
  ort.env.logLevel = "error";
  return ort;
}

/** A model file of this folder as bytes; `model`: its entry in play.json. */
export async function loadModel(model) {
  const answer = await fetch(new URL(model.file, import.meta.url), { integrity: model.integrity });
  if (!answer.ok) throw new Error(`${model.file} could not be loaded: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}
