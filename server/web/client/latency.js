// How long the user waited for each reply, and for what.
import { loudness } from "./pcm.js";

const VOICED = 0.01; // root mean square: -40 dBFS
const AUDIBLE = 0.002; // what is quieter is a codec's idea of silence

/**
 * What a user waited for between the end of their own words and the first sound of the reply, in milliseconds.
 * The parts make up the whole; null is what is not known.
 *
 * @typedef {object} TurnLatency
 * @property {string} responseId
 * @property {"spoken" | "typed"} kind
 * @property {number} totalMs
 * @property {number | null} detectionMs until the server took the turn for finished
 * @property {number | null} networkMs there and back
 * @property {number} engineMs from there to the first sound or word that the server sent
 * @property {number} playbackMs from there to the first sound that was heard
 */

/** Follows one turn after the other. */
export class TurnClock {
  /** @param {(turn: TurnLatency) => void} tell @param {() => Promise<import("./webrtc.js").Delays>} delays */
  constructor(tell, delays) {
    this.tell = tell;
    this.delays = delays;
    this.voicedMs = 0;
    /** @type {{kind: "spoken" | "typed", fromMs: number, decidedMs: number} | null} */
    this.asked = null;
    /** @type {string | null} */
    this.responseId = null;
    this.sentMs = 0; // when the first of the reply came
  }

  reset() {
    this.asked = null;
    this.responseId = null;
    this.sentMs = 0;
  }

  /** @param {import("./tap.js").Chunk} chunk of the user's */
  hearUser({ samples, atMs }) {
    if (loudness(samples) > VOICED) this.voicedMs = atMs;
  }

  /** Note that a turn was typed. @param {number} atMs */
  typed(atMs) {
    this.begin({ kind: "typed", fromMs: atMs, decidedMs: atMs });
  }

  /** @param {any} event of the server's @param {number} atMs when it came */
  take(event, atMs) {
    if (event.type === "input_audio_buffer.committed") {
      const isKnown = atMs - this.voicedMs < 10_000;
      this.begin({ kind: "spoken", fromMs: isKnown ? Math.min(this.voicedMs, atMs) : atMs, decidedMs: atMs });
    } else if (event.type === "response.created" && this.asked && event.response.conversation_id !== null) {
      this.responseId = event.response.id;
    } else if (event.response_id === this.responseId && this.responseId && !this.sentMs && isFirst(event)) {
      this.sentMs = atMs;
    } else if (event.type === "response.done" && event.response.id === this.responseId) {
      // What was cancelled before it was heard is no wait that ended.
      if (event.response.status !== "completed") this.reset();
    }
  }

  /** @param {import("./tap.js").Chunk} chunk of the assistant's */
  hearAssistant({ samples, atMs }) {
    if (!this.sentMs || !this.asked || !this.responseId || loudness(samples) < AUDIBLE) return;
    const { asked, responseId } = this;
    const sentMs = Math.min(this.sentMs, atMs); // a busy page reads its events late
    this.reset();
    this.delays().catch(() => ({ networkMs: null, playbackMs: null })).then((delays) => {
      const { networkMs } = delays;
      const ways = networkMs ?? 0;
      const isSpoken = asked.kind === "spoken";
      const totalMs = Math.max(0, atMs - asked.fromMs);
      const detectionMs = isSpoken ? Math.max(0, asked.decidedMs - asked.fromMs - ways) : null;
      // Sound overtakes events: where the browser knows how long it waited in its buffer, that counts.
      const playbackMs = delays.playbackMs ?? Math.max(0, atMs - sentMs);
      const engineMs = Math.max(0, totalMs - (detectionMs ?? 0) - ways - playbackMs);
      this.tell({ responseId, kind: asked.kind, totalMs, detectionMs, networkMs, engineMs, playbackMs });
    });
  }

  /** @param {NonNullable<TurnClock["asked"]>} asked */
  begin(asked) {
    this.reset();
    this.asked = asked;
  }
}

/** @param {any} event */
function isFirst(event) {
  return event.type === "output_audio_buffer.started" || event.type === "response.output_audio.delta";
}
