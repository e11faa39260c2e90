// How long each turn took, and what made it up.
import { $, el } from "./dom.js";

const PARTS = /** @type {const} */ (["detection", "network", "engine", "playback"]);
const NAMES = { detection: "turn end", network: "network", engine: "engine", playback: "playback" };

/** @param {import("../parley-client.js").Parley} parley */
export function showLatency(parley) {
  const list = $("latency");
  /** @type {import("../parley-client.js").TurnLatency[]} */
  let turns = [];
  let longest = 1000;

  parley.on("status", (status) => {
    if (status !== "connecting") return;
    turns = [];
    list.replaceChildren();
    $("latency-figure").hidden = true;
  });
  parley.on("turn", (turn) => {
    turns.push(turn);
    longest = Math.max(1000, ...turns.map(({ totalMs }) => totalMs));
    $("latency-figure").hidden = false;
    $("latency-last").textContent = `${Math.round(turn.totalMs)} ms`;
    list.prepend(row(turn, turns.length));
    for (const bar of list.querySelectorAll("[data-ms]")) bar.style.width = `${(100 * bar.dataset.ms) / longest}%`;
  });
}

/** @param {any} turn @param {number} number */
function row(turn, number) {
  const known = PARTS.filter((part) => turn[`${part}Ms`] !== null);
  const words = known.map((part) => `${NAMES[part]} ${Math.round(turn[`${part}Ms`])}`).join(" · ");
  return el("li", {},
    el("div", { class: "turn" },
      el("span", {}, `Turn ${number}${turn.kind === "typed" ? ", typed" : ""}`),
      el("b", {}, `${Math.round(turn.totalMs)} ms`)),
    el("div", { class: "stack", "aria-hidden": "true" },
      ...known.map((part) => el("i", { class: part, "data-ms": turn[`${part}Ms`] }))),
    el("p", { class: "hint" }, words));
}
