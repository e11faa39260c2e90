// Talk through Azure's `rt-client` package (RTClient): beta, below /openai, the model as a deployment.
//
// node rt_client.mjs HOST CONFIG

import { setTimeout as sleep } from 'node:timers/promises';
import { RTClient } from 'rt-client';
import {
  HEARD_MS,
  Microphone,
  RATE_HZ,
  Reports,
  WEATHER,
  Waits,
  check,
  checkRemembered,
  checkWords,
  config,
  host,
  notApplicable,
  scenario,
  speech,
} from './common.mjs';

const SERVER_VAD = { type: 'server_vad', silence_duration_ms: 500 };
const TOOL = {
  type: 'function',
  name: 'get_weather',
  description: 'Look up the weather of a city.',
  parameters: WEATHER,
};

// One client, and everything that it reported.
class Talk extends Reports {
  constructor() {
    super();
    this.waits = new Waits();
    this.client = new RTClient(new URL(`ws://${host}`), { key: 'none' }, { deployment: config });
  }

  async setUp(turnDetection) {
    const session = await this.client.configure({
      instructions: 'Answer in one sentence.',
      input_audio_transcription: { model: 'whisper-1' },
      turn_detection: turnDetection,
      tools: [TOOL],
      voice: 'alloy',
    });
    this.listen().catch((error) => this.put('failed', error));
    return session;
  }

  // Keep what the client makes of the server's events, whole.
  async listen() {
    for await (const event of this.client.events()) {
      if (event.type === 'input_audio') {
        this.put('speech', event);
        event.waitForCompletion().then(() => this.put('heard', event.transcription ?? ''));
      } else {
        this.follow(event).catch((error) => this.put('failed', error));
      }
    }
  }

  async follow(response) {
    const words = [];
    for await (const item of response) {
      if (item.type === 'function_call') {
        await item.waitForCompletion();
        this.put('call', item);
        continue;
      }
      for await (const content of item) {
        const sound = async () => {
          for await (const piece of content.audioChunks()) this.put('audio', piece);
        };
        const text = async () => {
          for await (const piece of content.transcriptChunks()) words.push(piece);
        };
        await Promise.all([sound(), text()]);
      }
    }
    this.put('reply', { status: response.status, words: words.join('') });
  }

  append(piece) {
    return this.client.sendAudio(new Uint8Array(piece));
  }

  // Say a recording into a microphone; returns the words of the reply.
  async ask(name) {
    const { mark } = this;
    const microphone = new Microphone((piece) => this.append(piece));
    const endedMs = await microphone.say(name);
    const words = await this.reply(mark).finally(() => microphone.close());
    this.waits.add(this.reports.slice(mark).find((r) => r.name === 'audio')?.at, endedMs);
    return words;
  }

  async send(text) {
    const content = [{ type: 'input_text', text }];
    await this.client.sendItem({ type: 'message', role: 'user', content });
  }

  // Ask for a response: the client hands it over, and keeps it from events().
  async respond() {
    const { mark } = this;
    const response = await this.client.generateResponse();
    if (response) this.follow(response).catch((error) => this.put('failed', error));
    return mark;
  }

  // Words of the next reply that was said to its end.
  async reply(since) {
    return this.wait(
      (reports) => reports.find((r) => r.name === 'reply' && r.value.status === 'completed')?.value.words,
      'a reply',
      since,
    );
  }

  async write(text) {
    await this.send(text);
    return this.reply(await this.respond());
  }
}

const talk = new Talk();

await scenario('connect and session', async () => {
  const session = await talk.setUp(SERVER_VAD);
  check(session.tools[0].name === 'get_weather', JSON.stringify(session.tools));
  check(session.modalities.includes('audio'), 'not the beta shape');
});

await scenario('spoken turn', async () => {
  const { mark } = talk;
  checkWords(await talk.ask('my_name_is_peter.wav'), 'nice', 'meet', 'peter');
  const audio = talk.reports.slice(mark).filter((r) => r.name === 'audio');
  const bytes = audio.reduce((sum, r) => sum + r.value.byteLength, 0);
  check(bytes > RATE_HZ, `${bytes} bytes of audio`);
});

await scenario('transcription', async () => {
  checkWords(await talk.event('heard'), 'name', 'peter');
});

await scenario('history', async () => {
  checkWords(await talk.ask('what_is_my_name.wav'), 'peter');
});
talk.waits.report();

await scenario('text turn', async () => {
  checkWords(await talk.write('what is two plus two'), 'two', 'plus', 'four');
});

await scenario('tool call', async () => {
  await talk.send('what is the weather in paris');
  const call = await talk.event('call', await talk.respond());
  check(call.functionName === 'get_weather', `called ${call.functionName}`);
  check(call.arguments === '{"city":"paris"}', call.arguments);
  await talk.client.sendItem({ type: 'function_call_output', call_id: call.callId, output: 'rain' });
  check((await talk.reply(await talk.respond())) === 'there will be rain', 'another reply');
});

await scenario('interruption', async () => {
  await talk.send('count from one to ten');
  const mark = await talk.respond();
  await talk.event('audio', mark);
  await sleep(HEARD_MS);
  const microphone = new Microphone((piece) => talk.append(piece));
  await microphone.say('two_plus_two.wav');
  const answer = await talk.reply(mark).finally(() => microphone.close());
  checkWords(answer, 'two', 'plus', 'four');
  const cut = talk.reports.slice(mark).find((r) => r.name === 'reply').value;
  check(cut.status === 'cancelled', `the reply was ${cut.status}`);
  checkRemembered(await talk.write('what is my name'));
});

await scenario('errors', async () => {
  const before = talk.mark;
  const refused = await talk.client.removeItem('no_such_item').then(
    () => undefined,
    (error) => error,
  );
  check(refused?.code === 'item_delete_invalid_item_id', `${JSON.stringify(refused)}`);
  check(talk.mark >= before, 'nothing is lost');
});
await talk.client.close();

await scenario('push to talk', async () => {
  const turn = new Talk();
  await turn.setUp(null);
  for (const chunk of speech('my_name_is_peter.wav')) await turn.append(chunk);
  await turn.client.commitAudio();
  checkWords(await turn.reply(await turn.respond()), 'nice', 'meet', 'peter');
  check(!turn.reports.some((r) => r.name === 'speech'), 'speech was detected nevertheless');
  await turn.client.close();
});

notApplicable('reconnect', 'the client keeps no history to replay');
process.exit(0);
