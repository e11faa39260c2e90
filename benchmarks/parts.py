"""What a frame costs, part by part, from the engine's own counters."""

from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue

from benchmarks.report import ROOT, Row
from model.assemble.starter import load_engine
from model.engine.local import LocalEngine
from model.files.sound import read_sound
from model.messages import Output
from model.training.evaluation.conversation import Script, UserTurn, converse
from server.config.settings import Settings

_NUM_TURNS = 6
_UNPACED_MS = 3_600_000  # a reply need not wait for anybody to hear it


def measure_parts(settings: Settings, question: Path) -> Row:
    """Let the engine work alone, one conversation, and divide its time by what it did.

    Args:
        settings: of the engine.
        question: wav file that every turn plays.

    Returns:
        Milliseconds for each 80 ms frame: `encode_ms` of those heard, `depth_ms` and `decode_ms` of
        those spoken, `lm_ms` of all of them, steps without audio shared out over the frames;
        `real_time_factor`, time in the engine for each second heard or spoken.
    """
    config = replace(settings.engine.core, ahead_ms=_UNPACED_MS)
    engine = load_engine(ROOT / settings.model.dir, config)
    pcm = read_sound(question, engine.info.sample_rate_hz)
    outputs: SimpleQueue[Output] = SimpleQueue()
    engine.start(outputs.put)
    try:
        # The first turn compiles, allocates and fills caches; the counters are read after it.
        _hold(engine, outputs, "warm-up", [UserTurn("", pcm)])
        before = _counters(engine)
        _hold(engine, outputs, "measured", [UserTurn("", pcm)] * _NUM_TURNS)
        after = _counters(engine)
    finally:
        engine.stop()
    # Counters only grow, and what was spent is the difference. For example, 300 frames were heard
    # and 150 spoken in 27 s of ticks: 450 · 0.08 = 36 s of talk, and a real-time factor of 0.75.
    spent = {name: after[name] - before[name] for name in after}
    heard, spoken = spent["frames_heard"], spent["frames_spoken"]
    frame_s = engine.info.frame_ms / 1000
    return {
        "frames_heard": int(heard),
        "frames_spoken": int(spoken),
        "encode_ms": round(1000 * spent["encode_seconds"] / heard, 2),
        "lm_ms": round(1000 * spent["lm_seconds"] / (heard + spoken), 2),
        "depth_ms": round(1000 * spent["depth_seconds"] / spoken, 2),
        "decode_ms": round(1000 * spent["decode_seconds"] / spoken, 2),
        "real_time_factor": round(spent["tick_seconds"] / ((heard + spoken) * frame_s), 3),
    }


def _hold(
    engine: LocalEngine, outputs: SimpleQueue[Output], name: str, turns: list[UserTurn]
) -> None:
    script = Script(name, engine.info.voices[0], tuple(turns))
    for _, answers in converse(engine, outputs, [script], max_parallel=1):
        failures = [answer.failure for answer in answers if answer.failure]
        assert not failures, f"the engine failed: {failures}"


def _counters(engine: LocalEngine) -> dict[str, float]:
    counters = asdict(engine.metrics)
    return {name: value for name, value in counters.items() if isinstance(value, int | float)}
