// A session over a WebSocket: sound as events both ways, sent and played by the page.
import { ParleyError } from "./errors.js";
import { Player } from "./player.js";
import { RATE_HZ, fromBase64, toBase64 } from "./pcm.js";

/** @typedef {import("./webrtc.js").Wire} Wire */

// Codes of connections that broke (RFC 6455, section 7.4.1; 1011: we read too slowly).
const BROKEN = new Set([1001, 1006, 1011, 1015]);
// Ten seconds of sound, 20 ms an event.
const MAX_SENT = 512;

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
    /** @type {any} how to come back, where the server lets us */
    this.resumable = null;
    this.lastEventId = "";
    this.numSent = 0;
    /** @type {string[]} the newest events that were sent, which may not have arrived */
    this.sent = [];
    /** @type {number[]} */
    this.tripsMs = [];
  }

  /** @param {Record<string, string>} query @returns {URL} */
  address(query) {
    const url = new URL("realtime", this.wire.base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }

  /** @throws {ParleyError} */
  async open() {
    const { base, key, model } = this.wire;
    // Where the server lets nobody come back, it ignores the wish.
    const url = this.address({ resume: "true", ...(model ? { model } : {}) });
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
      socket.onclose = async ({ code, reason }) => {
        if (BROKEN.has(code) && (await this.comeBack())) return;
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

  /**
   * Go on with the session on another connection, if it waits for us.
   *
   * @returns {Promise<boolean>} whether it does
   */
  async comeBack() {
    const { resumable } = this;
    if (!resumable) return false;
    const untilMs = performance.now() + resumable.grace_s * 1000;
    for (let waitMs = 100; !this.isOver && performance.now() < untilMs; waitMs = Math.min(waitMs * 2, 2000)) {
      const query = { session_id: resumable.session_id, last_event_id: this.lastEventId };
      const socket = new WebSocket(this.address(query), ["realtime", `parley-resume.${resumable.secret}`]);
      const first = await new Promise((resolve) => {
        socket.onmessage = ({ data }) => resolve(JSON.parse(data));
        socket.onclose = () => resolve(null);
      });
      if (first?.type === "session.resumed" && !this.isOver) {
        socket.onmessage = ({ data }) => this.take(JSON.parse(data));
        const { onclose } = /** @type {WebSocket} */ (this.socket);
        socket.onclose = onclose;
        this.socket = socket;
        // What was sent into the dead connection, or meanwhile.
        const missing = this.numSent - first.received_events;
        for (const text of missing > 0 ? this.sent.slice(-missing) : []) socket.send(text);
        return true;
      }
      socket.close();
      // Not reached is `null`, and worth another try; a refusal is an error.
      if (first) return false;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
    return false;
  }

  /** @param {any} event */
  take(event) {
    this.lastEventId = event.event_id;
    if (event.type === "session.resumable") this.resumable = event;
    if (event.type === "response.output_audio.delta" && event.response_id !== this.silenced) {
      this.player?.play(event.item_id, fromBase64(event.delta));
    }
    this.wire.onevent(event);
  }

  /** @param {object} event */
  send(event) {
    const text = JSON.stringify(event);
    if (this.resumable) {
      this.sent.push(text);
      if (this.sent.length > MAX_SENT) this.sent.shift();
    }
    if (this.resumable || this.socket?.readyState === WebSocket.OPEN) this.numSent++;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(text);
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
