// A session over a WebSocket: sound as events both ways, sent and played by the page.
import { ParleyError } from "./errors.js";
import { Player } from "./player.js";
import { RATE_HZ, fromBase64, toBase64 } from "./pcm.js";

/** @typedef {import("./webrtc.js").Wire} Wire */

export class WebSocketWire {
  /** The page plays: it says by truncations what was heard. */
  static playsItself = false;
  /** Sound and events keep their order; a chunk may be on its way from the audio thread. */
  static tailMs = 40;

  /** @param {Wire} wire */
  constructor(wire) {
    this.wire = wire;
    this.isOver = false;
    this.context = new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
    /** @type {Player | null} */
    this.player = null;
    this.callId = null;
    this.canSee = false;
    /** @type {string | null} a response that was stopped; its sound may still be on its way */
    this.silenced = null;
    /** @type {number[]} */
    this.tripsMs = [];
  }

  /** @throws {ParleyError} */
  async open() {
    const { base, key, model } = this.wire;
    const url = new URL("realtime", base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (model) url.searchParams.set("model", model);
    const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
    await this.context.resume();
    this.player = await Player.open(this.context);
    if (this.isOver) throw new ParleyError("lost", "The call was ended.");
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    await new Promise((resolve, reject) => {
      /** @type {ParleyError | null} */
      let error = null;
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "error") error = new ParleyError(event.error.code, event.error.message);
        this.take(event);
        if (event.type !== "session.created") return;
        resolve(null);
        for (let trip = 0; trip < 3; trip++) this.ping();
      };
      socket.onclose = ({ code, reason }) => {
        this.context.close();
        // Before it is open, a browser is told nothing but that it failed.
        const why = error ?? (code === 1006
          ? new ParleyError("unreachable", `${base.host} cannot be reached, or refused the connection.`)
          : new ParleyError("lost", `The server closed the connection: ${reason || code}.`));
        reject(why);
        if (this.isOver) return;
        this.isOver = true;
        this.wire.onclose(code === 1000 ? null : why);
      };
    });
  }

  /** @param {any} event */
  take(event) {
    if (event.type === "response.output_audio.delta" && event.response_id !== this.silenced) {
      this.player?.play(event.item_id, fromBase64(event.delta));
    }
    this.wire.onevent(event);
  }

  /** @param {object} event */
  send(event) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  /** @param {Float32Array} samples at 24 kHz */
  hear(samples) {
    this.send({ type: "input_audio_buffer.append", audio: toBase64(samples) });
  }

  /** Play no more of a response. @param {string | null} responseId */
  silence(responseId) {
    this.silenced = responseId;
  }

  async setMicrophone() {}

  async setCamera() {}

  /** Ask the server for nothing: browsers cannot ping a WebSocket. */
  async ping() {
    const beganMs = performance.now();
    try {
      await fetch(new URL("/healthz", this.wire.base), { cache: "no-store" });
      this.tripsMs.push(performance.now() - beganMs);
    } catch { /* another site's server may not be asked */ }
  }

  /** @returns {Promise<import("./webrtc.js").Delays>} */
  async delays() {
    await this.ping();
    // The quickest of the last few: the others waited for a page or a server that had other things to do.
    const networkMs = this.tripsMs.length > 0 ? Math.min(...this.tripsMs.slice(-8)) : null;
    return { networkMs, playbackMs: null };
  }

  close() {
    this.isOver = true;
    this.player?.stop();
    this.socket?.close(1000);
    if (this.context.state !== "closed") this.context.close();
    this.wire.onclose(null);
  }
}
