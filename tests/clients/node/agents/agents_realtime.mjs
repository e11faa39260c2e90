// Talk through the `@openai/agents-realtime` package over WebSocket: RealtimeSession in Node.
//
// node agents_realtime.mjs HOST CONFIG

import { setTimeout as sleep } from 'node:timers/promises';
import {
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
  tool,
} from '@openai/agents-realtime';
import {
  HEARD_MS,
  Microphone,
  RATE_HZ,
  Reports,
  WEATHER,
  Waits,
  check,
  checkHeard,
  checkRemembered,
  checkWords,
  config,
  host,
  isScripted,
  notApplicable,
  scenario,
  speech,
} from './common.mjs';

const getWeather = tool({
  name: 'get_weather',
  description: 'Look up the weather of a city.',
  parameters: WEATHER,
  strict: true,
  execute: async () => 'rain',
});

// One session, and everything that it reported. Its turn detection is the package's own, semantic_vad,
// unless `input` has another.
class Talk extends Reports {
  constructor(input = {}) {
    super();
    this.waits = new Waits();
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
          input: { transcription: { model: 'gpt-4o-mini-transcribe' }, ...input },
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

  async connect() {
    await this.session.connect({ apiKey: 'none' });
  }

  // Say a recording into a microphone; returns the words of the reply.
  async ask(name) {
    const { mark } = this;
    const microphone = new Microphone((piece) => this.session.sendAudio(piece));
    const endedMs = await microphone.say(name);
    const words = await this.reply(mark);
    const began = this.reports.slice(mark).find((r) => r.name === 'audio')?.at;
    this.waits.add(began, endedMs);
    // Who speaks before it has been played talks over it, and the package truncates it.
    await sleep(Math.max(0, began + this.audioSeconds(mark) * 1000 - performance.now()));
    microphone.close();
    return words;
  }

  // Say a recording, faster than anybody speaks.
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
// what it is after the user has spoken. Interrupted, it may have said the first words of that.
async function converseWithTwin(talk) {
  const { session } = talk;
  const said = 'i am a random twin';
  const checkTwin = (reply) =>
    check(
      reply.startsWith(said) || (reply && said.startsWith(reply)),
      `"${reply}" is not what a twin says`,
    );

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
    // The package asks for a reply as well, which is refused for the same reason.
    const both = (reports) => {
      const errors = reports.filter((r) => r.name === 'error').map((r) => r.value.error.code);
      return errors.length === 2 ? errors.join(' ') : undefined;
    };
    const codes = await talk.wait(both, 'two errors', mark);
    check(codes === 'unsupported_content_type unsupported_content_type', codes);
    // What is spoken is answered.
    const later = talk.mark;
    talk.speak('my_name_is_peter.wav');
    checkTwin(await talk.reply(later));
  });
  session.close();

  await scenario('push to talk', async () => {
    const turn = new Talk({ turnDetection: null });
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

  notApplicable('text turn', 'the model hears and speaks; typed items are refused by a clear error');
  notApplicable('tool call', 'the model cannot call functions');
  notApplicable('transcription', 'the model does not write down what it hears, and says so in an event');
  notApplicable('reconnect', 'the model cannot be told an earlier conversation');
  notApplicable('first audio', 'the model speaks when it likes, also while the user does');
}

if (config.endsWith('-tiny')) {
  // The model says nothing about the end of turns, so semantic_vad would wait its longest.
  await converseWithTwin(new Talk({ turnDetection: { type: 'server_vad' } }));
  process.exit(0);
}

const talk = new Talk();
const { session } = talk;

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
  checkWords(await talk.ask('my_name_is_peter.wav'), 'nice', 'meet', 'peter');
  check(talk.audioSeconds(mark) > 0.5, `${talk.audioSeconds(mark)} s of audio`);
});

await scenario('transcription', async () => {
  const said = () => session.history.find((item) => item.role === 'user' && talk.words(item));
  const item = await talk.wait(said, "the user's words in the history");
  checkWords(talk.words(item), 'name', 'peter');
});

await scenario('history', async () => {
  checkWords(await talk.ask('what_is_my_name.wav'), 'peter');
  const roles = () => {
    const all = session.history.map((item) => item.role).join(' ');
    return all === 'user assistant user assistant' ? all : undefined;
  };
  await talk.wait(roles, 'two turns in the history');
});

talk.waits.report();

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
    checkRemembered(await talk.reply(later));
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
  const turn = new Talk({ turnDetection: null });
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
  const again = new Talk();
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
