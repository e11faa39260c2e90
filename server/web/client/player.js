// Plays replies that come as events, and knows how much of an item has been heard.
import { RATE_HZ } from "./pcm.js";

const REPORT_SAMPLES = 512; // what may have been played since the last report

/** What was cut off. @typedef {{itemId: string, heardMs: number}} Cut */

/** Plays one piece after the other, without a seam, and as late as it must where a piece comes late. */
export class Player {
  /** @param {AudioWorkletNode} node of a context of 24 kHz */
  constructor(node) {
    this.output = node;
    this.number = 0;
    /** @type {Map<string, {queued: number, played: number, atMs: number}>} samples, by item, in order */
    this.items = new Map();
    this.onidle = () => {};
    node.port.onmessage = ({ data }) => {
      if (data.number === this.number) this.count(data.played);
    };
  }

  /** @param {AudioContext} context @returns {Promise<Player>} */
  static async open(context) {
    await context.audioWorklet.addModule(new URL("player-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "parley-player", { numberOfInputs: 0, outputChannelCount: [1] });
    node.connect(context.destination);
    return new Player(node);
  }

  get isPlaying() {
    return [...this.items.values()].some(({ queued, played }) => played < queued);
  }

  /** @param {string} itemId @param {Float32Array} samples at 24 kHz */
  play(itemId, samples) {
    if (samples.length === 0) return;
    if (!this.isPlaying) this.items.clear();
    const item = this.items.get(itemId) ?? { queued: 0, played: 0, atMs: 0 };
    item.queued += samples.length;
    this.items.set(itemId, item);
    this.output.port.postMessage({ itemId, samples }, [samples.buffer]);
  }

  /** Stop at once. @returns {Cut[]} what has not been heard to its end */
  stop() {
    const nowMs = performance.now();
    const cut = [...this.items].filter(([, { queued, played }]) => played < queued);
    const cuts = cut.map(([itemId, { played, atMs }]) => {
      const since = played > 0 ? Math.min(((nowMs - atMs) * RATE_HZ) / 1000, REPORT_SAMPLES) : 0;
      return { itemId, heardMs: Math.floor(((played + since) * 1000) / RATE_HZ) };
    });
    this.items.clear();
    this.output.port.postMessage({ number: ++this.number });
    if (cuts.length > 0) this.onidle();
    return cuts;
  }

  /** @param {[string, number][]} played since the last report */
  count(played) {
    for (const [itemId, num] of played) {
      const item = this.items.get(itemId);
      if (!item) continue;
      item.played += num;
      item.atMs = performance.now();
    }
    if (!this.isPlaying) this.onidle();
  }
}
