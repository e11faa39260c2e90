// The log of events: filtered, searched, downloaded.
import { $, download, el } from "./dom.js";

const KEPT = 5_000;
const SHOWN = 200;

/** @typedef {{direction: "in" | "out", event: any, atMs: number}} Entry */

/** @param {import("../parley-client.js").Parley} parley */
export function showEvents(parley) {
  /** @type {Entry[]} */
  let entries = [];
  let beganMs = performance.now();
  let isStale = false;

  const isWanted = (/** @type {Entry} */ { direction, event }) => {
    const filter = $("event-filter").value;
    const search = $("event-search").value.trim().toLowerCase();
    const isDelta = event.type.endsWith(".delta") || event.type === "input_audio_buffer.append";
    return (
      (filter !== "no-deltas" || !isDelta) &&
      (!["in", "out"].includes(filter) || filter === direction) &&
      (filter !== "error" || event.type === "error" || event.response?.status === "failed") &&
      (!search || JSON.stringify(event).toLowerCase().includes(search))
    );
  };

  const render = () => {
    isStale = false;
    if ($("panel-events").hidden) return;
    const wanted = entries.filter(isWanted);
    $("event-count").textContent = `${wanted.length} of ${entries.length} events`;
    const open = new Set([...$("events").querySelectorAll("details[open]")].map((each) => each.dataset.id));
    $("events").replaceChildren(...wanted.slice(-SHOWN).reverse().map((entry) => row(entry, beganMs, open)));
  };
  const later = () => {
    if (isStale) return;
    isStale = true;
    setTimeout(render, 150);
  };

  parley.on("wire", (entry) => {
    entries.push({ ...entry, event: shortened(entry.event) });
    if (entries.length > KEPT) entries = entries.slice(-KEPT * 0.9);
    later();
  });
  parley.on("status", (status) => {
    if (status !== "connecting") return;
    entries = [];
    beganMs = performance.now();
    later();
  });
  $("event-filter").onchange = render;
  $("event-search").oninput = render;
  $("event-clear").onclick = () => {
    entries = [];
    render();
  };
  $("event-download").onclick = () => {
    const lines = entries.map(({ direction, event, atMs }) =>
      JSON.stringify({ at_ms: Math.round(atMs - beganMs), direction, event }));
    download("parley-events.jsonl", `${lines.join("\n")}\n`);
  };
  return render;
}

/** @param {Entry} entry @param {number} beganMs @param {Set<string | undefined>} open */
function row({ direction, event, atMs }, beganMs, open) {
  const details = el("details", { "data-id": `${direction}${event.event_id}` },
    el("summary", {},
      el("span", { class: `way ${direction}`, title: direction === "in" ? "received" : "sent" }, direction === "in" ? "↓" : "↑"),
      el("span", { class: event.type === "error" ? "bad" : "" }, event.type),
      el("time", {}, `${((atMs - beganMs) / 1000).toFixed(2)} s`)));
  const fill = () => { if (details.open && details.children.length < 2) details.append(el("pre", {}, JSON.stringify(event, null, 2))); };
  details.addEventListener("toggle", fill);
  details.open = open.has(details.dataset.id);
  fill();
  return el("li", {}, details);
}

/** Leave sound and pictures out; they are long, and nobody reads them. @param {any} value @returns {any} */
function shortened(value) {
  if (typeof value === "string" && value.length > 2_000) return `${value.slice(0, 40)}… (${value.length} characters)`;
  if (Array.isArray(value)) return value.map(shortened);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shortened(each)]));
  }
  return value;
}
