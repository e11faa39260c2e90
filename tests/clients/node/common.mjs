// What every Node client program shares: the assets, the scenarios, and how they are reported.
//
// node PROGRAM HOST CONFIG; prints one JSON line a scenario, as tests/clients/common.py does.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export const [host, config] = process.argv.slice(2);
export const isScripted = config === 'scripted';
export const RATE_HZ = 24_000;
export const HEARD_MS = 1000; // a reply is talked over when this much of it has been heard
const CHUNK_BYTES = (RATE_HZ * 2) / 10; // 100 ms
const PIECE_MS = 20;
const PIECE_BYTES = (RATE_HZ * 2 * PIECE_MS) / 1000;
const PATIENCE_MS = 45_000;
const FIRST_AUDIO_MS = 1200;
const assets = new URL(process.env.PARLEY_ASSETS);

export const WEATHER = {
  type: 'object',
  properties: { city: { type: 'string', enum: ['paris', 'rome'] } },
  required: ['city'],
  additionalProperties: false,
};

export function report(scenario, verdict, why = '') {
  console.log(JSON.stringify({ scenario, verdict, why }));
}

export function notApplicable(scenario, why) {
  report(scenario, 'n/a', why);
}

export async function scenario(name, hold) {
  try {
    await hold();
    report(name, 'pass');
  } catch (error) {
    console.error(error);
    report(name, 'fail', `${error?.message ?? JSON.stringify(error)}`);
  }
}

export function check(isSo, message) {
  if (!isSo) throw new Error(message);
}

export function checkWords(reply, ...words) {
  const said = new Set(reply.toLowerCase().replaceAll(';', ' ').split(/\s+/));
  const missing = words.filter((word) => !said.has(word));
  check(!missing.length, `"${reply}" lacks ${missing.join(', ')}`);
}

// A count that was talked over is known as far as it was heard, and no further.
export function checkHeard(words, begin) {
  check(words.includes(begin), `"${words}" lacks "${begin}"`);
  check(!words.includes('nine'), `"${words}" has words that were not heard`);
}

export function checkRemembered(words) {
  checkHeard(words, 'assistant: one');
  checkWords(words, 'peter');
}

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

// How long the user waited for the first sound of replies to spoken turns.
export class Waits {
  constructor() {
    this.waitsMs = [];
  }

  add(cameMs, endedMs) {
    check(cameMs !== undefined, 'a reply without audio');
    this.waitsMs.push(cameMs - endedMs);
  }

  // The longest; how fast the scripted engine answers depends on the gateway alone.
  report() {
    if (!this.waitsMs.length) {
      report('first audio', 'fail', 'no spoken turn was answered');
      return;
    }
    const longest = Math.max(...this.waitsMs);
    const isLate = isScripted && longest > FIRST_AUDIO_MS;
    report('first audio', isLate ? 'fail' : 'pass', `${Math.round(longest)} ms`);
  }
}

// Everything that a client reported, in order: our own {name, value, at} of each.
export class Reports {
  constructor() {
    this.reports = [];
    this.waiting = new Set();
  }

  put(name, value) {
    this.reports.push({ name, value, at: performance.now() });
    for (const look of this.waiting) look();
  }

  get mark() {
    return this.reports.length;
  }

  async wait(find, what, since = 0) {
    const found = await new Promise((resolve, reject) => {
      const look = () => {
        const value = find(this.reports.slice(since));
        if (value === undefined) return;
        this.waiting.delete(look);
        clearTimeout(timer);
        resolve({ value });
      };
      const timer = setTimeout(() => {
        this.waiting.delete(look);
        const names = this.reports.slice(since).map((report) => report.name);
        const runs = names.filter((name, at) => name !== names[at - 1]);
        reject(new Error(`no ${what}; came: ${runs.join(' ').slice(-600)}`));
      }, PATIENCE_MS);
      this.waiting.add(look);
      look();
    });
    return found.value;
  }

  async event(name, since = 0) {
    return this.wait((reports) => reports.find((r) => r.name === name)?.value, name, since);
  }
}
