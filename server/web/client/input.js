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

// Browsers send no message of more than 256 KiB on a data channel, and there is more in it than the picture.
const MAX_PICTURE_CHARS = 200_000;

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
 * Take a picture of a camera, or make a picture from a file fit to be sent.
 *
 * @param {MediaStreamTrack | Blob} source
 * @param {number} [maxSide] in pixels
 * @returns {Promise<string>} a JPEG as a data URL
 * @throws {ParleyError} invalid_picture
 */
export async function takePicture(source, maxSide = 1024) {
  const picture = source instanceof Blob ? await pictureOf(source) : await frameOf(source);
  const canvas = document.createElement("canvas");
  let url = "";
  // One that is full of details is made smaller until it fits.
  for (let side = maxSide; side > 64; side *= 0.7) {
    const scale = Math.min(1, side / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.fillStyle = "white"; // behind what is transparent, which a JPEG cannot be
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    url = canvas.toDataURL("image/jpeg", 0.85);
    if (url.length <= MAX_PICTURE_CHARS) break;
  }
  picture.close();
  return url;
}

/** @param {Blob} file @returns {Promise<ImageBitmap>} */
async function pictureOf(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new ParleyError("invalid_picture", "This file has no picture that the browser can show.");
  }
}

/** @param {MediaStreamTrack} camera @returns {Promise<ImageBitmap>} */
async function frameOf(camera) {
  const video = document.createElement("video");
  video.muted = true;
  video.srcObject = new MediaStream([camera]);
  await video.play();
  const frame = await createImageBitmap(video);
  video.srcObject = null;
  return frame;
}
