// What Spectocloud listens to: the generator, a file or the microphone.

export class Listening {
  /** `worker`: cloud_worker.js, loaded; `rate`: samples a second that its graph takes. */
  constructor(worker, rate) {
    Object.assign(this, { worker, rate, active: false });
  }

  /** `source`: own, file or microphone; `music`: Music, whose context is used; `file`: a File. */
  async start(source, music, file) {
    music.context ??= new AudioContext({ sampleRate: this.rate });
    const context = music.context;
    await context.resume();
    if (!this.capture) {
      await context.audioWorklet.addModule(new URL("capture_worklet.js", import.meta.url));
      this.capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 1 });
      this.capture.port.onmessage = ({ data }) => this.worker.postMessage({ samples: data }, [data.buffer]);
      this.silent = new GainNode(context, { gain: 0 });
      this.capture.connect(this.silent).connect(context.destination); // so that the browser runs it
    }
    if (source === "microphone") {
      const processing = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: processing });
      this.node = new MediaStreamAudioSourceNode(context, { mediaStream: this.stream });
    } else if (source === "file") {
      const buffer = await context.decodeAudioData(await file.arrayBuffer());
      this.node = new AudioBufferSourceNode(context, { buffer, loop: true });
      this.node.connect(context.destination);
      this.node.start();
    } else this.own = music;
    this.node?.connect(this.capture);
    this.attach();
    this.active = true;
    this.worker.postMessage({ run: true });
  }

  /** Connect the generator's sound, once it plays. */
  attach() {
    this.own?.synth?.out.connect(this.capture);
  }

  stop() {
    this.active = false;
    this.worker.postMessage({ run: false });
    this.node?.stop?.();
    this.node?.disconnect();
    this.stream?.getTracks().forEach(track => track.stop());
    this.own?.synth?.out.disconnect(this.capture);
    this.node = this.stream = this.own = null;
  }
}
