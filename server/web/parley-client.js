/**
 * Parley in a page: a voice conversation over WebRTC or WebSocket.
 *
 *     import { Parley } from "https://HOST/parley-client.js";
 *     const parley = new Parley({ key: "ek_…" });
 *     parley.on("item", (item) => console.log(item.role, item.text));
 *     await parley.connect(); // in a click's handler: browsers want one before there is sound
 *
 * docs/client-js.md tells the rest. It speaks the Realtime API's GA shape, and needs no build step.
 */
import { Conversation } from "./client/conversation.js";
import { ParleyError } from "./client/errors.js";
import { FileInput, listDevices, openCamera, openMicrophone, takePicture } from "./client/input.js";
import { TurnClock } from "./client/latency.js";
import { Tap } from "./client/tap.js";
import { WebRtc, ask } from "./client/webrtc.js";
import { WebSocketWire } from "./client/websocket.js";

export { FileInput, ParleyError, listDevices, openCamera, openMicrophone, takePicture };

/** @typedef {import("./client/conversation.js").Item} Item */
/** @typedef {import("./client/latency.js").TurnLatency} TurnLatency */
/** @typedef {import("./client/tap.js").Chunk} Chunk */

/**
 * A function that the model may call.
 *
 * @typedef {object} Tool
 * @property {string} [description]
 * @property {object} [parameters] a JSON schema
 * @property {(args: any) => unknown} run may be asynchronous; what it returns is told to the model, as JSON unless it
 *     is a string. If it throws, the model is told of the error
 */

/**
 * @typedef {object} Options
 * @property {string | URL} [url] of the server; by default, where this module came from
 * @property {string | (() => string | Promise<string>)} [key] an ephemeral key or, on a page of your own, an API key;
 *     a function is asked at each `connect`
 * @property {string} [model]
 * @property {"webrtc" | "websocket"} [transport] **webrtc**
 * @property {object} [session] as in `session.update`: instructions, audio, tools … of the GA shape
 * @property {Record<string, Tool>} [tools] functions by their names
 */

/**
 * What `on` hands over, by event:
 *
 * | event | value |
 * |---|---|
 * | `status` | `"connecting"`, `"connected"` or `"closed"` |
 * | `problem` | a `ParleyError`: what went wrong, and what to do |
 * | `item` | an `Item` that is new or has changed; `parley.items` has all in order |
 * | `speaking` | `{who: "user" or "assistant", isSpeaking}` |
 * | `turn` | a `TurnLatency` |
 * | `call` | an `Item`: a function call that no tool of yours takes; `answer` it |
 * | `approval` | an `Item`: an MCP call that wants a yes or no; `approve` it |
 * | `microphone` | the track in use, or null |
 * | `muted` | whether the microphone is muted |
 * | `sound` | `{who, samples, atMs}`: 20 ms of 24 kHz |
 * | `wire` | `{direction: "in" or "out", event, atMs}`: every event as it travels |
 */
