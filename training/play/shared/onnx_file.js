// The metadata of an .onnx file, which onnxruntime-web does not expose. The file is a protocol buffer (ModelProto);
// field 14 holds its metadata_props, pairs of texts.

const METADATA = 14;

/** The metadata of a model, as an object of texts. Throws an Error for bytes that are no ONNX file. */
export function metadataOf(bytes) {
  const found = {};
  for (const [field, part] of fields(bytes)) {
    if (field !== METADATA || !(part instanceof Uint8Array)) continue;
    const texts = { 1: "", 2: "" };
    for (const [number, text] of fields(part)) texts[number] = new TextDecoder().decode(text);
    found[texts[1]] = texts[2];
  }
  return found;
}

/** The fields of one message: [number, bytes or integer]. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 56) throw new Error("this is not a readable ONNX file");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint(), field = Math.floor(key / 8), kind = key % 8;
    if (kind === 0) yield [field, varint()];
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const size = varint();
      if (at + size > bytes.length) throw new Error("this ONNX file ends too early");
      yield [field, bytes.subarray(at, at + size)];
      at += size;
    } else throw new Error("this is not a readable ONNX file");
  }
}
