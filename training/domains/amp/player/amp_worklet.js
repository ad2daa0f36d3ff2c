// Sends blocks of the guitar to the worker, and plays what comes back, in order. Samples that come too late are silent, and
// left out when they come, so the latency stays what it is.

class Amp extends AudioWorkletProcessor {
  constructor({ processorOptions: { block, ahead } }) {
    super();
    Object.assign(this, { block, ahead, filled: 0, queue: [], at: 0, waiting: true, owed: 0, gaps: 0 });
    this.input = new Float32Array(block);
    this.port.onmessage = ({ data }) => {
      if (!data.port) return;
      this.worker = data.port;
      this.worker.onmessage = ({ data: sound }) => this.queue.push(sound);
    };
  }

  process([given], [out]) {
    const guitar = given[0], sound = out[0];
    for (let at = 0; at < sound.length; at++) {
      this.input[this.filled++] = guitar ? guitar[at] : 0;
      if (this.filled === this.block) {
        this.worker?.postMessage(this.input, [this.input.buffer]);
        this.input = new Float32Array(this.block);
        this.filled = 0;
      }
      sound[at] = this.next();
    }
    for (let channel = 1; channel < out.length; channel++) out[channel].set(sound);
    return true;
  }

  /** The next sample; silence until `ahead` blocks are there. */
  next() {
    if (this.waiting && this.queue.length < this.ahead) return 0;
    this.waiting = false;
    for (; this.owed && this.queue.length; this.owed--) this.take();
    if (this.queue.length) return this.take();
    if (!this.owed++) this.port.postMessage({ gaps: ++this.gaps });
    return 0;
  }

  take() {
    const sample = this.queue[0][this.at++];
    if (this.at === this.queue[0].length) {
      this.queue.shift();
      this.at = 0;
    }
    return sample;
  }
}

registerProcessor("amp", Amp);
