// Tools as JSON, and how calls are answered: by hand, or with something made up before, at once or after a yes.
import { $, el } from "./dom.js";

// What the Agents SDKs return in the name of somebody who said no.
const DENIED = "Tool execution was not approved.";

const EXAMPLE = [
  {
    type: "function",
    name: "get_weather",
    description: "Look up the weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
];

/** The tools in the text field, and the answers that were made up. */
export class Tools {
  /** @param {(tools: any[]) => void} onchange */
  constructor(onchange) {
    /** @type {any[]} */
    this.list = [];
    /** @type {Record<string, {how: string, output: string}>} by the function's name */
    this.mocks = {};
    this.onchange = onchange;
    $("tools").onchange = () => this.read();
    $("tools-example").onclick = () => this.write(EXAMPLE);
    $("tools-clear").onclick = () => this.write([]);
    this.render();
  }

  /** @param {any[]} list */
  write(list) {
    $("tools").value = list.length > 0 ? JSON.stringify(list, null, 2) : "";
    this.read();
  }

  read() {
    const text = $("tools").value.trim();
    let problem = "";
    let list = [];
    try {
      list = text ? JSON.parse(text) : [];
      if (!Array.isArray(list)) problem = "This must be a list: [ … ]";
    } catch (error) {
      problem = `This is no JSON: ${/** @type {Error} */ (error).message}`;
    }
    $("tools-problem").textContent = problem;
    $("tools").setAttribute("aria-invalid", String(problem !== ""));
    if (problem) return;
    this.list = list;
    this.render();
    this.onchange(list);
  }

  render() {
    const functions = this.list.filter((tool) => tool.type === "function" && tool.name);
    $("mocks").replaceChildren(...functions.map(({ name }) => this.row(name)));
    if (functions.length === 0) $("mocks").append(el("li", { class: "hint" }, "No functions yet."));
  }

  /** @param {string} name */
  row(name) {
    const mock = (this.mocks[name] ??= { how: "hand", output: '{"ok": true}' });
    const output = el("textarea", {
      rows: 2, value: mock.output, hidden: mock.how === "hand", spellcheck: false, "aria-label": `Made-up answer of ${name}`,
      oninput: () => { mock.output = output.value; },
    });
    const choice = el("select", {
      "aria-label": `How ${name} is answered`,
      onchange: () => {
        mock.how = choice.value;
        output.hidden = mock.how === "hand";
      },
    }, el("option", { value: "hand" }, "I answer"), el("option", { value: "ask" }, "ask me first"),
    el("option", { value: "mock" }, "always answer"));
    choice.value = mock.how;
    return el("li", {}, el("code", {}, name), choice, output);
  }

  /**
   * Answer a call, or make what it is answered with by hand: with words, or with a yes or a no.
   *
   * @param {import("../parley-client.js").Parley} parley
   * @param {string} callId
   * @param {string} name
   * @returns {HTMLElement | null}
   */
  answer(parley, callId, name) {
    const mock = this.mocks[name];
    if (mock?.how === "mock") {
      parley.answer(callId, mock.output);
      return null;
    }
    const isAsked = mock?.how === "ask";
    const output = el("textarea", {
      rows: 2, value: mock?.output ?? "", hidden: isAsked, "aria-label": `Answer to ${name}`,
    });
    const form = el("form", {}, output, el("div", { class: "bar" },
      el("button", { class: "primary" }, isAsked ? "Allow" : "Answer"),
      el("button", { value: "deny" }, "Deny")));
    form.addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const isDenied = /** @type {HTMLButtonElement | null} */ (event.submitter)?.value === "deny";
      parley.answer(callId, isDenied ? DENIED : output.value);
    });
    return form;
  }
}
