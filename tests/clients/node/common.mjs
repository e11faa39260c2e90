// What every client program for Node shares: the scenarios, and a microphone that speaks the assets.
//
// node PROGRAM HOST CONFIG

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export * from './scenarios.mjs';

export const RATE_HZ = 24_000;
const CHUNK_BYTES = (RATE_HZ * 2) / 10; // 100 ms
const PIECE_MS = 20;
const PIECE_BYTES = (RATE_HZ * 2 * PIECE_MS) / 1000;
const assets = new URL(process.env.PARLEY_ASSETS);

function pcmOf(name, silenceMs) {
  const silence = Buffer.alloc((RATE_HZ * 2 * silenceMs) / 1000);
  return Buffer.concat([readFileSync(new URL(name, assets)).subarray(44), silence]);
}

// A recording and the silence after it, in chunks that nobody waits between.
export function speech(name) {
  const pcm = pcmOf(name, 1200);
  const chunks = [];
  for (let at = 0; at < pcm.length; at += CHUNK_BYTES) {
    chunks.push(new Uint8Array(pcm.subarray(at, at + CHUNK_BYTES)).buffer);
  }
  return chunks;
}

// Where the last voiced piece of PCM16 ends: the last 10 ms over 3 % of the peak.
function voicedBytes(pcm) {
  const peak = (from, to) => {
    let most = 0;
    for (let at = from; at < to; at += 2) most = Math.max(most, Math.abs(pcm.readInt16LE(at)));
    return most;
  };
  const step = (RATE_HZ * 2) / 100;
  const floor = 0.03 * peak(0, pcm.length);
  let at = pcm.length;
  while (peak(at - step, at) <= floor) at -= step;
  return at;
}

// Sends sound in real time, and silence where nobody speaks. `send` takes an ArrayBuffer of PCM16, 20 ms.
export class Microphone {
  constructor(send) {
    this.send = send;
    this.pieces = [];
    this.isOpen = true;
    this.run();
  }

  async run() {
    let due = performance.now();
    while (this.isOpen) {
      const { piece, ends } = this.pieces.shift() ?? { piece: new ArrayBuffer(PIECE_BYTES) };
      await this.send(piece);
      ends?.(performance.now());
      due += PIECE_MS;
      await sleep(Math.max(0, due - performance.now()));
    }
  }

  // Say a recording; returns when its last voiced piece had been sent, by performance.now.
  async say(name) {
    const pcm = pcmOf(name, PIECE_MS);
    const last = Math.floor((voicedBytes(pcm) - 1) / PIECE_BYTES);
    return new Promise((ends) => {
      for (let number = 0; (number + 1) * PIECE_BYTES <= pcm.length; number += 1) {
        const cut = pcm.subarray(number * PIECE_BYTES, (number + 1) * PIECE_BYTES);
        const piece = new Uint8Array(cut).buffer;
        this.pieces.push({ piece, ends: number === last ? ends : undefined });
      }
    });
  }

  close() {
    this.isOpen = false;
  }
}
