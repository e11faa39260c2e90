// Talk through LiveKit's `openai.realtime.RealtimeModel`, in an AgentSession as its examples build.
//
// node livekit_session.mjs HOST CONFIG
//
// A microphone and a loudspeaker stand where LiveKit's room would be, which needs a media server.

import { setTimeout as sleep } from 'node:timers/promises';
import { initializeLogger, llm, voice } from '@livekit/agents';
import * as openai from '@livekit/agents-plugin-openai';
import { AudioFrame } from '@livekit/rtc-node';
import { z } from 'zod';
import {
  HEARD_MS,
  Microphone,
  RATE_HZ,
  Reports,
  Waits,
  check,
  checkRemembered,
  checkWords,
  config,
  host,
  notApplicable,
  scenario,
} from './common.mjs';

// Hands pieces of sound to the session.
class Ears extends voice.AudioInput {
  constructor() {
    super();
    const frames = new ReadableStream({ start: (controller) => (this.controller = controller) });
    this.multiStream.addInputStream(frames);
  }

  append(piece) {
    const samples = new Int16Array(piece);
    this.controller.enqueue(new AudioFrame(samples, RATE_HZ, 1, samples.length));
  }
}

// Plays in real time: a segment is what comes between two flushes.
class Loudspeaker extends voice.AudioOutput {
  constructor(reports) {
    super(RATE_HZ);
    this.reports = reports;
    this.segmentMs = 0;
    this.ending = undefined;
  }

  get isPlaying() {
    return this.segmentMs > 0;
  }

  get playedMs() {
    return this.isPlaying ? Math.min(performance.now() - this.beganMs, this.segmentMs) : 0;
  }

  async captureFrame(frame) {
    while (this.ending) await sleep(5);
    await super.captureFrame(frame);
    if (!this.isPlaying) {
      this.beganMs = performance.now();
      this.onPlaybackStarted(Date.now());
    }
    this.segmentMs += (frame.samplesPerChannel * 1000) / frame.sampleRate;
    this.reports.put('audio', frame);
  }

  flush() {
    super.flush();
    if (!this.isPlaying || this.ending) return;
    const leftMs = this.beganMs + this.segmentMs - performance.now();
    this.ending = setTimeout(() => this.end(false), Math.max(0, leftMs));
  }

  clearBuffer() {
    clearTimeout(this.ending);
    if (this.isPlaying) this.end(true);
  }

  end(interrupted) {
    const playbackPosition = this.playedMs / 1000;
    this.segmentMs = 0;
    this.ending = undefined;
    this.onPlaybackFinished({ playbackPosition, interrupted });
  }
}

const getWeather = llm.tool({
  description: 'Look up the weather of a city.',
  parameters: z.object({ city: z.enum(['paris', 'rome']) }),
  execute: async () => 'rain',
});

// One session in the plugin's own turn detection, semantic_vad, and everything that it reported.
class Talk extends Reports {
  constructor() {
    super();
    this.waits = new Waits();
    this.ears = new Ears();
    this.loudspeaker = new Loudspeaker(this);
    const model = new openai.realtime.RealtimeModel({
      model: config,
      baseURL: `http://${host}/v1`,
      apiKey: 'none',
      voice: 'marin',
    });
    this.agent = new voice.Agent({
      instructions: 'Answer in one sentence.',
      tools: { get_weather: getWeather },
    });
    this.session = new voice.AgentSession({ llm: model });
    const { ConversationItemAdded, UserInputTranscribed, Error } = voice.AgentSessionEventTypes;
    this.session.on(ConversationItemAdded, ({ item }) => this.put('item', item));
    this.session.on(UserInputTranscribed, (heard) => this.put('heard', heard));
    this.session.on(Error, (error) => this.put('error', error));
    this.session.input.audio = this.ears;
    this.session.output.audio = this.loudspeaker;
  }

  async start() {
    await this.session.start({ agent: this.agent, record: false });
  }

