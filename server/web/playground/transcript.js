// What was said, as it comes, and the cards of calls.
import { $, el, pretty } from "./dom.js";

/** @typedef {import("../parley-client.js").Item} Item */

const KINDS = {
  function_call: "Function call",
  mcp_call: "MCP call",
  mcp_approval_request: "May this be called?",
  mcp_list_tools: "MCP server",
};

/**
 * Shows the conversation.
 *
 * @param {import("../parley-client.js").Parley} parley
 * @param {(callId: string, name: string) => HTMLElement | null} answering makes what a call is answered with by hand
 */
export function showTranscript(parley, answering) {
  const list = $("transcript");
  /** @type {Map<string, HTMLElement>} */
  const lines = new Map();
  /** @type {Map<string, HTMLElement>} */
  const forms = new Map();

  // Who has scrolled back reads; else the last words stay in sight.
  let isAtEnd = true;
  const follow = () => { if (isAtEnd) list.scrollTop = list.scrollHeight; };
  list.addEventListener("scroll", () => {
    isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  });
  new ResizeObserver(follow).observe(list);

  const render = () => {
    const shown = parley.items.filter(isShown);
    const wanted = shown.map((item) => {
      const line = lines.get(item.id) ?? el("li");
      lines.set(item.id, line);
      fill(line, item);
      return line;
    });
    for (const [id, line] of lines) {
      if (!wanted.includes(line)) {
        line.remove();
        lines.delete(id);
      }
    }
    wanted.forEach((line, at) => {
      if (list.children[at] !== line) list.insertBefore(line, list.children[at] ?? null);
    });
    $("empty").hidden = shown.length > 0 || parley.status === "connecting";
    follow();
  };

  /** @param {HTMLElement} line @param {Item} item */
  const fill = (line, item) => {
    if (item.type !== "message") {
      card(line, item);
      return;
    }
    line.className = `said ${item.role}${item.isFinal ? "" : " live"}`;
    const heard = item.heard ?? item.text;
    const cut = item.heard === null ? "" : unheard(item);
    line.replaceChildren(
      el("span", { class: "who" }, item.role === "user" ? "You" : "Parley"),
      ...item.images.map((src) => el("img", { src, alt: "A picture that you sent" })),
      el("p", {},
        heard || (cut || item.images.length > 0 ? "" : nothing(item)),
        ...(cut ? [heard ? " " : "", el("del", { title: "Not heard: you spoke" }, cut)] : [])),
    );
  };

  /** @param {HTMLElement} line @param {Item} item */
  const card = (line, item) => {
    line.className = `card ${item.type}`;
    const parts = [el("span", { class: "who" }, KINDS[/** @type {keyof typeof KINDS} */ (item.type)])];
    if (item.type === "mcp_list_tools") {
      const names = item.tools.map((tool) => tool.name).join(", ");
      parts.push(el("p", {}, el("code", {}, item.server), names ? `: ${names}` : item.error ? "" : " …"));
    } else {
      const name = item.server ? `${item.server}.${item.name}` : item.name;
      parts.push(el("p", {}, el("code", {}, name)), el("pre", {}, pretty(item.arguments || "{}")));
    }
    if (item.output !== null) parts.push(el("pre", { class: "output" }, pretty(item.output)));
    if (item.error) parts.push(el("p", { class: "bad" }, item.error));
    const form = forms.get(item.id);
    if (form) parts.push(form);
    line.replaceChildren(...parts);
  };

  /** @type {Set<string>} what a screen reader has been told of; word by word it would only stammer */
  const announced = new Set();
  parley.on("item", (item) => {
    render();
    if (item.type !== "message" || !item.isFinal || !item.text || announced.has(item.id)) return;
    announced.add(item.id);
    $("announced").textContent = `${item.role === "user" ? "You" : "Parley"}: ${item.text}`;
  });
  parley.on("status", render);
  parley.on("wire", ({ event }) => {
    if (event.type === "conversation.item.deleted" || event.type === "input_audio_buffer.cleared") render();
    const answer = event.type === "conversation.item.done" ? event.item : null;
    if (answer?.type !== "mcp_approval_response") return;
    // Ours, that of somebody beside us, or the server's own when nobody has answered in time.
    const said = answer.approve ? "Allowed." : `Denied. ${answer.reason ?? ""}`.trim();
    forms.set(answer.approval_request_id, el("p", { class: "hint" }, said));
    render();
  });
  parley.on("call", (item) => {
    const form = answering(item.callId, item.name);
    if (form) forms.set(item.id, form);
    form?.addEventListener("submit", () => {
      forms.delete(item.id);
      render();
    });
    render();
    form?.querySelector("textarea:not([hidden]), button")?.focus();
  });
  parley.on("approval", (item) => {
    const decide = (/** @type {boolean} */ isAllowed) => () => {
      parley.approve(item.id, isAllowed);
      forms.delete(item.id); // the server says what was decided
      render();
    };
    forms.set(item.id, el("div", { class: "bar" },
      el("button", { type: "button", class: "primary", onclick: decide(true) }, "Allow"),
      el("button", { type: "button", onclick: decide(false) }, "Deny")));
    render();
  });
}

/** @param {Item} item */
function isShown(item) {
  return item.type in KINDS || (item.type === "message" && item.role !== "system");
}

/** @param {Item} item @returns {string} what stands for words that are not there */
function nothing(item) {
  return item.isFinal ? "(no words)" : "…";
}

/** @param {Item} item @returns {string} the words that were said and not heard */
function unheard({ text, heard }) {
  return text.startsWith(heard ?? "") ? text.slice((heard ?? "").length).trim() : text;
}
