// What every transport of the `@openai/agents-realtime` package is to manage: one session, and the conversation.

import { RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import {
  HEARD_MS,
  Reports,
  WEATHER,
  Waits,
  check,
  checkHeard,
  checkRemembered,
  checkWords,
  config,
  isScripted,
  scenario,
} from './scenarios.mjs';

const getWeather = tool({
  name: 'get_weather',
  description: 'Look up the weather of a city.',
  parameters: WEATHER,
  strict: true,
  execute: async () => 'rain',
});

// One session, and everything that it reported. Its turn detection is the package's own, semantic_vad,
// unless `input` has another. How one speaks and listens is its transport's:
//
//   connect()         connects
//   ask(name)         says a recording as people do; returns the words of the reply, when it has been heard
//   speak(name)       says a recording
//   listen(mark)      returns the id of the reply's item, when HEARD_MS of the reply have been heard
//   pushToTalk(name)  says a recording and commits it
//   audioSeconds(mark) of replies
export class Talk extends Reports {
  constructor(transport, input = {}) {
    super();
    this.waits = new Waits();
    const agent = new RealtimeAgent({
      name: 'parley',
      instructions: 'Answer in one sentence.',
      tools: [getWeather],
    });
    this.session = new RealtimeSession(agent, {
      transport,
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
}

// Hold all scenarios. `newTalk` takes what is special about the input of a session.
export async function converse(newTalk) {
  const talk = newTalk();
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
    const itemId = await talk.listen(mark);
    talk.speak('two_plus_two.wav');
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
    // The same by a button of the application's.
    const last = talk.mark;
    session.sendMessage('count from one to ten');
    await talk.listen(last);
    session.interrupt();
    const { response } = await talk.event('response.done', last);
    check(response.status === 'cancelled', `the reply is ${response.status}`);
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
    const turn = newTalk({ turnDetection: null });
    await turn.connect();
    await turn.event('session.updated');
    await turn.pushToTalk('my_name_is_peter.wav');
    checkWords(await turn.reply(0), 'nice', 'meet', 'peter');
    const started = turn.reports.some((r) => r.name === 'input_audio_buffer.speech_started');
    turn.session.close();
    check(!started, 'speech was detected nevertheless');
  });

  await scenario('reconnect', async () => {
    const again = newTalk();
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
}
