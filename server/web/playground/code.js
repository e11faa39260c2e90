// The settings of the page as a program.
import { $ } from "./dom.js";

/**
 * @param {{transport: string, model: string, key: string, session: any}} chosen
 * @param {string} language
 */
export function codeFor(chosen, language) {
  return language === "python" ? python(chosen) : javascript(chosen);
}

/** @param {Parameters<typeof codeFor>[0]} chosen */
function javascript({ transport, model, key, session }) {
  return `import { Parley } from "${new URL("/parley-client.js", location.href)}";

const parley = new Parley({
  transport: "${transport}",${model ? `\n  model: "${model}",` : ""}${key ? '\n  key: "ek_…", // made by your backend: POST /v1/realtime/client_secrets' : ""}
  session: ${indented(JSON.stringify(session, null, 2), 2)},
});
parley.on("item", ({ role, text }) => console.log(role, text));
parley.on("problem", ({ message, advice }) => console.error(message, advice));
parley.on("call", ({ callId, name, arguments: args }) => {
  console.log("called", name, args);
  parley.answer(callId, { ok: true });
});

document.querySelector("button").onclick = () => parley.connect();
`;
}

/** @param {Parameters<typeof codeFor>[0]} chosen */
function python({ model, key, session }) {
  return `import base64

from openai import OpenAI

client = OpenAI(
    base_url="${location.origin}/v1",
    api_key="${key ? "sk-…" : "not-needed-on-loopback"}",
)
session = ${indented(pythonic({ type: "realtime", ...session }), 0)}

with client.realtime.connect(model="${model || "starter"}") as connection:
    connection.session.update(session=session)
    # Send sound with connection.input_audio_buffer.append(audio=…), or write:
    part = {"type": "input_text", "text": "hello"}
    item = {"type": "message", "role": "user", "content": [part]}
    connection.conversation.item.create(item=item)
    connection.response.create()
    for event in connection:
        if event.type == "response.output_audio.delta":
            pcm = base64.b64decode(event.delta)  # 24 kHz, mono, 16 bit
        elif event.type == "response.output_audio_transcript.delta":
            print(event.delta, end="", flush=True)
        elif event.type == "response.done":
            break
`;
}

/** @param {string} text @param {number} width */
function indented(text, width) {
  return text.replaceAll("\n", `\n${" ".repeat(width)}`);
}

/** @param {any} value @param {string} [margin] @returns {string} as Python writes it */
function pythonic(value, margin = "") {
  const inner = `${margin}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((each) => `${inner}${pythonic(each, inner)},\n`).join("")}${margin}]`;
  }
  if (typeof value === "object") {
    const rows = Object.entries(value).map(([key, each]) => `${inner}${JSON.stringify(key)}: ${pythonic(each, inner)},\n`);
    return rows.length > 0 ? `{\n${rows.join("")}${margin}}` : "{}";
  }
  return JSON.stringify(value);
}

/** @param {() => Parameters<typeof codeFor>[0]} chosen @returns {() => void} shows it anew */
export function showCode(chosen) {
  const language = () => /** @type {any} */ (document.querySelector("[name=language]:checked")).value;
  const render = () => { $("code").textContent = codeFor(chosen(), language()); };
  for (const radio of document.querySelectorAll("[name=language]")) radio.addEventListener("change", render);
  $("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText($("code").textContent);
      $("copy").textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren($("code")); // an insecure page may not; the user can
      $("copy").textContent = "Press Ctrl+C";
    }
    setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
  };
  render();
  return render;
}
