// Listens to a node or a track: for the meters, for the clock of turns, and to send it where no track can be sent.

/**
 * A chunk of 20 ms that was heard.
 *
 * @typedef {object} Chunk
 * @property {Float32Array} samples 480 of them, 24 kHz, mono
 * @property {number} atMs when they were heard, by `performance.now`
 */

/** Hands chunks over until it is closed. */
export class Tap {
  /** @param {AudioWorkletNode} node @param {AudioNode} source @param {(chunk: Chunk) => void} hear */
  constructor(node, source, hear) {
    this.node = node;
    this.source = source;
    let offsetMs = Infinity;
    node.port.onmessage = ({ data }) => {
      // A message may come late, and never early: the earliest tells how the clocks differ.
      offsetMs = Math.min(offsetMs + 0.002, performance.now() - data.atS * 1000);
      hear({ samples: data.samples, atMs: data.atS * 1000 + offsetMs });
    };
    source.connect(node);
  }

  /**
   * @param {AudioContext} context
   * @param {MediaStreamTrack | AudioNode} source
   * @param {(chunk: Chunk) => void} hear
   * @returns {Promise<Tap>}
   */
  static async open(context, source, hear) {
    await context.audioWorklet.addModule(new URL("tap-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "parley-tap", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    const isTrack = source instanceof MediaStreamTrack;
    return new Tap(
      node,
      isTrack ? context.createMediaStreamSource(new MediaStream([source])) : source,
      hear,
    );
  }

  close() {
    this.node.port.onmessage = null;
    this.node.port.postMessage("close");
    this.source.disconnect(this.node);
  }
}
