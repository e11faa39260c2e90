"""How long does a person wait for the answer, and what does a second of talk cost?

Regime: the real server in a process of its own on this machine's CPU, clients over loopback, audio
paced in real time, default server VAD. One caller, then four independent ones (their turns begin
at random moments). Every latency is measured at the client:

- first audio: from the server's end-of-turn decision (`speech_stopped`) to the first audio delta,
  so the VAD's wait is not in it;
- voice to voice: from the end of the speech in the question's wav to the beginning of the speech in
  the reply's, both found by loudness, so everything is in it, the VAD's wait included.

The parts (encode, LM, depth, decode) come from the engine's own counters, the engine alone in this
process, one conversation as fast as it goes. The correctness gate comes first: a bundled question
must be understood and answered right, or nothing is reported.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.parts import measure_parts
from benchmarks.report import ROOT, Row, keep, percentile, print_table, provenance
from model.files.sound import read_sound
from server.client.client import RATE_HZ, Conversation, Pcm, Turn, open_conversation
from server.client.local import local_server
from server.config.load import load_settings

ASSETS = ROOT / "tests" / "assets"
QUESTIONS = ("two_plus_two", "capital_of_france", "my_name_is_peter", "what_is_my_name")
GATE = ("what is two plus two", "two plus two is four")
# In conversations people leave gaps of about 200 ms between turns. Source: Stivers et al. 2009,
# "Universals and cultural variation in turn-taking in conversation", PNAS 106(26).
BAR_MS = {"p50": 100.0, "p95": 200.0}  # first audio, one session, two cores

_WARM_UP_TURNS = 2
# Room noise and the rest of a breath are below that, the softest syllables are above.
_LOUD_DB = -35.0  # below the loudest 20 ms: what counts as speech in a wav
_MOST_OFFSET_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn, as one caller noticed it; times in milliseconds."""

    first_audio_ms: float
    voice_to_voice_ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "starter.yaml")
    parser.add_argument("--turns", type=int, default=20, help="a session (20)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4], help="at once (1 4)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)

    settings = load_settings(args.config)
    questions = {name: read_sound(ASSETS / f"{name}.wav", RATE_HZ) for name in QUESTIONS}
    with local_server(args.config) as url:
        if not asyncio.run(_is_right(url, questions[QUESTIONS[0]])):
            return 1
        latency = [
            _latency_row(
                num_sessions, asyncio.run(_measure(url, questions, num_sessions, args.turns))
            )
            for num_sessions in args.sessions
        ]
    parts = measure_parts(settings, ASSETS / f"{QUESTIONS[0]}.wav")

    print_table(latency)
    print()
    print_table([parts])
    is_met = _is_met(latency)
    source = provenance(args.config, ROOT / settings.model.dir)
    result = {
        "latency": latency,
        "parts": parts,
        "bar_ms": BAR_MS,
        "is_bar_met": is_met,
        "warm_up_turns": _WARM_UP_TURNS,
    }
    keep("latency", source, result, is_saved=not args.no_save)
    return 0


async def _is_right(url: str, question: Pcm) -> bool:
    async with open_conversation(url) as conversation:
        turn = await conversation.say(question)
    # A server that answers nonsense can answer it very fast.
    if (turn.transcript, turn.reply) == GATE and turn.audio_ms > 0:
        return True
    print(
        f"nothing is measured: expected {GATE} with audio, got "
        f"{(turn.transcript, turn.reply)} with {turn.audio_ms} ms",
        file=sys.stderr,
    )
    return False


async def _measure(
    url: str, questions: dict[str, Pcm], num_sessions: int, num_turns: int
) -> list[Sample]:
    """Hold conversations side by side; returns the samples of all of them."""
    async with asyncio.TaskGroup() as tasks:
        callers = [
            tasks.create_task(_call(url, questions, num_turns, seed), name=f"caller {seed}")
            for seed in range(num_sessions)
        ]
    return [sample for caller in callers for sample in caller.result()]


async def _call(url: str, questions: dict[str, Pcm], num_turns: int, seed: int) -> list[Sample]:
    """Be one caller: turns that begin at random moments after the last reply."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    async with open_conversation(url) as conversation:
        for number in range(_WARM_UP_TURNS + num_turns):
            question = questions[QUESTIONS[number % len(QUESTIONS)]]
            # Four callers who keep time with one another would meet in the same tick each time, or
            # never.
            sample = await _ask(conversation, question, rng.uniform(0.0, _MOST_OFFSET_S))
            if number >= _WARM_UP_TURNS:
                samples.append(sample)
    return samples


async def _ask(conversation: Conversation, question: Pcm, pause_s: float) -> Sample:
    # Part of what is sent, so that the turn's times stay on one clock.
    pause = np.zeros(int(pause_s * RATE_HZ), dtype=np.float32)
    spoken = np.concatenate((pause, question))
    turn = await conversation.say(spoken)
    assert turn.first_audio_ms is not None, "the gate made sure that replies have audio"
    return Sample(turn.first_audio_ms, _voice_to_voice_ms(spoken, turn))


def _voice_to_voice_ms(spoken: Pcm, turn: Turn) -> float:
    """Return the silence that a person would hear between their words and the reply's."""
    assert turn.reply_at_ms is not None
    _, question_end_ms = _speech_ms(spoken)
    reply_begin_ms, _ = _speech_ms(turn.pcm)
    # For example, the question's last sound is at 1,500 ms of the wav. The reply's first audio
    # arrives at 2,080 ms and begins with 40 ms of silence: a person hears nothing for 620 ms.
    return turn.reply_at_ms + reply_begin_ms - question_end_ms


def _speech_ms(pcm: Pcm) -> tuple[float, float]:
    """Find where speech begins and ends, by the loudness of 10 ms frames."""
    # Mean power in 10 ms: single samples cross zero all the time.
    hop = RATE_HZ // 100
    frames = pcm[: len(pcm) - len(pcm) % hop].reshape(-1, hop)
    power = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (_LOUD_DB / 10))
    return float(loud[0] * 10), float((loud[-1] + 1) * 10)


def _latency_row(num_sessions: int, samples: list[Sample]) -> Row:
    first = [sample.first_audio_ms for sample in samples]
    voice = [sample.voice_to_voice_ms for sample in samples]
    return {
        "sessions": num_sessions,
        "n": len(samples),
        "first_audio_p50_ms": percentile(first, 50),
        "first_audio_p95_ms": percentile(first, 95),
        "first_audio_max_ms": percentile(first, 100),
        "voice_to_voice_p50_ms": percentile(voice, 50),
        "voice_to_voice_p95_ms": percentile(voice, 95),
    }


def _is_met(latency: Sequence[Row]) -> bool:
    return all(
        row[f"first_audio_{name}_ms"] <= bar
        for row in latency
        if row["sessions"] == 1
        for name, bar in BAR_MS.items()
    )


if __name__ == "__main__":
    sys.exit(main())
