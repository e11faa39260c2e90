// Plays replies that come as events, and knows how much of an item has been heard.
import { RATE_HZ } from "./pcm.js";

const LEAD_S = 0.02; // between the first sound's arrival and its beginning

/** What was cut off. @typedef {{itemId: string, heardMs: number}} Cut */

export class Player {
  /** @param {AudioContext} context of 24 kHz, so that pieces join without a seam */
  constructor(context) {
    this.context = context;
    this.output = context.createGain();
    this.output.connect(context.destination);
    /** @type {Set<AudioBufferSourceNode>} */
    this.sources = new Set();
    /** @type {{itemId: string, startS: number, endS: number}[]} what is played, or will be */
    this.items = [];
    this.onidle = () => {};
  }

  get isPlaying() {
    return this.sources.size > 0;
  }

  /** @param {string} itemId @param {Float32Array} samples at 24 kHz */
  play(itemId, samples) {
    if (samples.length === 0) return;
    const now = this.context.currentTime;
    const last = this.items.at(-1);
    const atS = Math.max(now + (this.isPlaying ? 0 : LEAD_S), last?.endS ?? 0);
    if (last?.itemId !== itemId) this.items.push({ itemId, startS: atS, endS: atS });
    const item = /** @type {{startS: number, endS: number}} */ (this.items.at(-1));
    item.startS += atS - item.endS; // what was waited for counts as not played
    const buffer = this.context.createBuffer(1, samples.length, RATE_HZ);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.output);
    source.start(atS);
    item.endS = atS + buffer.duration;
    this.sources.add(source);
    source.onended = () => {
      this.sources.delete(source);
      if (this.sources.size === 0) this.onidle();
    };
  }

  /** Stop at once. @returns {Cut[]} what has not been heard to its end */
  stop() {
    const now = this.context.currentTime;
    const cut = this.items
      .filter((item) => item.endS > now)
      .map(({ itemId, startS }) => ({ itemId, heardMs: Math.max(0, Math.floor((now - startS) * 1000)) }));
    const wasPlaying = this.isPlaying;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
    this.sources.clear();
    this.items = [];
    if (wasPlaying) this.onidle();
    return cut;
  }
}
