"""What does the host do of a frame, when hundreds of duplex sessions share one device?

Regime: everything of a frame but the networks, on one thread: what clients sent is taken in, every
session's step is planned, inputs and places in memory are laid out for the device, and what came
back becomes each session's outputs. The networks are captured as on a CUDA device; here the
captured work is not done again, and what it gave once is given every time, with text and sound in
it, so that there is something to hand out. Every session hears and speaks in every frame. The
model is a random twin; sizes of networks do not matter to the host, except the width of a frame.

Times are the thread's own, so it does not matter what else the machine does. What copying to a
device and launching a graph cost is not in them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import thread_time
from unittest import mock

import numpy as np
import torch

from benchmarks.report import ROOT, Row, keep, percentile, print_table, provenance
from model.assemble.twin import make_twin
from model.duplex.audio import AudioDuplex, AudioFrame
from model.duplex.engine import DuplexEngine
from model.engine.config import EngineConfig
from model.messages import AppendAudio, Open, Respond, ResponseAudio
from model.transformer.graphs import FrameGraphs

FRAME_MS = 80.0
# If the time grows faster than the number, something is done for each pair of sessions.
SESSIONS = (1, 16, 64, 256)
_WARM_UP_FRAMES = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=60, help="of each number of sessions (60)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [measure(number, args.frames) for number in SESSIONS]
    print_table(rows)
    result = {"host": rows, "warm_up_frames": _WARM_UP_FRAMES}
    source = provenance(ROOT / "configs" / "moshi-tiny.yaml")
    keep("host", source, result, is_saved=not args.no_save)
    return 0


def measure(num_sessions: int, num_frames: int) -> Row:
    """Time frames of so many sessions, without the networks."""
    clock = _Clock()
    engine = _engine(num_sessions, clock)
    # All are opened at once and stay: opening and closing are not part of a frame.
    names = [str(number) for number in range(num_sessions)]
    for name in names:
        engine.apply(Open(name, engine.info.voices[0]))
        # A duplex model is asked once and may speak whenever it likes.
        engine.apply(Respond(name, 1, f"reply {name}", is_standing=True))
    rng = np.random.default_rng(0)
    samples = engine.info.sample_rate_hz * engine.info.frame_ms // 1000
    taken_in_ms, tick_ms, num_spoken = [], [], 0
    for frame in range(_WARM_UP_FRAMES + num_frames):
        sound = rng.normal(0, 0.1, (num_sessions, samples)).astype(np.float32)
        start_s = thread_time()
        for name, pcm in zip(names, sound, strict=True):
            engine.apply(AppendAudio(name, pcm))
        middle_s = thread_time()
        # The next frame is due exactly now. So every tick has all sessions, and none is late.
        clock.now_s += FRAME_MS / 1000
        outputs = engine.tick()
        end_s = thread_time()
        if frame >= _WARM_UP_FRAMES:
            taken_in_ms.append(1000 * (middle_s - start_s))
            tick_ms.append(1000 * (end_s - middle_s))
            num_spoken += sum(isinstance(output, ResponseAudio) for output in outputs)
    frames = num_sessions * num_frames
    # A host that does nothing would be very fast.
    assert num_spoken == frames, f"{frames} frames should have been said, {num_spoken} were"
    return {
        "sessions": num_sessions,
        "taking in, ms": round(percentile(taken_in_ms, 50), 2),
        "tick p50 ms": round(percentile(tick_ms, 50), 2),
        "tick p99 ms": round(percentile(tick_ms, 99), 2),
        "of a frame, %": round(
            100 * (percentile(taken_in_ms, 50) + percentile(tick_ms, 50)) / FRAME_MS, 1
        ),
    }


class _Clock:
    """Seconds that pass only when they are told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def _engine(num_sessions: int, clock: Callable[[], float]) -> DuplexEngine:
    """Return an engine whose networks answer at once, always the same."""
    config = EngineConfig(max_sessions=num_sessions, max_batch=num_sessions)
    parts = make_twin("moshi", 1, "moshi-tiny")

    def captured(work: Callable[[], AudioFrame]) -> Callable[[], AudioFrame]:
        made = work()
        # Silence may be left out on the way to the client; sound has to be handed over.
        loud = torch.full_like(made.pcm, 0.1)
        frame = replace(made.frame, tokens=torch.zeros_like(made.frame.tokens))
        return lambda: AudioFrame(frame, loud)

    def stepper(driven: AudioDuplex) -> Callable[..., AudioFrame]:
        return FrameGraphs(driven, captured, (num_sessions,)).step

    where = "model.duplex.runner"
    with (
        # The runner asks what its device can do. It is told what it would hear on a CUDA device, so
        # that the same path is taken.
        mock.patch(f"{where}.reading_on", return_value="reference"),
        mock.patch(f"{where}.stepper", stepper),
    ):
        return DuplexEngine(parts, config, clock=clock)


if __name__ == "__main__":
    sys.exit(main())
