// What can go wrong between a page and a server, each with what to do about it.

/** An error that says what to do. */
export class ParleyError extends Error {
  /**
   * @param {string} code what went wrong, for programs: a key of `ADVICE`, or the server's own code
   * @param {string} message what went wrong, for people
   * @param {string} [advice] what to do; by default that of the code
   */
  constructor(code, message, advice = ADVICE[code] ?? "") {
    super(message);
    this.name = "ParleyError";
    this.code = code;
    this.advice = advice;
  }
}

/** @type {Record<string, string>} */
export const ADVICE = {
  insecure_origin:
    "Browsers give microphones to pages from https:// and from this machine only. Open the page as " +
    "http://localhost or http://127.0.0.1, or serve it over TLS: parley serve --tls-self-signed.",
  microphone_denied:
    "Allow the microphone: click the icon left of the address, set Microphone to Allow, and connect " +
    "again. Or speak from files.",
  microphone_missing:
    "Plug a microphone in, or choose another one in the settings. Without one you can speak from " +
    "files, or type.",
  microphone_busy:
    "Another program holds the microphone. Close it, or choose another microphone in the settings.",
  microphone_lost: "Plug it in again, or choose another one in the settings. The call goes on meanwhile.",
  camera_denied: "Allow the camera: click the icon left of the address. The call goes on without it.",
  invalid_api_key:
    "Enter one of the server's keys (server.api_keys), or an ephemeral one that begins with ek_.",
  rate_limit_exceeded: "All places are taken. Try again when a call has ended.",
  not_ready: "The model is being loaded. Try again in a moment.",
  unreachable: "Is the server running? Look at its log, or open /readyz.",
  forbidden:
    "A server without keys takes pages of this machine only. Open its own page, or give it a key " +
    "(server.api_keys).",
  webrtc_not_supported: "This server takes no calls by WebRTC (webrtc.enabled). Choose WebSocket.",
  no_way:
    "The server's UDP port cannot be reached from here: open it in the firewall, set " +
    "webrtc.addresses, or choose WebSocket.",
  lost: "Look at your network, and connect again.",
  no_video: "The call goes on without it.",
  no_camera_here: "Hang up and choose WebRTC; or send pictures one by one.",
  not_sent: "Over WebRTC an event has 256 KiB at most: send less at once, or choose WebSocket.",
  invalid_picture: "Choose a PNG, JPEG or WebP.",
  invalid_audio_file: "Choose a sound file that the browser can play: wav, mp3, ogg, flac or m4a.",
  cannot_update_voice: "Hang up and connect again to change the voice.",
};

/**
 * Turn what `getUserMedia` throws into an error that says what to do.
 *
 * @param {DOMException} error
 * @param {"microphone" | "camera"} device
 * @returns {ParleyError}
 */
export function deviceError(error, device) {
  if (device === "camera") {
    return new ParleyError("camera_denied", `The camera cannot be used: ${error.message}`);
  }
  const [code, message] = {
    NotAllowedError: ["microphone_denied", "The microphone may not be used."],
    NotFoundError: ["microphone_missing", "There is no microphone."],
    OverconstrainedError: ["microphone_missing", "The chosen microphone is not there."],
    NotReadableError: ["microphone_busy", "The microphone cannot be opened."],
  }[error.name] ?? ["microphone_denied", `The microphone cannot be used: ${error.message}`];
  return new ParleyError(code, message);
}

/**
 * Read the error of an HTTP answer that is not a success.
 *
 * @param {Response} answer
 * @returns {Promise<ParleyError>}
 */
export async function httpError(answer) {
  const body = await answer.json().catch(() => ({}));
  const { code, message } = body.error ?? {};
  return new ParleyError(code ?? `http_${answer.status}`, message ?? `The server says ${answer.status}.`);
}
