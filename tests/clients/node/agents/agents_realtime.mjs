// Talk through the `@openai/agents-realtime` package over WebSocket: RealtimeSession in Node.
//
// node agents_realtime.mjs HOST CONFIG

import { setTimeout as sleep } from 'node:timers/promises';
import { OpenAIRealtimeWebSocket } from '@openai/agents-realtime';
import * as conversation from './agents_conversation.mjs';
import {
  HEARD_MS,
  Microphone,
  RATE_HZ,
  check,
  config,
  host,
  notApplicable,
  scenario,
  speech,
} from './common.mjs';

class Talk extends conversation.Talk {
  constructor(input) {
    const url = `ws://${host}/v1/realtime?model=${config}`;
    super(new OpenAIRealtimeWebSocket({ url }), input);
  }

  async connect() {
    await this.session.connect({ apiKey: 'none' });
  }

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

  // Faster than anybody speaks.
  speak(name) {
    for (const chunk of speech(name)) this.session.sendAudio(chunk);
  }

  async listen(mark) {
    const { item_id: itemId } = await this.event('response.output_audio.delta', mark);
    await sleep(HEARD_MS);
    return itemId;
  }

  async pushToTalk(name) {
    const chunks = speech(name);
    chunks.forEach((chunk, at) =>
      this.session.sendAudio(chunk, { commit: at === chunks.length - 1 }),
    );
    this.session.transport.sendEvent({ type: 'response.create' });
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
    const itemId = await talk.listen(mark);
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
    await turn.pushToTalk('my_name_is_peter.wav');
    checkTwin(await turn.reply(0));
    turn.session.close();
  });

  notApplicable('text turn', 'the model hears and speaks; typed items are refused by a clear error');
  notApplicable('tool call', 'the model cannot call functions');
  notApplicable('transcription', 'the model does not write down what it hears, and says so in an event');
  notApplicable('reconnect', 'the model cannot be told an earlier conversation');
  notApplicable('first audio', 'the model speaks when it likes, also while the user does');
}

// A model that listens and speaks at once says nothing about the end of turns, so semantic_vad would wait its longest.
if (config.endsWith('-tiny')) await converseWithTwin(new Talk({ turnDetection: { type: 'server_vad' } }));
else await conversation.converse((input) => new Talk(input));
process.exit(0);