  // Wait until everything has been played.
  async quiet() {
    while (this.loudspeaker.isPlaying) await sleep(20);
  }

  // Say a recording into a microphone; returns the words of the reply.
  async ask(name) {
    await this.quiet();
    const { mark } = this;
    const microphone = new Microphone((piece) => this.ears.append(piece));
    const endedMs = await microphone.say(name);
    const words = await this.reply(mark).finally(() => microphone.close());
    this.waits.add(this.reports.slice(mark).find((r) => r.name === 'audio')?.at, endedMs);
    return words;
  }

  async write(text) {
    await this.quiet();
    const { mark } = this;
    this.session.generateReply({ userInput: text });
    return this.reply(mark);
  }

  // Words of the reply that the session puts into its history next.
  async reply(since) {
    return (await this.item(since, false)).textContent;
  }

  async item(since, isInterrupted) {
    const isReply = ({ name, value }) =>
      name === 'item' && value.role === 'assistant' && value.interrupted === isInterrupted;
    return this.wait((reports) => reports.find(isReply)?.value, 'a reply in the history', since);
  }
}

initializeLogger({ pretty: false, level: 'silent' });
const talk = new Talk();

await scenario('connect and session', async () => {
  await talk.start();
});

await scenario('spoken turn', async () => {
  checkWords(await talk.ask('my_name_is_peter.wav'), 'nice', 'meet', 'peter');
  const frames = talk.reports.filter((r) => r.name === 'audio');
  const samples = frames.reduce((sum, r) => sum + r.value.samplesPerChannel, 0);
  check(samples > RATE_HZ / 2, `${samples / RATE_HZ} s of audio`);
});

await scenario('transcription', async () => {
  const isFinal = ({ name, value }) => name === 'heard' && value.isFinal;
  const heard = await talk.wait((all) => all.find(isFinal)?.value, "the user's words");
  checkWords(heard.transcript, 'name', 'peter');
});

await scenario('history', async () => {
  checkWords(await talk.ask('what_is_my_name.wav'), 'peter');
  const messages = talk.session.history.items.filter((item) => item.type === 'message');
  const roles = messages.map((item) => item.role).join(' ');
  check(roles === 'user assistant user assistant', `history ${roles}`);
});
talk.waits.report();

await scenario('text turn', async () => {
  checkWords(await talk.write('what is two plus two'), 'two', 'plus', 'four');
});

await scenario('tool call', async () => {
  const words = await talk.write('what is the weather in paris');
  const outputs = talk.session.history.items.filter((i) => i.type === 'function_call_output');
  check(outputs.length === 1 && outputs[0].output.includes('rain'), JSON.stringify(outputs));
  check(words === 'there will be rain', words);
});

await scenario('interruption', async () => {
  await talk.quiet();
  const { mark } = talk;
  talk.session.generateReply({ userInput: 'count from one to ten' });
  await talk.event('audio', mark);
  while (talk.loudspeaker.playedMs < HEARD_MS) await sleep(20);
  const microphone = new Microphone((piece) => talk.ears.append(piece));
  await microphone.say('two_plus_two.wav');
  const count = await talk.item(mark, true);
  const answer = await talk.reply(mark).finally(() => microphone.close());
  checkWords(answer, 'two', 'plus', 'four');
  // What was heard of it is known to LiveKit's room output only; the server knows by truncation.
  check(count.textContent.startsWith('one'), `another reply was cut: ${count.textContent}`);
  checkRemembered(await talk.write('what is my name'));
  const errors = talk.reports.filter((r) => r.name === 'error');
  check(!errors.length, JSON.stringify(errors));
});

notApplicable('push to talk', "with the server's detection off, LiveKit needs one of its own");
notApplicable('reconnect', 'the plugin reconnects by itself, every 20 minutes');
notApplicable('errors', 'the session sends nothing that it has not checked');
process.exit(0);
