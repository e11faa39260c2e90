// A small client of the Realtime API: microphone in, voice out, both sides' words on the page.
const RATE_HZ = 24000;

const $ = (id) => document.getElementById(id);

function toBase64(samples) {
  const pcm = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => {
    const clipped = Math.max(-1, Math.min(1, sample));
    pcm.setInt16(i * 2, Math.round(clipped * 32767), true);
  });
  return btoa(String.fromCharCode(...new Uint8Array(pcm.buffer)));
}

function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const pcm = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => pcm.getInt16(i * 2, true) / 32768);
}

// Plays one reply after the other, and knows how much of an item has been heard.
class Player {
  constructor(context) {
    this.context = context;
    this.sources = new Set();
    this.itemId = null;
    this.startS = 0;
    this.endS = 0;
  }

  play(itemId, samples) {
    if (itemId !== this.itemId) {
      this.itemId = itemId;
      this.startS = this.endS = Math.max(this.context.currentTime + 0.02, this.endS);
    }
    const buffer = this.context.createBuffer(1, samples.length, RATE_HZ);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    // Late audio starts now; what was waited for counts as not played.
    const lateS = Math.max(0, this.context.currentTime - this.endS);
    this.startS += lateS;
    source.start(this.endS + lateS);
    this.endS += lateS + buffer.duration;
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  // Stops at once; returns what was cut off, if anything was.
  stop() {
    const nowS = this.context.currentTime;
    for (const source of this.sources) source.stop();
    this.sources.clear();
    if (this.itemId === null || nowS >= this.endS) return null;
    const cut = { itemId: this.itemId, heardMs: Math.max(0, Math.floor((nowS - this.startS) * 1000)) };
    this.itemId = null;
    this.endS = nowS;
    return cut;
  }
}

class Conversation {
  constructor(socket, player) {
    this.socket = socket;
    this.player = player;
    this.lines = new Map();
  }

  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  // The line of an item; made when its item appears, so that the order is the conversation's.
  line(itemId, role) {
    if (!this.lines.has(itemId)) {
      const line = document.createElement("li");
      line.className = role;
      line.textContent = "…";
      $("conversation").append(line);
      this.lines.set(itemId, { line, text: "" });
    }
    return this.lines.get(itemId);
  }

  write(itemId, role, text, isWhole = false) {
    const entry = this.line(itemId, role);
    entry.text = isWhole ? text : entry.text + text;
    entry.line.textContent = entry.text || "…";
    entry.line.scrollIntoView({ block: "end" });
  }

  note(text) {
    const line = document.createElement("li");
    line.className = "error";
    line.textContent = text;
    $("conversation").append(line);
  }

  receive(event) {
    switch (event.type) {
      case "session.created":
        this.configure();
        break;
      case "input_audio_buffer.speech_started":
        this.interrupt();
        this.line(event.item_id, "user");
        break;
      case "conversation.item.added":
        if (event.item.role !== "system") this.line(event.item.id, event.item.role);
        for (const part of event.item.content) {
          if (part.text) this.write(event.item.id, event.item.role, part.text, true);
        }
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.write(event.item_id, "user", event.delta);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.write(event.item_id, "user", event.transcript, true);
        break;
      case "response.output_audio_transcript.delta":
        this.write(event.item_id, "assistant", event.delta);
        break;
      case "response.output_audio.delta":
        this.player.play(event.item_id, fromBase64(event.delta));
        break;
      case "error":
        this.note(event.error.message);
        break;
    }
  }

  configure() {
    const voice = $("voice").value;
    this.send({
      type: "session.update",
      session: {
        type: "realtime",
        audio: {
          input: { transcription: { model: "whisper-1" }, turn_detection: { type: $("turns").value } },
          ...(voice && { output: { voice } }),
        },
      },
    });
  }

  interrupt() {
    const cut = this.player.stop();
    if (cut === null) return;
    this.line(cut.itemId, "assistant").line.classList.add("cut");
    this.send({
      type: "conversation.item.truncate",
      item_id: cut.itemId,
      content_index: 0,
      audio_end_ms: cut.heardMs,
    });
  }

  type(text) {
    this.interrupt();
    const content = [{ type: "input_text", text }];
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.send({ type: "response.create" });
  }
}

let live = null;

function showStatus(text, isLive) {
  $("status").textContent = text;
  $("talk").textContent = isLive ? "Stop" : "Start talking";
  $("text").disabled = !isLive;
}

async function start() {
  showStatus("waiting for the microphone", true);
  const context = new AudioContext({ sampleRate: RATE_HZ });
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  await context.audioWorklet.addModule("capture.js");
  const capture = new AudioWorkletNode(context, "capture");
  context.createMediaStreamSource(microphone).connect(capture);

  const key = $("key").value;
  const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/v1/realtime`, protocols);
  const conversation = new Conversation(socket, new Player(context));
  live = { conversation, context, microphone, socket };
  $("conversation").replaceChildren();
  capture.port.onmessage = ({ data }) =>
    conversation.send({ type: "input_audio_buffer.append", audio: toBase64(data) });
  socket.onopen = () => showStatus("connected: speak", true);
  socket.onmessage = ({ data }) => conversation.receive(JSON.parse(data));
  socket.onclose = ({ reason }) => stop(reason || "not connected");
}

function stop(reason = "not connected") {
  const stopped = live;
  live = null;
  showStatus(reason, false);
  if (stopped === null) return;
  for (const track of stopped.microphone.getTracks()) track.stop();
  stopped.context.close();
  stopped.socket.close();
}

$("talk").onclick = () => (live ? stop() : start().catch((error) => stop(error.message)));
$("typed").onsubmit = (event) => {
  event.preventDefault();
  if (live && $("text").value.trim()) live.conversation.type($("text").value.trim());
  $("text").value = "";
};
