// Tools as JSON, and how calls are answered: by hand, or with something made up before.
import { $, el } from "./dom.js";

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
    /** @type {Record<string, {isMocked: boolean, output: string}>} by the function's name */
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
    const mock = (this.mocks[name] ??= { isMocked: false, output: '{"ok": true}' });
    const output = el("textarea", {
      rows: 2, value: mock.output, hidden: !mock.isMocked, spellcheck: false, "aria-label": `Made-up answer of ${name}`,
      oninput: () => { mock.output = output.value; },
    });
    const choice = el("select", {
      "aria-label": `How ${name} is answered`,
      onchange: () => {
        mock.isMocked = choice.value === "mock";
        output.hidden = !mock.isMocked;
      },
    }, el("option", { value: "hand" }, "I answer"), el("option", { value: "mock" }, "always answer"));
    choice.value = mock.isMocked ? "mock" : "hand";
    return el("li", {}, el("code", {}, name), choice, output);
  }

  /**
   * Answer a call, or make what it is answered with by hand.
   *
   * @param {import("../parley-client.js").Parley} parley
   * @param {string} callId
   * @param {string} name
   * @returns {HTMLElement | null}
   */
  answer(parley, callId, name) {
    const mock = this.mocks[name];
    if (mock?.isMocked) {
      parley.answer(callId, mock.output);
      return null;
    }
    const output = el("textarea", { rows: 2, value: mock?.output ?? "", "aria-label": `Answer to ${name}` });
    const form = el("form", {}, output, el("button", { class: "primary" }, "Answer"));
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      parley.answer(callId, output.value);
    });
    return form;
  }
}
