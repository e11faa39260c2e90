// Runs on the audio thread: hands over what it hears as 24 kHz mono, 20 ms at a time.

const RATE_HZ = 24_000;
const CHUNK_SAMPLES = 480; // 20 ms
const NUM_PHASES = 512;
const SILENCE = new Float32Array(128);
const LOBES = 16; // of the sinc, on each side

// Makes 24 kHz of the context's rate: at the place of each new sample, a sinc under a Hann window. Browsers do
// not all let a microphone into a context of another rate than its own, so contexts have the device's.
class Resampler {
  constructor(fromHz) {
    this.step = fromHz / RATE_HZ;
    const cutoff = Math.min(1, 1 / this.step) * 0.95;
    this.half = Math.ceil(LOBES / cutoff);
    this.taps = Array.from({ length: NUM_PHASES }, (_, phase) =>
      Float32Array.from({ length: 2 * this.half }, (_, tap) => {
        const x = tap - this.half + 1 - phase / NUM_PHASES;
        const sinc = x === 0 ? 1 : Math.sin(Math.PI * x * cutoff) / (Math.PI * x * cutoff);
        return cutoff * sinc * Math.max(0, 0.5 + 0.5 * Math.cos((Math.PI * x) / this.half));
      }),
    );
    this.heard = new Float32Array(2 * this.half);
    this.place = this.half; // of the next new sample, in `heard`
  }

  feed(samples, write) {
    const all = new Float32Array(this.heard.length + samples.length);
    all.set(this.heard);
    all.set(samples, this.heard.length);
    while (Math.floor(this.place) + this.half < all.length) {
      const whole = Math.floor(this.place);
      const taps = this.taps[Math.floor((this.place - whole) * NUM_PHASES)];
      let sum = 0;
      for (let tap = 0; tap < taps.length; tap++) sum += taps[tap] * all[whole - this.half + 1 + tap];
      write(sum);
      this.place += this.step;
    }
    const keep = Math.max(0, Math.floor(this.place) - this.half);
    this.heard = all.slice(keep);
    this.place -= keep;
  }
}

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === RATE_HZ ? null : new Resampler(sampleRate);
    this.chunk = new Float32Array(CHUNK_SAMPLES);
    this.filled = 0;
    this.isOpen = true;
    this.port.onmessage = () => { this.isOpen = false; };
    this.write = (sample) => {
      this.chunk[this.filled++] = sample;
      if (this.filled < CHUNK_SAMPLES) return;
      this.port.postMessage({ samples: this.chunk.slice(), atS: currentTime });
      this.filled = 0;
    };
  }

  process([input]) {
    const samples = input[0] ?? SILENCE; // a track that has ended is silent, so that turns end
    if (this.resampler) this.resampler.feed(samples, this.write);
    else samples.forEach(this.write);
    return this.isOpen;
  }
}

registerProcessor("parley-tap", Tap);
