// Talk through the `@openai/agents-realtime` package over WebSocket: RealtimeSession in Node.
//
// node agents_realtime.mjs HOST CONFIG; prints one JSON line a scenario, as tests/clients/common.py does.

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
  tool,
} from '@openai/agents-realtime';

const [host, config] = process.argv.slice(2);
const assets = new URL(process.env.PARLEY_ASSETS);
const RATE_HZ = 24_000;
const CHUNK_BYTES = (RATE_HZ * 2) / 10; // 100 ms
const PATIENCE_MS = 45_000;
const HEARD_MS = 1000; // a reply is talked over when this much of it has been heard
const SERVER_VAD = {
  type: 'server_vad',
  silenceDurationMs: 500,
  createResponse: true,
  interruptResponse: true,
};

const WEATHER = {
  type: 'object',
  properties: { city: { type: 'string', enum: ['paris', 'rome'] } },
  required: ['city'],
  additionalProperties: false,
};

const getWeather = tool({
  name: 'get_weather',
  description: 'Look up the weather of a city.',
  parameters: WEATHER,
  strict: true,
  execute: async () => 'rain',
});

function report(scenario, verdict, why = '') {
  console.log(JSON.stringify({ scenario, verdict, why }));
}

async function scenario(name, hold) {
  try {
    await hold();
    report(name, 'pass');
  } catch (error) {
    report(name, 'fail', `${error.message ?? JSON.stringify(error)}`);
  }
}

function check(isSo, message) {
  if (!isSo) throw new Error(message);
}

function checkWords(reply, ...words) {
  const said = new Set(reply.toLowerCase().replaceAll(';', ' ').split(/\s+/));
  const missing = words.filter((word) => !said.has(word));
  check(!missing.length, `"${reply}" lacks ${missing.join(', ')}`);
}

// A count that was talked over is known as far as it was heard, and no further.
function checkHeard(words, begin) {
  check(words.includes(begin), `"${words}" lacks "${begin}"`);
  check(!words.includes('nine'), `"${words}" has words that were not heard`);
}

function speech(name) {
  const file = readFileSync(new URL(name, assets));
  const pcm = Buffer.concat([file.subarray(44), Buffer.alloc(RATE_HZ * 2 * 1.2)]);
  const chunks = [];
  for (let at = 0; at < pcm.length; at += CHUNK_BYTES) {
    chunks.push(new Uint8Array(pcm.subarray(at, at + CHUNK_BYTES)).buffer);
  }
  return chunks;
}

// One session, and everything that it reported: our own {name, value} of each.
class Talk {
  constructor(turnDetection) {
    this.reports = [];
    this.waiting = new Set();
    const agent = new RealtimeAgent({
      name: 'parley',
      instructions: 'Answer in one sentence.',
      tools: [getWeather],
    });
    this.session = new RealtimeSession(agent, {
      transport: new OpenAIRealtimeWebSocket({
        url: `ws://${host}/v1/realtime?model=${config}`,
      }),
      model: config,
      tracingDisabled: true,
      config: {
        outputModalities: ['audio'],
        audio: {
          input: { transcription: { model: 'gpt-4o-mini-transcribe' }, turnDetection },
          output: { voice: 'marin' },
        },
      },
    });
    for (const name of ['audio', 'audio_interrupted', 'agent_tool_end']) {
      this.session.on(name, (...value) => this.put(name, value));
    }
    this.session.on('error', (error) => this.put('session_error', error));
    this.session.on('transport_event', (event) => this.put(event.type, event));
    this.session.on('agent_end', (context, agent, words) => this.put('agent_end', words));
  }

  put(name, value) {
    this.reports.push({ name, value });
    for (const look of this.waiting) look();
  }

  get mark() {
    return this.reports.length;
  }

