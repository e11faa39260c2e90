// What the tests ask of a page, whatever client it uses.
const QUIET_CHUNKS = 50; // 1 s, by the page's own clock

export class Spy {
  constructor() {
    this.events = []; // of the server's
    this.heard = []; // chunks of what the page plays
    this.numChunks = 0; // 20 ms each, of what the microphone has said
    this.isSpeaking = false;
    this.stopMark = 0; // of `heard`
  }

  take(event) {
    this.events.push(event);
    if (event.type === "output_audio_buffer.started") this.isSpeaking = true;
    if (/^output_audio_buffer\.(stopped|cleared)$/.test(event.type)) {
      this.isSpeaking = false;
      this.stopMark = this.heard.length;
    }
  }

  hear(samples) {
    this.heard.push(samples);
  }

  // How many 20 ms of the reply could be heard.
  numAudible(since = 0) {
    return this.heard.slice(since).filter((chunk) => chunk.some((sample) => Math.abs(sample) > 0.02)).length;
  }

  // What came of what was said at a mark, once it is over. `numChunks`: when the microphone has been silent for long
  // enough that nobody has heard it.
  turn(mark, numChunks) {
    const events = this.events.slice(mark);
    const of = (type) => events.filter((event) => event.type === type);
    const isUnheard = of("input_audio_buffer.speech_started").length === 0 && this.numChunks > numChunks;
    if (isUnheard) return { user: "", reply: "" };
    // A response that was interrupted ends in these events as well; it was begun before.
    const begun = of("response.created").map((event) => event.response.id);
    const done = of("response.done").map((event) => event.response.id);
    if (begun.length === 0 || !begun.every((id) => done.includes(id)) || this.isSpeaking) return null;
    const stops = of("output_audio_buffer.stopped").length + of("output_audio_buffer.cleared").length;
    if (of("output_audio_buffer.started").length > stops) return null;
    // The server has sent the last packet; a browser on a busy machine has more than a second of them still to play.
    if (this.heard.length < this.stopMark + QUIET_CHUNKS || this.numAudible(-QUIET_CHUNKS) > 0) return null;
    const said = of("response.output_audio_transcript.done").filter((event) => begun.includes(event.response_id));
    return {
      user: of("conversation.item.input_audio_transcription.completed").map((event) => event.transcript).join(" "),
      reply: said.at(-1)?.transcript ?? "",
    };
  }

  // 16 bit, 24 kHz, base64.
  recording(since) {
    const chunks = this.heard.slice(since);
    const pcm = new Int16Array(chunks.length * 480);
    chunks.forEach((chunk, at) => chunk.forEach((sample, n) => {
      pcm[at * 480 + n] = Math.max(-1, Math.min(1, sample)) * 32_767;
    }));
    let text = "";
    new Uint8Array(pcm.buffer).forEach((byte) => { text += String.fromCharCode(byte); });
    return btoa(text);
  }
}

// The browser's own care for a microphone eats what tests say into it.
export function withoutProcessing() {
  const { mediaDevices } = navigator;
  const open = mediaDevices.getUserMedia.bind(mediaDevices);
  mediaDevices.getUserMedia = (wanted) => open({
    ...wanted,
    ...(wanted.audio && {
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    }),
  });
}
