// What every JavaScript client program shares, in Node and in pages: the scenarios, and how they are reported.
//
// Prints one JSON line a scenario, as tests/clients/common.py does.

// A program is told whom to talk to by its command line, a page by its address: page.html?given=HOST&given=CONFIG
const isPage = typeof document !== 'undefined';
export const [host, config] = isPage
  ? new URLSearchParams(document.location.search).getAll('given')
  : process.argv.slice(2);
export const isScripted = config === 'scripted';
export const HEARD_MS = 1000; // a reply is talked over when this much of it has been heard
const PATIENCE_MS = 45_000;
const FIRST_AUDIO_MS = 1200;

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

  put(name, value, at = performance.now()) {
    this.reports.push({ name, value, at });
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
