// Runs on the audio thread: plays what it is given, one piece after the other, and says how far it is.

const REPORT_QUANTA = 4; // of 128 samples: every 21 ms

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.number = 0; // of stops: what was reported before one counts no more
    this.isStopping = false;
    /** @type {{itemId: string, samples: Float32Array}[]} */
    this.queue = [];
    this.place = 0; // in the first piece
    this.numQuanta = 0;
    /** @type {Map<string, number>} samples played since the last report, by item */
    this.played = new Map();
    this.port.onmessage = ({ data }) => {
      if (data.samples) this.queue.push(data);
      else this.stop(data.number);
    };
  }

  stop(number) {
    this.isStopping = this.queue.length > 0;
    this.number = number;
    this.played.clear();
  }

  process(_, [[output]]) {
    let filled = 0;
    while (filled < output.length && this.queue.length > 0) {
      const { itemId, samples } = this.queue[0];
      const piece = samples.subarray(this.place, this.place + output.length - filled);
      output.set(piece, filled);
      filled += piece.length;
      this.place += piece.length;
      this.played.set(itemId, (this.played.get(itemId) ?? 0) + piece.length);
      if (this.place === samples.length) {
        this.queue.shift();
        this.place = 0;
      }
    }
    if (this.isStopping) this.fade(output);
    this.numQuanta += 1;
    const isIdle = this.queue.length === 0;
    if (this.played.size > 0 && (isIdle || this.numQuanta >= REPORT_QUANTA)) {
      this.port.postMessage({ number: this.number, played: [...this.played] });
      this.played.clear();
      this.numQuanta = 0;
    }
    return true;
  }

  // End within 5 ms, without a click.
  fade(output) {
    output.forEach((sample, at) => { output[at] = sample * (1 - at / output.length); });
    this.queue = [];
    this.place = 0;
    this.isStopping = false;
    this.played.clear();
  }
}

registerProcessor("parley-player", Player);