  async connect() {
    await this.session.connect({ apiKey: 'none' });
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

  speak(name) {
    for (const chunk of speech(name)) this.session.sendAudio(chunk);
  }

  // Words of the next reply, as the session tells them.
  async reply(since) {
    return this.wait(
      (reports) => reports.find((r) => r.name === 'agent_end' && r.value)?.value,
      'a reply',
      since,
    );
  }

  // Words of an item of the session's own history.
  words(item) {
    return (item.content ?? []).map((part) => part.transcript ?? part.text ?? '').join(' ');
  }

  audioSeconds(since) {
    const audio = this.reports.slice(since).filter((r) => r.name === 'audio');
    return audio.reduce((sum, r) => sum + r.value[0].data.byteLength, 0) / (2 * RATE_HZ);
  }
}

// A model that listens and speaks at once: the server's is a random twin (docs/duplex.md), which says
// what it is after the user has spoken.
async function converseWithTwin(talk) {
  const { session } = talk;
  const checkTwin = (reply) =>
    check(reply.startsWith('i am a random twin'), `"${reply}" is not what a twin says`);

  await scenario('connect and session', async () => {
    await talk.connect();
    await talk.event('session.updated');
  });

  await scenario('spoken turn', async () => {
    const { mark } = talk;
    talk.speak('my_name_is_peter.wav');
    checkTwin(await talk.reply(mark));
    check(talk.audioSeconds(mark) > 1, `${talk.audioSeconds(mark)} s of audio`);
  });

  await scenario('history', async () => {
    const { mark } = talk;
    talk.speak('what_is_my_name.wav');
    checkTwin(await talk.reply(mark));
    const roles = () => {
      const all = session.history.map((item) => item.role).join(' ');
      return all === 'user assistant user assistant' ? all : undefined;
    };
    await talk.wait(roles, 'two turns in the history');
  });

  await scenario('interruption', async () => {
    const { mark } = talk;
    talk.speak('my_name_is_peter.wav');
    const { item_id: itemId } = await talk.event('response.output_audio.delta', mark);
    await sleep(HEARD_MS);
    const later = talk.mark;
    talk.speak('two_plus_two.wav');
    await talk.event('audio_interrupted', later);
    const truncated = await talk.event('conversation.item.truncated', later);
    check(truncated.item_id === itemId, `truncated ${JSON.stringify(truncated)}`);
    checkTwin(
      await talk.wait(
        (reports) => reports.findLast((r) => r.name === 'agent_end' && r.value)?.value,
        'an answer to what was said over the reply',
        later,
      ),
    );
    const cut = session.history.find((item) => item.itemId === itemId);
    check(!talk.words(cut).includes('noise'), `"${talk.words(cut)}" has words not heard`);
  });

  await scenario('errors', async () => {
    const { mark } = talk;
    session.sendMessage('what is two plus two');
    const { error } = await talk.event('error', mark);
    check(error.code === 'unsupported_content_type', JSON.stringify(error));
    // The package asks for a reply as well; it is empty. What is spoken is answered.
    await talk.event('response.done', mark);
    const later = talk.mark;
    talk.speak('my_name_is_peter.wav');
    checkTwin(await talk.reply(later));
  });
  session.close();

  await scenario('push to talk', async () => {
    const turn = new Talk(null);
    await turn.connect();
    await turn.event('session.updated');
    const chunks = speech('my_name_is_peter.wav');
    chunks.forEach((chunk, at) =>
      turn.session.sendAudio(chunk, { commit: at === chunks.length - 1 }),
    );
    turn.session.transport.sendEvent({ type: 'response.create' });
    checkTwin(await turn.reply(0));
    turn.session.close();
  });

  report('text turn', 'n/a', 'the model hears and speaks; typed items are refused by a clear error');
  report('tool call', 'n/a', 'the model cannot call functions');
  report('transcription', 'n/a', 'the model does not write down what it hears, and says so in an event');
  report('reconnect', 'n/a', 'the model cannot be told an earlier conversation');
}

const isScripted = config === 'scripted';
const talk = new Talk(SERVER_VAD);
const { session } = talk;

if (config.endsWith('-tiny')) {
  await converseWithTwin(talk);
  process.exit(0);
}

await scenario('connect and session', async () => {
  await talk.connect();
  // Its two updates, of which one sets the tools, leave in either order.
  await talk.wait(
    (reports) =>
      reports.find(
        (r) => r.name === 'session.updated' && r.value.session.tools[0]?.name === 'get_weather',
      ),
    'a session with the function',
  );
});

await scenario('spoken turn', async () => {
  const { mark } = talk;
  talk.speak('my_name_is_peter.wav');
  checkWords(await talk.reply(mark), 'nice', 'meet', 'peter');
  check(talk.audioSeconds(mark) > 0.5, `${talk.audioSeconds(mark)} s of audio`);
});

await scenario('transcription', async () => {
  const said = () => session.history.find((item) => item.role === 'user' && talk.words(item));
  const item = await talk.wait(said, "the user's words in the history");
  checkWords(talk.words(item), 'name', 'peter');
});

await scenario('history', async () => {
  const { mark } = talk;
  talk.speak('what_is_my_name.wav');
  checkWords(await talk.reply(mark), 'peter');
  const roles = () => {
    const all = session.history.map((item) => item.role).join(' ');
    return all === 'user assistant user assistant' ? all : undefined;
  };
  await talk.wait(roles, 'two turns in the history');
});

await scenario('text turn', async () => {
  const { mark } = talk;
  session.sendMessage('what is two plus two');
  checkWords(await talk.reply(mark), 'two', 'plus', 'four');
});

await scenario('tool call', async () => {
  const { mark } = talk;
  session.sendMessage('what is the weather in paris');
  const [, , , result] = await talk.event('agent_tool_end', mark);
  check(result === 'rain', `the function returned ${result}`);
  const reply = await talk.reply(mark);
  check(reply === 'there will be rain', reply);
});

await scenario('interruption', async () => {
  const { mark } = talk;
  session.sendMessage('count from one to ten');
  const { item_id: itemId } = await talk.event('response.output_audio.delta', mark);
  await sleep(HEARD_MS);
  talk.speak('two_plus_two.wav');
  await talk.event('audio_interrupted', mark);
  const truncated = await talk.event('conversation.item.truncated', mark);
  check(truncated.item_id === itemId, `truncated ${JSON.stringify(truncated)}`);
  check(truncated.audio_end_ms >= HEARD_MS * 0.9, `truncated ${JSON.stringify(truncated)}`);
  checkWords(
    await talk.wait(
      (reports) =>
        reports.find((r) => r.name === 'agent_end' && r.value.includes('plus'))?.value,
      'an answer to what was said over the reply',
      mark,
    ),
    'two', 'plus', 'four',
  );
  const cut = session.history.find((item) => item.itemId === itemId);
  checkHeard(talk.words(cut), 'one');
  if (isScripted) {
    const later = talk.mark;
    session.sendMessage('what is my name');
    const remembered = await talk.reply(later);
    checkHeard(remembered, 'assistant: one');
    checkWords(remembered, 'peter');
  }
});

await scenario('errors', async () => {
  const { mark } = talk;
  session.transport.sendEvent({
    type: 'conversation.item.delete',
    event_id: 'mine',
    item_id: 'no_such_item',
  });
  await talk.event('session_error', mark);
  const { error } = await talk.event('error', mark);
  check(error.event_id === 'mine', JSON.stringify(error));
  check(error.code === 'item_delete_invalid_item_id', JSON.stringify(error));
  const later = talk.mark;
  session.sendMessage('what is two plus two');
  checkWords(await talk.reply(later), 'four');
});

// The package sends no audio again, and says to turn what was said aloud into text.
const earlier = session.history.slice(0, 4).map((item) => ({
  ...item,
  content: [{ type: item.role === 'user' ? 'input_text' : 'output_text', text: talk.words(item) }],
}));
session.close();

await scenario('push to talk', async () => {
  const turn = new Talk(null);
  await turn.connect();
  await turn.event('session.updated');
  const chunks = speech('my_name_is_peter.wav');
  chunks.forEach((chunk, at) =>
    turn.session.sendAudio(chunk, { commit: at === chunks.length - 1 }),
  );
  turn.session.transport.sendEvent({ type: 'response.create' });
  checkWords(await turn.reply(0), 'nice', 'meet', 'peter');
  const started = turn.reports.some((r) => r.name === 'input_audio_buffer.speech_started');
  turn.session.close();
  check(!started, 'speech was detected nevertheless');
});

await scenario('reconnect', async () => {
  const again = new Talk(SERVER_VAD);
  await again.connect();
  await again.event('session.updated');
  again.session.updateHistory(earlier);
  const all = () => (again.session.history.length === earlier.length ? true : undefined);
  await again.wait(all, 'the replayed history');
  const { mark } = again;
  again.session.sendMessage('what is my name');
  checkWords(await again.reply(mark), 'peter');
  again.session.close();
});

process.exit(0);
