// The waveforms of both sides, and their levels.
import { $ } from "./dom.js";

const BAR_PX = 3;
const GAP_PX = 2;
const FLOOR_DB = -60;

/** One side: bars of 40 ms that move to the left. */
class Lane {
  /** @param {"user" | "assistant"} who */
  constructor(who) {
    this.canvas = $(`wave-${who}`);
    this.meter = $(`level-${who}`);
    this.lane = this.canvas.closest(".lane");
    /** @type {number[]} peaks, the newest last */
    this.peaks = [];
    this.pending = 0;
    this.half = false;
  }

  /** @param {Float32Array} samples 20 ms */
  hear(samples) {
    for (const sample of samples) this.pending = Math.max(this.pending, Math.abs(sample));
    this.half = !this.half;
    if (this.half) return;
    this.peaks.push(this.pending);
    if (this.peaks.length > 600) this.peaks.shift();
    this.pending = 0;
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(canvas).color;
    for (let n = 0, x = width - BAR_PX; x > -BAR_PX; n++, x -= BAR_PX + GAP_PX) {
      const peak = this.peaks.at(-1 - n) ?? 0;
      // The root lets a soft voice be seen beside a loud one.
      const size = Math.max(BAR_PX, Math.min(1, Math.sqrt(peak)) * (height - 4));
      pen.globalAlpha = peak > 0.005 ? 0.25 + 0.75 * Math.max(0, x / width) : 0.22;
      pen.beginPath();
      pen.roundRect(x, (height - size) / 2, BAR_PX, size, BAR_PX / 2);
      pen.fill();
    }
    const peak = Math.max(...this.peaks.slice(-4), 0);
    this.meter.value = peak > 0 ? Math.max(FLOOR_DB, 20 * Math.log10(peak)) : FLOOR_DB;
  }
}

/** Draws as long as there is something to see. @param {import("../parley-client.js").Parley} parley */
export function showStage(parley) {
  const lanes = { user: new Lane("user"), assistant: new Lane("assistant") };
  let isDrawing = false;
  const draw = () => {
    lanes.user.draw();
    lanes.assistant.draw();
    isDrawing = parley.status !== "closed";
    if (isDrawing) requestAnimationFrame(draw);
  };
  parley.on("sound", ({ who, samples }) => lanes[/** @type {"user" | "assistant"} */ (who)].hear(samples));
  parley.on("speaking", ({ who, isSpeaking }) => {
    lanes[/** @type {"user" | "assistant"} */ (who)].lane.classList.toggle("speaking", isSpeaking);
  });
  parley.on("status", (status) => {
    if (status === "closed") {
      for (const lane of Object.values(lanes)) {
        lane.lane.classList.remove("speaking");
        lane.peaks = [];
      }
    }
    if (!isDrawing) draw();
  });
  addEventListener("resize", () => { if (!isDrawing) draw(); });
  draw();
}
