// A call over WebRTC: sound as RTP both ways, events on a data channel.
import { ParleyError, httpError } from "./errors.js";

const CONNECT_MS = 20_000;
// A look now and then is all that a model takes; sharp pictures matter more than many.
const CAMERA = { maxFramerate: 2, maxBitrate: 500_000 };

/**
 * What both transports are given.
 *
 * @typedef {object} Wire
 * @property {URL} base of the server, such as https://example.com:8000/v1/
 * @property {string} key may be empty
 * @property {string} model may be empty
 * @property {(event: any) => void} onevent
 * @property {(error: ParleyError | null) => void} onclose once; null if it was asked for
 * @property {(track: MediaStreamTrack) => void} onsound the assistant's
 */

/**
 * In milliseconds; null where it is not known.
 *
 * @typedef {object} Delays
 * @property {number | null} networkMs there and back
 * @property {number | null} playbackMs that sound waits in the browser's buffer
 */

export class WebRtc {
  /** The server plays: it truncates by itself, and says when it begins and ends. */
  static playsItself = true;
  /** How long sound may be under way when an event overtakes it. */
  static tailMs = 120;

  /** @param {Wire} wire */
  constructor(wire) {
    this.wire = wire;
    this.isOpen = false;
    this.isOver = false;
    /** @type {RTCPeerConnection} */
    this.pc = new RTCPeerConnection();
    this.channel = this.pc.createDataChannel("oai-events");
    this.audio = this.pc.addTransceiver("audio", { direction: "sendrecv" });
    /** @type {RTCRtpTransceiver | null} */
    this.video = null;
    this.emitted = { delay: 0, count: 0 }; // samples of the buffer, and the seconds that they waited in it
  }

  /**
   * Call.
   *
   * @param {MediaStreamTrack | null} microphone
   * @param {MediaStreamTrack | null} camera
   * @throws {ParleyError}
   */
  async open(microphone, camera) {
    const { pc, channel } = this;
    pc.setConfiguration({ iceServers: await this.iceServers() });
    await this.audio.sender.replaceTrack(microphone);
    if (camera) {
      this.video = pc.addTransceiver(camera, { direction: "sendonly", sendEncodings: [CAMERA] });
    }
    pc.ontrack = ({ track }) => this.wire.onsound(track);
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed") this.end(this.isOpen ? lost() : noWay());
    };
    channel.onmessage = ({ data }) => this.wire.onevent(JSON.parse(data));
    channel.onclose = () => this.end(null);
    const opened = new Promise((resolve, reject) => {
      channel.onopen = resolve;
      this.fail = reject;
      this.timer = setTimeout(() => reject(noWay()), CONNECT_MS);
    });
    opened.catch(() => {}); // it may fail before anybody waits for it
    try {
      await pc.setLocalDescription();
      const query = this.wire.model ? `?model=${encodeURIComponent(this.wire.model)}` : "";
      const answer = await post(this.wire, `realtime/calls${query}`, pc.localDescription?.sdp ?? "");
      this.callId = answer.headers.get("Location")?.split("/").at(-1) ?? null;
      await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      await opened;
      this.isOpen = true;
    } catch (error) {
      this.isOver = true;
      pc.close();
      throw error;
    } finally {
      clearTimeout(this.timer);
    }
  }

  /** Whether a camera's pictures are taken. */
  get canSee() {
    return this.video?.currentDirection === "sendonly";
  }

  /** @param {object} event */
  send(event) {
    if (this.channel.readyState === "open") this.channel.send(JSON.stringify(event));
  }

  /** @param {MediaStreamTrack | null} track */
  async setMicrophone(track) {
    await this.audio.sender.replaceTrack(track);
  }

  /** @param {MediaStreamTrack | null} track @throws {ParleyError} */
  async setCamera(track) {
    if (this.video) await this.video.sender.replaceTrack(track);
    else if (track && this.isOpen) await this.addCamera(track);
  }

  /** Offer a camera in the middle of a call. @param {MediaStreamTrack} track */
  async addCamera(track) {
    const { pc } = this;
    this.video = pc.addTransceiver(track, { direction: "sendonly", sendEncodings: [CAMERA] });
    await pc.setLocalDescription();
    const answer = await post(this.wire, `realtime/calls/${this.callId}`, pc.localDescription?.sdp ?? "");
    await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }

  /** @returns {Promise<Delays>} the buffer's since the last question */
  async delays() {
    /** @type {Delays} */
    const delays = { networkMs: null, playbackMs: null };
    for (const report of (await this.pc.getStats()).values()) {
      if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined) {
        delays.networkMs = report.currentRoundTripTime * 1000;
      } else if (report.type === "inbound-rtp" && report.kind === "audio") {
        const { jitterBufferDelay: delay, jitterBufferEmittedCount: count } = report;
        if (count > this.emitted.count) {
          delays.playbackMs = (1000 * (delay - this.emitted.delay)) / (count - this.emitted.count);
        }
        this.emitted = { delay, count };
      }
    }
    return delays;
  }

  close() {
    this.end(null);
  }

  /** @param {ParleyError | null} error */
  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.fail?.(error ?? new ParleyError("lost", "The call was ended."));
    this.pc.close();
    this.wire.onclose(error);
  }

  /** @returns {Promise<RTCIceServer[]>} */
  async iceServers() {
    const answer = await ask(this.wire, "realtime/ice_servers");
    if (!answer.ok) throw await httpError(answer);
    return (await answer.json()).ice_servers;
  }
}

function lost() {
  return new ParleyError("lost", "The connection was lost.");
}

function noWay() {
  return new ParleyError("no_way", "The server answered, and its sound does not get through.");
}

/** @param {Wire} wire @param {string} path @param {RequestInit} [request] */
export async function ask(wire, path, request = {}) {
  const headers = { ...request.headers, ...(wire.key && { Authorization: `Bearer ${wire.key}` }) };
  try {
    return await fetch(new URL(path, wire.base), { ...request, headers });
  } catch {
    throw new ParleyError("unreachable", `${wire.base.host} cannot be reached.`);
  }
}

/** @param {Wire} wire @param {string} path @param {string} sdp */
async function post(wire, path, sdp) {
  const headers = { "Content-Type": "application/sdp" };
  const answer = await ask(wire, path, { method: "POST", headers, body: sdp });
  if (!answer.ok) throw await httpError(answer);
  return answer;
}