export class Parley {
  /** @param {Options} [options] */
  constructor(options = {}) {
    const { url = new URL(".", import.meta.url), key = "", model = "", transport = "webrtc" } = options;
    this.base = new URL("v1/", String(url).replace(/^ws/, "http").replace(/\/?$/, "/"));
    this.key = key;
    this.model = model;
    this.transport = transport;
    this.tools = options.tools ?? {};
    /** @type {any} what is asked of the server */
    this.session = options.session ?? {};
    /** @type {any} what the server says is in force; null while not connected */
    this.inForce = null;
    this.isMuted = false;
    this.isPressed = false;
    this.isSpeaking = false;
    this.conversation = new Conversation();
    /** @type {MediaStreamTrack | null} */
    this.microphone = null;
    /** @type {MediaStreamTrack | null} */
    this.camera = null;
    /** @type {"closed" | "connecting" | "connected"} */
    this.status = "closed";
    /** @type {Map<string, Set<(value: any) => void>>} */
    this.listeners = new Map();

    // What belongs to one connection.
    /** @type {WebRtc | WebSocketWire | null} */
    this.wire = null;
    /** @type {string | null} the response that is being made */
    this.active = null;
    this.wantsReply = false;
    this.replyId = ""; // of the event that asked for a reply last
    this.number = 0; // of events
    /** @type {Set<string>} items that were asked for, to learn how much of them was heard */
    this.asked = new Set();
    /** @type {Map<string, string>} calls without an answer: their ids, and the responses that made them */
    this.open = new Map();
    /** @type {Tap[]} */
    this.taps = [];
    /** @type {Set<MediaStreamTrack>} tracks that we opened, and end */
    this.own = new Set();
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {HTMLAudioElement | null} plays the sound of a call */
    this.audio = null;
    this.speakerId = "";
    /** @type {ParleyError | null} */
    this.lastError = null;
    this.clock = new TurnClock(
      (turn) => this.emit("turn", turn),
      async () => (await this.wire?.delays()) ?? { networkMs: null, playbackMs: null },
    );
    this.leave = () => this.hangUp();
  }

  /** Forget what belongs to one connection. */
  forget() {
    this.conversation = new Conversation();
    this.active = null;
    this.isSpeaking = false;
    this.wantsReply = false;
    this.replyId = "";
    this.number = 0;
    this.asked.clear();
    this.open.clear();
    this.clock.reset();
  }

