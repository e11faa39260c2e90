// What has been said, item by item, as the server tells it.

/**
 * One item of the conversation.
 *
 * @typedef {object} Item
 * @property {string} id
 * @property {string} type `message`, `function_call`, `mcp_call`, `mcp_approval_request` …
 * @property {string} role `user`, `assistant` or `system`
 * @property {string} text all words
 * @property {string | null} heard the words that were heard, where a reply was cut short; null for all of them
 * @property {boolean} isFinal whether no more words come
 * @property {string[]} images data URLs
 * @property {string} name of a function
 * @property {string} arguments of a call, JSON
 * @property {string} callId
 * @property {string} server the MCP server's label
 * @property {string | null} output of a call; null while there is none
 * @property {string | null} error of a call
 * @property {any[]} tools of an MCP server
 */

/** Keeps the items in the conversation's order. */
export class Conversation {
  constructor() {
    /** @type {Item[]} */
    this.items = [];
  }

  /** @param {string} id @returns {Item | undefined} */
  find(id) {
    return this.items.find((item) => item.id === id);
  }

  /**
   * Take a server event.
   *
   * @param {any} event
   * @returns {Item | null} what has changed
   */
  take(event) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        return this.at(event.item_id, "message", "user");
      case "input_audio_buffer.cleared":
        this.items = this.items.filter((item) => item.role !== "user" || item.isFinal || item.text);
        return null;
      case "conversation.item.added":
      case "conversation.item.done":
        return this.place(event);
      case "response.output_item.added":
      case "response.output_item.done":
        return this.fill(event.item);
      case "conversation.item.retrieved":
        return this.cut(event.item);
      case "conversation.item.deleted":
        this.items = this.items.filter((item) => item.id !== event.item_id);
        return null;
      case "conversation.item.input_audio_transcription.delta":
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.set(event.item_id, (item) => { item.text += event.delta; });
      case "conversation.item.input_audio_transcription.completed":
      case "response.output_audio_transcript.done":
        return this.set(event.item_id, (item) => {
          item.text = event.transcript;
          item.isFinal = true;
        });
      case "response.output_text.done":
        return this.set(event.item_id, (item) => { item.text = event.text; });
      case "conversation.item.input_audio_transcription.failed":
        return this.set(event.item_id, (item) => { item.isFinal = true; });
      case "response.function_call_arguments.delta":
      case "response.mcp_call_arguments.delta":
        return this.set(event.item_id, (item) => { item.arguments += event.delta; });
      case "response.function_call_arguments.done":
      case "response.mcp_call_arguments.done":
        return this.set(event.item_id, (item) => { item.arguments = event.arguments; });
      case "response.mcp_call.failed":
        return this.set(event.item_id, (item) => { item.error ??= "The call failed."; });
      case "mcp_list_tools.failed":
        return this.set(event.item_id, (item) => { item.error = "The tools could not be listed."; });
      default:
        return null;
    }
  }

  /** @param {string} id @param {(item: Item) => void} change */
  set(id, change) {
    const item = this.find(id);
    if (item) change(item);
    return item ?? null;
  }

  /** @param {string} id @param {string} type @param {string} role @returns {Item} it, made at the end if need be */
  at(id, type, role) {
    let item = this.find(id);
    if (!item) {
      item = {
        id, type, role, text: "", heard: null, isFinal: false, images: [],
        name: "", arguments: "", callId: "", server: "", output: null, error: null, tools: [],
      };
      this.items.push(item);
    }
    return item;
  }

  /** Put an item after the one it follows. @param {any} event */
  place(event) {
    const item = this.fill(event.item);
    if (event.type.endsWith("done")) {
      const waits = event.item.content?.some((/** @type {any} */ part) => part.type === "input_audio");
      item.isFinal ||= !waits;
    }
    if (item.type === "function_call_output") {
      const call = this.items.find((other) => other.type === "function_call" && other.callId === item.callId);
      if (call) call.output = item.output;
    }
    const before = this.items.findIndex((other) => other.id === event.previous_item_id);
    if (before >= 0 || event.previous_item_id === null) {
      this.items.splice(this.items.indexOf(item), 1);
      const place = this.items.findIndex((other) => other.id === event.previous_item_id) + 1;
      this.items.splice(place, 0, item);
    }
    return item;
  }

  /** Take over what the server says of an item. @param {any} said */
  fill(said) {
    const item = this.at(said.id, said.type, said.role ?? "assistant");
    for (const part of said.content ?? []) {
      const words = part.text ?? part.transcript;
      if (words && words.length >= item.text.length) item.text = words;
      if (part.image_url && !item.images.includes(part.image_url)) item.images.push(part.image_url);
    }
    item.name = said.name ?? item.name;
    item.arguments = said.arguments || item.arguments;
    item.callId = said.call_id ?? item.callId;
    item.server = said.server_label ?? item.server;
    item.output = said.output ?? item.output;
    item.error = said.error ? said.error.message ?? said.error.type : item.error;
    item.tools = said.tools ?? item.tools;
    return item;
  }

  /** Learn from the item as the server remembers it which words were heard. @param {any} said */
  cut(said) {
    const item = this.find(said.id);
    if (!item || said.role !== "assistant") return null;
    const heard = (said.content ?? []).map((/** @type {any} */ p) => p.transcript ?? p.text ?? "").join("");
    item.heard = heard.length < item.text.length ? heard : null;
    return item;
  }
}
