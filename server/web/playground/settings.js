// The form at the side: what the next call is like, and what of it can change while one is going on.
import { listDevices } from "../parley-client.js";
import { $, el } from "./dom.js";

const STORE = "parley.settings";
// Keys stay in the page: nothing that is typed into a password field is kept.
const KEPT = ["transport", "model", "source", "detection", "eagerness", "silence", "voice", "speed", "instructions"];

/** The settings form. */
export class Settings {
  /** @param {(name: string) => void} onchange told the name of the field */
  constructor(onchange) {
    this.form = $("settings");
    this.onchange = onchange;
    this.restore();
    this.form.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
    this.form.addEventListener("input", () => this.show());
    this.form.addEventListener("change", (/** @type {any} */ { target }) => {
      this.keep();
      this.show();
      onchange(target.name);
    });
    this.show();
    navigator.mediaDevices?.addEventListener("devicechange", () => this.showDevices());
  }

  /** @param {string} name @returns {string} */
  get(name) {
    return this.form.elements[name].value;
  }

  /** The part of the session that the form sets. */
  get session() {
    const voice = this.get("voice");
    const speed = Number(this.get("speed"));
    const instructions = this.get("instructions").trim();
    return {
      ...(instructions && { instructions }),
      audio: {
        input: { transcription: { model: "whisper-1" }, turn_detection: this.detection },
        ...((voice || speed !== 1) && { output: { ...(voice && { voice }), ...(speed !== 1 && { speed }) } }),
      },
    };
  }

  get detection() {
    const type = this.get("detection");
    if (type === "none") return null;
    return type === "semantic_vad"
      ? { type, eagerness: this.get("eagerness") }
      : { type, silence_duration_ms: Number(this.get("silence")) };
  }

  /** Show what belongs to the choices, and the values of the sliders. */
  show() {
    for (const part of this.form.querySelectorAll("[data-for]")) {
      part.hidden = ![this.get("detection"), this.get("source")].includes(part.dataset.for);
    }
    $("silence-value").textContent = `${this.get("silence")} ms`;
    $("speed-value").textContent = `${Number(this.get("speed"))}×`;
  }

  keep() {
    const values = Object.fromEntries(KEPT.map((name) => [name, this.get(name)]));
    try {
      localStorage.setItem(STORE, JSON.stringify(values));
    } catch { /* a browser that keeps nothing */ }
  }

  restore() {
    /** @type {Record<string, string>} */
    let values = {};
    try {
      values = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    } catch { /* nothing was kept */ }
    for (const [name, value] of Object.entries(values)) {
      const field = KEPT.includes(name) && this.form.elements[name];
      if (!field) continue;
      // Models and voices are asked for later.
      if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) {
        field.append(el("option", { value }, value || "Default"));
      }
      field.value = value;
    }
  }

  /** @param {string} name of a select @param {[string, string][]} options values and texts */
  offer(name, options) {
    const field = this.form.elements[name];
    const { value } = field;
    field.replaceChildren(...options.map(([each, text]) => el("option", { value: each }, text)));
    field.value = options.some(([each]) => each === value) ? value : options[0]?.[0] ?? "";
  }

  async showDevices() {
    const { microphones, speakers, cameras } = await listDevices();
    const named = (/** @type {MediaDeviceInfo[]} */ devices) =>
      devices
        .filter(({ deviceId }) => deviceId !== "default")
        .map(({ deviceId, label }) => /** @type {[string, string]} */ ([deviceId, label || "A device without a name"]));
    this.offer("microphone", [["", "Default"], ...named(microphones)]);
    this.offer("speaker", [["", "Default"], ...named(speakers)]);
    // Before it may be used, a camera has no name and no id; it can be asked for all the same.
    const known = named(cameras);
    this.offer("camera", [["", "Off"], ...(known.length > 0 ? known : [/** @type {[string, string]} */ (["any", "On"])])]);
  }
}