  /**
   * Listen to an event of the table above.
   *
   * @param {string} name
   * @param {(value: any) => void} listener
   * @returns {() => void} stops listening
   */
  on(name, listener) {
    const listeners = this.listeners.get(name) ?? new Set();
    this.listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** @param {string} name @param {unknown} value */
  emit(name, value) {
    for (const listener of this.listeners.get(name) ?? []) listener(value);
  }

  /** @returns {Item[]} the conversation, in order */
  get items() {
    return this.conversation.items;
  }

  /** Whether turns end by `release` and not by the server's hearing. */
  get isPushToTalk() {
    return this.inForce?.audio?.input?.turn_detection === null;
  }

  /** @returns {boolean} whether the assistant can be heard, or is about to */
  get isReplying() {
    return this.isSpeaking || this.active !== null;
  }

  /**
   * Connect, and begin to listen. Call it in the handler of a click.
   *
   * @param {{microphone?: boolean | string | MediaStreamTrack | null, camera?: MediaStreamTrack | null}} [input]
   *     microphone: true for the usual one, the id of another, a track of yours, or null for none. A camera's track
   *     goes over WebRTC only
   * @throws {ParleyError} with a `code` and `advice`
   */
  async connect({ microphone = true, camera = null } = {}) {
    if (this.status !== "closed") throw new ParleyError("already_connected", "Hang up first.");
    this.forget();
    this.setStatus("connecting");
    try {
      // Its rate is the device's. In it things are only measured, except that a WebSocket's sound is taken there.
      this.context = new AudioContext({ latencyHint: "interactive" });
      await this.setMicrophone(typeof microphone === "boolean" ? (microphone ? "" : null) : microphone);
      this.camera = camera;
      const key = typeof this.key === "function" ? await this.key() : this.key;
      // The user may have been asked for the microphone, and have changed their mind.
      if (!this.context) throw new ParleyError("lost", "The call was ended.");
      const kind = this.transport === "webrtc" ? WebRtc : WebSocketWire;
      const wire = new kind({
        base: this.base,
        key,
        model: this.model,
        onevent: (event) => { if (this.wire === wire) this.receive(event); },
        onclose: (error) => { if (this.wire === wire) this.ended(error); },
        onsound: (track) => this.play(track),
      });
      this.wire = wire;
      const created = this.next((event) => event.type === "session.created");
      await wire.open(this.microphone, camera);
      if (wire instanceof WebSocketWire && wire.player) {
        wire.player.onidle = () => { if (this.active === null) this.setSpeaking(false); };
        await this.listen(wire.context, wire.player.output, "assistant");
      }
      await created;
      await this.configure();
      this.checkCamera();
    } catch (error) {
      this.wire?.close();
      this.ended(null);
      this.letGo();
      throw error;
    }
    globalThis.addEventListener?.("pagehide", this.leave);
    this.setStatus("connected");
  }

  /** End the conversation. What was said stays in `items`. */
  hangUp() {
    if (this.wire) this.wire.close();
    else this.ended(null);
  }

  /**
   * Change the session, now or for the next `connect`. What is left out stays as it is.
   *
   * @param {object} session as in `session.update`
   */
  update(session) {
    this.session = merged(this.session, session);
    if (this.status === "connected") {
      this.send({ type: "session.update", session: { type: "realtime", ...session } });
    }
  }

  /**
   * Send an event of the Realtime API.
   *
   * @param {any} event
   * @returns {string} its `event_id`, which an `error` that it causes has
   */
  send(event) {
    const sent = { event_id: `page_${++this.number}`, ...event };
    this.emit("wire", { direction: "out", event: sent, atMs: performance.now() });
    try {
      this.wire?.send(sent);
    } catch (error) {
      const reason = /** @type {any} */ (error).message;
      this.emit("problem", new ParleyError("not_sent", `${event.type} was not sent: ${reason}`));
    }
    return sent.event_id;
  }

  /**
   * Say something in writing, with pictures if there are any. It interrupts, as speech does.
   *
   * @param {string} text
   * @param {string[]} [images] data URLs
   */
  type(text, images = []) {
    this.interrupt();
    const content = [
      ...images.map((image) => ({ type: "input_image", image_url: image })),
      ...(text ? [{ type: "input_text", text }] : []),
    ];
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.clock.typed(performance.now());
    this.reply();
  }

  /** Ask for a reply, as soon as none is being made. */
  reply() {
    if (this.active !== null) {
      this.wantsReply = true;
      return;
    }
    this.wantsReply = false;
    this.replyId = this.send({ type: "response.create" });
  }

  /** Stop the assistant. */
  interrupt() {
    if (this.wire instanceof WebSocketWire) this.stopPlaying(this.wire);
    if (this.active !== null) this.send({ type: "response.cancel", response_id: this.active });
    if (this.wire instanceof WebRtc && this.isReplying) this.send({ type: "output_audio_buffer.clear" });
  }

  /**
   * Use another microphone from now on.
   *
   * @param {string | MediaStreamTrack | null} input the id of a device, empty for the usual one; a track; or none
   * @param {MediaTrackConstraints} [processing] of a device, see `openMicrophone`
   */
  async setMicrophone(input, processing) {
    const track = typeof input === "string" ? await openMicrophone(input, processing) : input;
    const before = this.microphone;
    this.microphone = track;
    if (before && this.own.delete(before)) before.stop();
    if (this.tap) {
      this.tap.close();
      this.taps.splice(this.taps.indexOf(this.tap), 1);
      this.tap = undefined;
    }
    if (track) {
      if (typeof input === "string") this.own.add(track);
      track.onended = () => {
        if (this.microphone !== track) return;
        this.emit("problem", new ParleyError("microphone_lost", "The microphone is gone."));
        this.emit("microphone", null);
      };
      this.applyMute();
    }
    await this.wire?.setMicrophone(track);
    if (track && this.context) this.tap = await this.listen(this.context, track, "user");
    this.emit("microphone", track);
  }

  /** @param {MediaStreamTrack | null} track of the camera that is shown from now on; null shows nothing */
  async setCamera(track) {
    this.camera = track;
    await this.wire?.setCamera(track);
    this.checkCamera();
  }

  /** @param {string} deviceId of a loudspeaker; empty for the usual one. Not all browsers can choose */
  async setSpeaker(deviceId) {
    this.speakerId = deviceId;
    const sink = this.wire instanceof WebSocketWire ? this.wire.context : this.audio;
    if (sink && "setSinkId" in sink) await /** @type {any} */ (sink).setSinkId(deviceId);
  }

  /** Close the microphone, or open it again. @param {boolean} [isMuted] */
  mute(isMuted = true) {
    this.isMuted = isMuted;
    this.applyMute();
    this.emit("muted", isMuted);
  }

  /** Begin to speak, where turns end by hand: it interrupts, and what came before does not count. */
  press() {
    if (this.status !== "connected" || this.isPressed) return;
    this.isPressed = true;
    this.interrupt();
    this.send({ type: "input_audio_buffer.clear" });
    this.applyMute();
    this.emit("speaking", { who: "user", isSpeaking: true });
  }

  /** End the turn, and ask for its reply. @returns {Promise<void>} */
  async release() {
    if (!this.isPressed || !this.wire) return;
    const { tailMs } = /** @type {typeof WebRtc} */ (this.wire.constructor);
    await new Promise((done) => setTimeout(done, tailMs));
    this.isPressed = false;
    this.applyMute();
    this.emit("speaking", { who: "user", isSpeaking: false });
    this.send({ type: "input_audio_buffer.commit" });
    this.reply();
  }

  /**
   * Answer a function call.
   *
   * @param {string} callId
   * @param {unknown} output a string, or what becomes JSON
   */
  answer(callId, output) {
    const text = typeof output === "string" ? output : JSON.stringify(output ?? null);
    const item = { type: "function_call_output", call_id: callId, output: text };
    this.send({ type: "conversation.item.create", item });
    const responseId = this.open.get(callId);
    this.open.delete(callId);
    // One reply to all calls of a response.
    if (![...this.open.values()].includes(/** @type {string} */ (responseId))) this.reply();
  }

  /**
   * Allow an MCP call, or do not.
   *
   * @param {string} requestId of the item
   * @param {boolean} approve
   */
  approve(requestId, approve) {
    const item = { type: "mcp_approval_response", approval_request_id: requestId, approve };
    this.send({ type: "conversation.item.create", item });
    if (!approve) this.reply();
  }

  /**
   * What the server says of its models.
   *
   * @returns {Promise<{id: string, description?: string, voices?: string[]}[]>}
   * @throws {ParleyError}
   */
  async models() {
    const key = typeof this.key === "function" ? await this.key() : this.key;
    const answer = await ask(/** @type {any} */ ({ base: this.base, key }), "models");
    const body = await answer.json();
    if (!answer.ok) throw new ParleyError(body.error.code, body.error.message);
    return body.data;
  }

  // What follows is not for applications.

  /** Send the session's settings, and wait until they are in force. */
  async configure() {
    const tools = [
      ...(this.session.tools ?? []),
      ...Object.entries(this.tools).map(([name, { description, parameters }]) => ({
        type: "function",
        name,
        ...(description && { description }),
        parameters: parameters ?? { type: "object", properties: {} },
      })),
    ];
    const session = { ...this.session, ...(tools.length > 0 && { tools }) };
    if (Object.keys(session).length === 0) return; // what the key was made with stands
    const id = this.send({ type: "session.update", session: { type: "realtime", ...session } });
    await this.next(
      (event) => event.type === "session.updated",
      (event) => event.type === "error" && event.error.event_id === id,
    );
  }

  /**
   * Wait for an event.
   *
   * @param {(event: any) => boolean} isIt
   * @param {(event: any) => boolean} [isRefusal]
   */
  next(isIt, isRefusal = () => false) {
    const arrived = new Promise((resolve, reject) => {
      const off = [
        this.on("wire", ({ direction, event }) => {
          if (direction !== "in" || !(isIt(event) || isRefusal(event))) return;
          off.forEach((stop) => stop());
          if (isIt(event)) resolve(event);
          else reject(new ParleyError(event.error.code, event.error.message));
        }),
        this.on("status", () => {
          off.forEach((stop) => stop());
          reject(this.lastError ?? new ParleyError("lost", "The call was ended."));
        }),
      ];
    });
    arrived.catch(() => {}); // it may fail before anybody waits for it
    return arrived;
  }

  /** Say so if nobody looks at the camera. */
  checkCamera() {
    if (!this.camera) return;
    if (!(this.wire instanceof WebRtc)) {
      this.emit("problem", new ParleyError("no_camera_here", "A camera is shown over WebRTC only."));
    } else if (!this.wire.canSee) {
      this.emit("problem", new ParleyError("no_video", "This server's model does not look at a camera."));
    }
  }

  /** @param {any} event of the server's */
  receive(event) {
    const atMs = performance.now();
    this.emit("wire", { direction: "in", event, atMs });
    this.clock.take(event, atMs);
    const item = this.conversation.take(event);
    this.act(event);
    if (item) this.emit("item", item);
  }

  /** Do what an event asks of a client. @param {any} event */
  act(event) {
    switch (event.type) {
      case "session.created":
      case "session.updated":
        this.inForce = event.session;
        this.applyMute();
        break;
      case "input_audio_buffer.speech_started":
        this.emit("speaking", { who: "user", isSpeaking: true });
        if (this.wire instanceof WebSocketWire) {
          const detection = this.inForce?.audio?.input?.turn_detection;
          if (detection?.interrupt_response !== false) this.stopPlaying(this.wire);
        }
        break;
      case "input_audio_buffer.speech_stopped":
        this.emit("speaking", { who: "user", isSpeaking: false });
        break;
      case "response.created":
        if (event.response.conversation_id !== null) this.active = event.response.id;
        break;
      case "response.output_audio.delta":
        if (this.wire instanceof WebSocketWire && this.wire.player?.isPlaying) this.setSpeaking(true);
        break;
      case "output_audio_buffer.started":
        this.setSpeaking(true);
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.setSpeaking(false);
        break;
      case "conversation.item.truncated":
        this.retrieve(event.item_id);
        break;
      case "conversation.item.retrieved":
        this.asked.delete(event.item.id);
        break;
      case "response.output_item.done":
        if (event.item.type === "function_call" && event.item.status === "completed") {
          this.open.set(event.item.call_id, event.response_id);
        }
        break;
      case "conversation.item.done":
        if (event.item.type === "mcp_approval_request") {
          this.emit("approval", this.conversation.find(event.item.id));
        }
        break;
      case "response.mcp_call.completed":
      case "response.mcp_call.failed":
        this.reply();
        break;
      case "response.done":
        this.finish(event.response);
        break;
      case "error":
        this.refused(event.error);
        break;
    }
  }

  /** Ask which words of an item were heard: that is the server's to say. @param {string} itemId */
  retrieve(itemId) {
    if (this.asked.has(itemId)) return;
    this.asked.add(itemId);
    this.send({ type: "conversation.item.retrieve", item_id: itemId });
  }

  /** @param {any} response */
  finish(response) {
    if (this.active === response.id) this.active = null;
    if (this.wire instanceof WebSocketWire && !this.wire.player?.isPlaying) this.setSpeaking(false);
    if (response.status === "cancelled" || response.status === "incomplete") {
      const said = response.output.filter((/** @type {any} */ item) => item.type === "message");
      if (response.conversation_id !== null && said.length > 0) {
        this.retrieve(said.at(-1).id);
      }
    } else if (response.status === "failed") {
      const { code, message } = response.status_details?.error ?? {};
      this.emit("problem", new ParleyError(code ?? "response_failed", message ?? "The response failed."));
    }
    for (const item of response.output) {
      if (item.type === "function_call" && this.open.has(item.call_id)) this.called(item);
    }
    if (this.wantsReply && this.active === null) this.reply();
  }

  /** @param {any} item a function call */
  async called(item) {
    const tool = this.tools[item.name];
    if (!tool) {
      this.emit("call", this.conversation.find(item.id));
      return;
    }
    const { wire } = this;
    let output;
    try {
      output = (await tool.run(JSON.parse(item.arguments))) ?? null;
    } catch (error) {
      output = { error: String(/** @type {any} */ (error)?.message ?? error) };
    }
    if (this.wire === wire) this.answer(item.call_id, output);
  }

  /** @param {any} error of an `error` event */
  refused(error) {
    if (error.code === "conversation_already_has_active_response" && error.event_id === this.replyId) {
      this.wantsReply = true; // a spoken turn was faster
      return;
    }
    if (error.code === "response_cancel_not_active") return; // it had ended meanwhile
    this.lastError = new ParleyError(error.code ?? error.type, error.message);
    this.emit("problem", this.lastError);
  }

  /** @param {WebSocketWire} wire */
  stopPlaying(wire) {
    wire.silence(this.active);
    for (const { itemId, heardMs } of wire.player?.stop() ?? []) {
      this.send({
        type: "conversation.item.truncate", item_id: itemId, content_index: 0, audio_end_ms: heardMs,
      });
    }
  }

  /** Play the sound of a call. @param {MediaStreamTrack} track */
  play(track) {
    this.audio = new Audio();
    this.audio.srcObject = new MediaStream([track]);
    if (this.speakerId) this.setSpeaker(this.speakerId).catch(() => {});
    this.audio.play().catch((error) => {
      this.emit("problem", new ParleyError("no_playback", `The browser does not play: ${error.message}`,
        "Click somewhere in the page, and connect again."));
    });
    if (this.context) this.listen(this.context, track, "assistant");
  }

  /**
   * Measure a sound, and send the user's where no track can be sent.
   *
   * @param {AudioContext} context
   * @param {MediaStreamTrack | AudioNode} source
   * @param {"user" | "assistant"} who
   */
  async listen(context, source, who) {
    const tap = await Tap.open(context, source, (chunk) => {
      if (who === "user") {
        if (this.wire instanceof WebSocketWire) this.wire.hear(chunk.samples);
        this.clock.hearUser(chunk);
      } else {
        this.clock.hearAssistant(chunk);
      }
      this.emit("sound", { who, ...chunk });
    });
    this.taps.push(tap);
    return tap;
  }

  applyMute() {
    if (this.microphone) this.microphone.enabled = !this.isMuted && (!this.isPushToTalk || this.isPressed);
  }

  /** @param {boolean} isSpeaking */
  setSpeaking(isSpeaking) {
    if (this.isSpeaking === isSpeaking) return;
    this.isSpeaking = isSpeaking;
    this.emit("speaking", { who: "assistant", isSpeaking });
  }

  /** @param {Parley["status"]} status */
  setStatus(status) {
    this.status = status;
    this.emit("status", status);
  }

  /** @param {ParleyError | null} error why, if nobody asked for it */
  ended(error) {
    if (this.status === "closed") return;
    this.letGo();
    if (error) {
      this.lastError = error;
      this.emit("problem", error);
    }
    this.setSpeaking(false);
    this.setStatus("closed");
  }

  /** Let go of all that a connection holds. */
  letGo() {
    globalThis.removeEventListener?.("pagehide", this.leave);
    this.wire = null;
    this.inForce = null;
    this.isPressed = false;
    this.active = null;
    for (const tap of this.taps) tap.close();
    this.taps = [];
    this.tap = undefined;
    for (const track of this.own) track.stop();
    this.own.clear();
    if (this.microphone) this.microphone.onended = null;
    this.microphone = null;
    if (this.audio) this.audio.srcObject = null;
    this.audio = null;
    if (this.context && this.context.state !== "closed") this.context.close();
    this.context = null;
  }
}

/**
 * Merge settings as the server does: key by key, `turn_detection` and lists as a whole.
 *
 * @param {any} before
 * @param {any} change
 * @returns {any}
 */
function merged(before, change) {
  const all = { ...before };
  for (const [key, value] of Object.entries(change)) {
    const isDeep = value && typeof value === "object" && !Array.isArray(value) && key !== "turn_detection";
    all[key] = isDeep ? merged(before?.[key] ?? {}, value) : value;
  }
  return all;
}
