// Where the user's sound and pictures come from: microphones, cameras, files. Each is a track.
import { ParleyError, deviceError } from "./errors.js";

/** What the browser does to a microphone's sound before anybody hears it. */
export const PROCESSING = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/**
 * Open a microphone.
 *
 * @param {string} [deviceId] by default the one that the browser prefers
 * @param {MediaTrackConstraints} [processing] by default echo, noise and level are cared for
 * @returns {Promise<MediaStreamTrack>}
 * @throws {ParleyError} insecure_origin, microphone_denied, microphone_missing or microphone_busy
 */
export async function openMicrophone(deviceId, processing = PROCESSING) {
  const audio = { ...processing, ...(deviceId && { deviceId: { exact: deviceId } }) };
  return openDevice({ audio }, "microphone");
}

/**
 * Open a camera.
 *
 * @param {string} [deviceId]
 * @returns {Promise<MediaStreamTrack>}
 * @throws {ParleyError} insecure_origin or camera_denied
 */
export async function openCamera(deviceId) {
  const video = { width: 1280, height: 720, ...(deviceId && { deviceId: { exact: deviceId } }) };
  return openDevice({ video }, "camera");
}

/** @param {MediaStreamConstraints} wanted @param {"microphone" | "camera"} device */
async function openDevice(wanted, device) {
  if (!navigator.mediaDevices) {
    throw new ParleyError("insecure_origin", `This page may not use a ${device}: it came over plain HTTP.`);
  }
  try {
    return (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()[0];
  } catch (error) {
    throw deviceError(/** @type {DOMException} */ (error), device);
  }
}

/**
 * List microphones, loudspeakers and cameras. They have names once one of them may be used.
 *
 * @returns {Promise<{microphones: MediaDeviceInfo[], speakers: MediaDeviceInfo[], cameras: MediaDeviceInfo[]}>}
 */
export async function listDevices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const of = (/** @type {string} */ kind) => all.filter((device) => device.kind === kind && device.deviceId);
  return { microphones: of("audioinput"), speakers: of("audiooutput"), cameras: of("videoinput") };
}

/** Speaks files in place of a microphone, and is silent otherwise. */
export class FileInput {
  constructor() {
    this.context = new AudioContext();
    this.destination = this.context.createMediaStreamDestination();
    // A track without a source is no track to some browsers; this one is silent.
    this.silence = new ConstantSourceNode(this.context, { offset: 0 });
    this.silence.connect(this.destination);
    this.silence.start();
    /** @type {MediaStreamTrack} */
    this.track = this.destination.stream.getAudioTracks()[0];
  }

  /**
   * Speak a file in real time.
   *
   * @param {Blob} file
   * @returns {Promise<void>} when it has been spoken
   * @throws {ParleyError} invalid_audio_file
   */
  async speak(file) {
    await this.context.resume();
    let buffer;
    try {
      buffer = await this.context.decodeAudioData(await file.arrayBuffer());
    } catch {
      throw new ParleyError("invalid_audio_file", "This file has no sound that the browser can play.");
    }
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.destination);
    await new Promise((done) => {
      source.onended = done;
      source.start();
    });
  }

  close() {
    this.track.stop();
    this.context.close();
  }
}

/**
 * Take a picture.
 *
 * @param {MediaStreamTrack} camera
 * @param {number} [maxSide] in pixels
 * @returns {Promise<string>} a JPEG as a data URL
 */
export async function takePicture(camera, maxSide = 1024) {
  const video = document.createElement("video");
  video.muted = true;
  video.srcObject = new MediaStream([camera]);
  await video.play();
  const scale = Math.min(1, maxSide / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(video.videoWidth * scale);
  canvas.height = Math.round(video.videoHeight * scale);
  canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
  video.srcObject = null;
  return canvas.toDataURL("image/jpeg", 0.85);
}
