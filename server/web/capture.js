// Runs on the audio thread: hands the microphone's samples over in chunks of 40 ms.
const CHUNK_SAMPLES = 960; // at 24 kHz

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Float32Array(CHUNK_SAMPLES);
    this.filled = 0;
  }

  process([input]) {
    for (const sample of input[0] ?? []) {
      this.chunk[this.filled++] = sample;
      if (this.filled === CHUNK_SAMPLES) {
        this.port.postMessage(this.chunk.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
