// The playground: puts the client of parley-client.js and the panels together.
import { FileInput, Parley, ParleyError, openCamera, takePicture } from "../parley-client.js";
import { showCode } from "./code.js";
import { $, el } from "./dom.js";
import { showEvents } from "./events.js";
import { showLatency } from "./latency.js";
import { Settings } from "./settings.js";
import { showStage } from "./stage.js";
import { Tools } from "./tools.js";
import { showTranscript } from "./transcript.js";

const IDEAS = ["what is two plus two", "what is the capital of france", "my name is peter", "count from one to ten"];
const STATUS = { closed: "Not connected", connecting: "Connecting…", connected: "Connected" };

/** For the console, and for whoever tries the page out. */
export const parley = new Parley();
const settings = new Settings(changed);
const tools = new Tools((list) => {
  parley.update({ tools: list });
  showCodeAgain();
});
/** @type {FileInput | null} */
let files = null;
/** @type {MediaStreamTrack | null} */
let camera = null;

showStage(parley);
showTranscript(parley, (callId, name) => tools.answer(parley, callId, name));
showLatency(parley);
const showEventsAgain = showEvents(parley);
const showCodeAgain = showCode(() => ({
  transport: settings.get("transport"),
  model: settings.get("model"),
  key: settings.get("key"),
  session: { ...settings.session, ...(tools.list.length > 0 && { tools: tools.list }) },
}));

async function connect() {
  $("problems").replaceChildren();
  parley.key = settings.get("key").trim();
  parley.model = settings.get("model");
  parley.transport = /** @type {"webrtc" | "websocket"} */ (settings.get("transport"));
  parley.session = { ...settings.session, tools: tools.list };
  try {
    camera = await chosenCamera();
    await parley.connect({ microphone: chosenMicrophone(), camera });
    await parley.setSpeaker(settings.get("speaker"));
  } catch (error) {
    report(error);
    closeInputs();
  }
  settings.showDevices();
}

/** What speaks, as `connect` and `setMicrophone` take it. */
function chosenMicrophone() {
  const source = settings.get("source");
  if (source === "none") return null;
  if (source === "microphone") return settings.get("microphone");
  files ??= new FileInput();
  return files.track;
}

async function chosenCamera() {
  const id = settings.get("camera");
  if (!id) return null;
  try {
    return await openCamera(id === "any" ? "" : id);
  } catch (error) {
    report(error);
    return null;
  }
}

function closeInputs() {
  files?.close();
  files = null;
  camera?.stop();
  camera = null;
  showCamera();
}

function showCamera() {
  $("preview").hidden = camera === null;
  $("preview").srcObject = camera && new MediaStream([camera]);
  if (camera) $("preview").play();
}

/** Bring a changed setting into force. @param {string} name */
async function changed(name) {
  showCodeAgain();
  showButtons();
  if (name === "key") loadModels();
  if (parley.status !== "connected") return;
  try {
    if (name === "microphone" || name === "source") await parley.setMicrophone(chosenMicrophone());
    if (name === "speaker") await parley.setSpeaker(settings.get("speaker"));
    if (name === "camera") await changeCamera();
  } catch (error) {
    report(error);
  }
  if (name === "voice") parley.update({ audio: { output: { voice: settings.get("voice") } } });
  if (name === "speed") parley.update({ audio: { output: { speed: Number(settings.get("speed")) } } });
  if (name === "instructions") parley.update({ instructions: settings.get("instructions") });
  if (["detection", "eagerness", "silence"].includes(name)) {
    parley.update({ audio: { input: { turn_detection: settings.detection } } });
  }
}

async function changeCamera() {
  camera?.stop();
  camera = await chosenCamera();
  await parley.setCamera(camera);
  showCamera();
}

/** Say what went wrong, and what to do. @param {any} error */
function report(error) {
  const box = $("problems");
  const text = error.message;
  if ([...box.children].some((each) => each.dataset.text === text)) return;
  box.append(el("div", { class: "problem", "data-text": text },
    el("div", {}, el("b", {}, text), error.advice ? el("p", {}, error.advice) : ""),
    el("button", {
      type: "button", class: "quiet", "aria-label": "Dismiss",
      onclick: (/** @type {any} */ { target }) => target.closest(".problem").remove(),
    }, "✕")));
  while (box.children.length > 3) box.firstChild.remove();
}

function showButtons() {
  const isOn = parley.status === "connected";
  const isByHand = settings.get("detection") === "none";
  const source = settings.get("source");
  $("status").dataset.state = parley.status;
  $("status-text").textContent = STATUS[parley.status];
  const start = source === "microphone" ? "Start talking" : "Connect";
  $("connect").textContent = parley.status === "closed" ? start : "Hang up";
  $("connect").classList.toggle("danger", parley.status !== "closed");
  $("press").hidden = $("press-hint").hidden = !isByHand || source === "none";
  $("press").disabled = !isOn;
  $("press").setAttribute("aria-pressed", String(parley.isPressed));
  $("mute").disabled = !isOn || source === "none";
  $("mute").setAttribute("aria-pressed", String(parley.isMuted));
  $("mute").firstChild.textContent = parley.isMuted ? "Unmute" : "Mute";
  $("stop").disabled = !isOn || !parley.isReplying;
  $("speak-file").hidden = source !== "files";
  for (const id of ["text", "send", "picture", "speak-file"]) $(id).disabled = !isOn;
  for (const field of ["transport", "model", "key"]) {
    for (const each of document.querySelectorAll(`#settings [name=${field}]`)) {
      /** @type {any} */ (each).disabled = parley.status !== "closed";
    }
  }
}

