// Use hosted MCP tools, and functions that need a person's yes, through `@openai/agents-realtime`.
//
// node agents_tools.mjs HOST CONFIG

import { hostedMcpTool } from '@openai/agents-core';
import {
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
  tool,
} from '@openai/agents-realtime';
import { RATE_HZ, Reports, check, config, host, scenario, speech } from './common.mjs';

const hangUp = tool({
  name: 'hang_up',
  description: 'End a call.',
  parameters: {
    type: 'object',
    properties: { caller: { type: 'string' } },
    required: ['caller'],
    additionalProperties: false,
  },
  strict: true,
  needsApproval: true,
  execute: async ({ caller }) => `${caller} is gone`,
});

class Talk extends Reports {
  constructor(modality) {
    super();
    const agent = new RealtimeAgent({
      name: 'parley',
      instructions: 'Answer.',
      tools: [
        hostedMcpTool({
          serverLabel: 'maps',
          requireApproval: { never: { toolNames: ['get_weather'] }, always: { toolNames: ['delete_city'] } },
        }),
        hangUp,
      ],
    });
    this.session = new RealtimeSession(agent, {
      transport: new OpenAIRealtimeWebSocket({
        url: `ws://${host}/v1/realtime?model=${config}`,
      }),
      model: config,
      tracingDisabled: true,
      config: { outputModalities: [modality] },
    });
    for (const name of ['mcp_tools_changed', 'mcp_tool_call_completed', 'tool_approval_requested']) {
      this.session.on(name, (...value) => this.put(name, value));
    }
    this.bytes = 0;
    this.session.on('audio', (event) => {
      this.bytes += event.data.byteLength;
    });
    this.session.on('error', (error) => this.put('session_error', error));
    this.session.on('transport_event', (event) => this.put(event.type, event));
  }

  // Say anything: the script knows what each spoken turn means.
  speak() {
    for (const chunk of speech('my_name_is_peter.wav')) this.session.sendAudio(chunk);
  }

  // Hear the next reply to its end.
  async heard(words, since) {
    const said = await this.event('response.output_audio_transcript.done', since);
    check(said.transcript === words, said.transcript);
    const place = this.reports.findIndex((report) => report.value === said);
    await this.event('response.done', place);
    const seconds = this.bytes / (2 * RATE_HZ);
    check(seconds > 0.5, `${seconds} s of audio`);
    this.bytes = 0;
  }

  async words(since) {
    return (await this.event('response.output_text.done', since)).text;
  }

  async asked(text) {
    const { mark } = this;
    if (text) this.session.sendMessage(text);
    else this.speak();
    const [, , request] = await this.event('tool_approval_requested', mark);
    await this.event('response.done', mark);
    return request.approvalItem;
  }
}

const talk = new Talk('text');
const { session } = talk;

await scenario('listing', async () => {
  await session.connect({ apiKey: 'none' });
  const [tools] = await talk.event('mcp_tools_changed');
  const names = tools.map((each) => each.name).join(' ');
  check(names.startsWith('get_weather delete_city'), names);
});

await scenario('call', async () => {
  const { mark } = talk;
  session.sendMessage('what is the weather in oslo');
  const [, , call] = await talk.event('mcp_tool_call_completed', mark);
  check(call.output === 'rain in oslo', JSON.stringify(call));
  // The package asks for the answer by itself.
  const words = await talk.words(mark);
  check(words === 'it said rain in oslo', words);
  await talk.wait((r) => (r.filter((e) => e.name === 'response.done').length > 1 ? true : undefined), 'the end', mark);
});

await scenario('approved', async () => {
  const item = await talk.asked('delete oslo');
  const { mark } = talk;
  await session.approve(item);
  const [, , call] = await talk.event('mcp_tool_call_completed', mark);
  check(call.output === 'oslo is gone, False', JSON.stringify(call));
  const words = await talk.words(mark);
  check(words === 'it said oslo is gone, False', words);
  await talk.event('response.done', mark);
});

await scenario('denied', async () => {
  const item = await talk.asked('delete oslo');
  const { mark } = talk;
  await session.reject(item);
  await talk.event('conversation.item.done', mark);
  session.transport.sendEvent({ type: 'response.create' });
  const words = await talk.words(mark);
  check(words.startsWith('it said The call was not approved.'), words);
  await talk.event('response.done', mark);
});

await scenario('needs approval, approved', async () => {
  const item = await talk.asked('hang up on peter');
  const { mark } = talk;
  await session.approve(item);
  const words = await talk.words(mark);
  check(words === 'it said peter is gone', words);
  await talk.event('response.done', mark);
});

await scenario('needs approval, denied', async () => {
  const item = await talk.asked('hang up on peter');
  const { mark } = talk;
  await session.reject(item);
  const words = await talk.words(mark);
  check(words === 'it said Tool execution was not approved.', words);
});

session.close();

const aloud = new Talk('audio');

await scenario('spoken call', async () => {
  await aloud.session.connect({ apiKey: 'none' });
  await aloud.event('mcp_tools_changed');
  const { mark } = aloud;
  aloud.speak();
  const [, , call] = await aloud.event('mcp_tool_call_completed', mark);
  check(call.output === 'rain in oslo', JSON.stringify(call));
  await aloud.heard('it said rain in oslo', mark);
});

await scenario('spoken, approved', async () => {
  const item = await aloud.asked();
  const { mark } = aloud;
  await aloud.session.approve(item);
  const [, , call] = await aloud.event('mcp_tool_call_completed', mark);
  check(call.output === 'oslo is gone, False', JSON.stringify(call));
  await aloud.heard('it said oslo is gone, False', mark);
});

await scenario('spoken, denied', async () => {
  const item = await aloud.asked();
  const { mark } = aloud;
  await aloud.session.reject(item);
  await aloud.event('conversation.item.done', mark);
  aloud.session.transport.sendEvent({ type: 'response.create' });
  await aloud.heard('it said The call was not approved.', mark);
});

aloud.session.close();
process.exit(0);
