// PCM16 in base64, which is how sound travels in events.

export const RATE_HZ = 24_000;

/**
 * @param {Float32Array} samples in [-1, 1]
 * @returns {string} 16 bit, little endian, in base64
 */
export function toBase64(samples) {
  const pcm = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => {
    pcm.setInt16(i * 2, Math.round(Math.max(-1, Math.min(1, sample)) * 32_767), true);
  });
  let text = "";
  new Uint8Array(pcm.buffer).forEach((byte) => { text += String.fromCharCode(byte); });
  return btoa(text);
}

/**
 * @param {string} text 16 bit, little endian, in base64
 * @returns {Float32Array} in [-1, 1)
 */
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const pcm = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, i) => pcm.getInt16(i * 2, true) / 32_768);
}

/**
 * @param {Float32Array} samples
 * @returns {number} their root mean square
 */
export function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / samples.length);
}