async function loadModels() {
  parley.key = settings.get("key").trim();
  try {
    const served = await parley.models();
    settings.offer("model", served.map(({ id }) => [id, id]));
    const model = served.find(({ id }) => id === settings.get("model"));
    $("model-note").textContent = model?.id ?? "";
    $("model-note").title = model?.description ?? "";
    settings.offer("voice", [["", "Default"], ...(model?.voices ?? []).map((name) => /** @type {[string, string]} */ ([name, name]))]);
  } catch (error) {
    settings.offer("model", [["", "the server's"]]);
    report(error);
  }
  showCodeAgain();
}

/** @param {string} text @param {string[]} [images] */
function say(text, images) {
  if (parley.status === "connected" && (text || images)) parley.type(text, images);
}

// The call.
parley.on("status", (status) => {
  if (status === "closed") closeInputs();
  showButtons();
  if (status !== "connected") return;
  showCamera();
  if (parley.isPushToTalk) $("press").focus(); // else the space bar would hang up
});
for (const name of ["speaking", "muted"]) parley.on(name, showButtons);
parley.on("wire", ({ event }) => {
  if (["response.created", "response.done"].includes(event.type)) queueMicrotask(showButtons);
});
parley.on("problem", report);
parley.on("microphone", (track) => {
  if (track || parley.status === "connected") settings.showDevices();
});
$("connect").onclick = () => (parley.status === "closed" ? connect() : parley.hangUp());
$("mute").onclick = () => parley.mute(!parley.isMuted);
$("stop").onclick = () => parley.interrupt();

// Push to talk: the button by pointer or keyboard, and the space bar wherever it types nothing.
$("press").onpointerdown = (/** @type {PointerEvent} */ event) => {
  $("press").setPointerCapture(event.pointerId);
  parley.press();
};
$("press").onpointerup = $("press").onpointercancel = () => parley.release();
$("press").onclick = (/** @type {MouseEvent} */ { detail }) => {
  if (detail > 0) return; // it was the pointer; what has none begins with one click and ends with another
  if (parley.isPressed) parley.release();
  else parley.press();
};
addEventListener("keydown", (event) => {
  if (event.code !== "Space" || event.repeat || !parley.isPushToTalk || isTyping(event.target)) return;
  event.preventDefault();
  parley.press();
});
addEventListener("keyup", (event) => {
  if (event.code !== "Space" || !parley.isPressed) return;
  event.preventDefault();
  parley.release();
});
addEventListener("blur", () => parley.release());

/** @param {any} target */
function isTyping(target) {
  return target !== $("press") && target.closest("input, textarea, select, button, summary, a, [role=tab]") !== null;
}

// Writing, pictures and files.
$("composer").onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  say($("text").value.trim());
  $("text").value = "";
};
$("picture").onclick = async () => {
  if (camera) say("", [await takePicture(camera)]);
  else $("picture-file").click();
};
$("picture-file").onchange = async () => {
  const [file] = $("picture-file").files;
  $("picture-file").value = "";
  if (!file) return;
  try {
    say($("text").value.trim(), [await takePicture(file)]);
    $("text").value = "";
  } catch (error) {
    report(error);
  }
};
$("speak-file").onclick = () => $("sound-file").click();
$("sound-file").onchange = async () => {
  const [file] = $("sound-file").files;
  $("sound-file").value = "";
  if (!file || !files) return;
  if (parley.isPushToTalk) parley.press();
  await files.speak(file).catch(report);
  if (parley.isPushToTalk) await parley.release();
};
$("ideas").append(...IDEAS.map((idea) => el("li", {}, `“${idea}”`)));

// Views of a narrow window, tabs and themes.
const views = [...document.querySelectorAll("#views button")];
for (const button of views) {
  button.addEventListener("click", () => {
    const { view } = /** @type {HTMLElement} */ (button).dataset;
    /** @type {any} */ (document.querySelector("main")).dataset.view = view;
    for (const each of views) each.setAttribute("aria-current", String(each === button));
  });
}
const tabs = [...$("tabs").children];
const choose = (/** @type {any} */ tab) => {
  for (const each of tabs) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = each !== tab;
  }
  showEventsAgain();
};
for (const tab of tabs) tab.onclick = () => choose(tab);
$("tabs").onkeydown = (/** @type {KeyboardEvent} */ event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  choose(next);
  next.focus();
};
const THEMES = ["system", "light", "dark"];
const showTheme = (/** @type {string} */ theme) => {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-label", `Theme: ${theme}`);
  $("theme").title = `Theme: ${theme}`;
  $("theme").textContent = { system: "◐", light: "☀", dark: "☾" }[theme] ?? "";
};
$("theme").onclick = () => {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3];
  localStorage.setItem("parley.theme", theme);
  showTheme(theme);
};
showTheme(localStorage.getItem("parley.theme") ?? "system");

if (!isSecureContext) report(new ParleyError("insecure_origin", "Here the browser gives no microphone."));
settings.showDevices();
showButtons();
loadModels();
