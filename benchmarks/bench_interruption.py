"""Who ends a reply: the user, and not an echo, a cough, a "mhm", music or somebody else.

    python -m benchmarks.bench_interruption [--utterances 30] [--quick]

No microphone and no clock: sounds are made from seeds by the synthesisers of the training recipe
and from numbers (`benchmarks/interruption_sounds.py`), a loudspeaker and a room are computed, and
the ears of a session hear the result. Figures other than costs are the same on every machine.

Echo paths: a reply is played, and its echo comes back by every delay and level. Double talk: a user
breaks into it, after two seconds. Interruptions: sounds of several kinds, in a quiet room with a
headset, and through a loudspeaker; before is what holds without this: 64 ms of speech interrupt,
and no echo is cancelled. Words: how many the starter hears wrongly, of what was cleaned and of what
was not.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.interruption_ears import Heard, Hearing, listen
from benchmarks.interruption_sounds import (
    BACKCHANNELS,
    QUESTIONS,
    RATE_HZ,
    SHORT_WORDS,
    Wave,
    babble,
    backchannel,
    cough,
    echoed,
    hum,
    laid,
    music,
    silence,
    spoken,
    story,
)
from benchmarks.interruption_words import Listener, utterances
from benchmarks.report import ROOT, keep, print_table, provenance
from model.training.speech.augment import add_noise
from server.audio.cleaning import EchoCanceller, NoiseKind, NoiseReducer
from server.audio.silero import SileroModel
from server.config.sound import VadSettings

DELAYS_MS = (10, 30, 60, 100, 150, 200, 300)
LEVELS_DB = (-20, -12, -6, 0)
_VOICES = ("en-us", "slt")
# Below full scale. A microphone without any noise does not exist, and voice detection treats
# perfect silence differently.
_NOISE_DB = -65.0  # of the microphone
_LEAD_S, _TAIL_S = 2.0, 1.5
# Through a loudspeaker: a laptop's, at arm's length.
_USUAL_MS, _USUAL_DB = 100, -6

# No speech is 200 dB quieter than a user, so the rule of levels never holds.
BEFORE = Hearing(
    cancels_echo=False, vad=VadSettings(interrupt_speech_ms=0, interrupt_quieter_db=200)
)
NOW = Hearing(cancels_echo=True, vad=VadSettings())

Row = dict[str, Any]  # Any: whatever a table shows


class InterruptionGateError(AssertionError):
    """Report that something broke so that no figure means anything."""


@cache
def _reply() -> Wave:
    return np.concatenate([story("slt", number) for number in range(3)])


def _hiss(length: int, seed: int) -> Wave:
    noise = np.random.default_rng(seed).standard_normal(length) * 10 ** (_NOISE_DB / 20)
    return noise.astype(np.float32)


def _power_db(pcm: Wave) -> float:
    return float(10 * np.log10(np.mean(pcm**2) + 1e-12))


@cache
def _before() -> Wave:
    """Return what the user said before the reply, which shows how loud they are."""
    return spoken("rms", QUESTIONS[0])


# Echo.


def echo_paths(
    model: SileroModel, delays_ms: Sequence[int], levels_db: Sequence[int], seconds: float
) -> list[Row]:
    """Return what is left of echoes, and how often they interrupt."""
    far = _reply()[: round(seconds * RATE_HZ)]
    rows = []
    for delay_ms in delays_ms:
        for level_db in levels_db:
            echo = echoed(far, delay_ms, level_db)
            # Nobody speaks: whatever is found in it is wrong.
            near = echo + _hiss(len(far), 0)
            before = listen(model, BEFORE, near, far, _before())
            now = listen(model, NOW, near, far, _before())
            # The canceller learns the room while the reply plays. So the first second and what
            # follows the third are told apart.
            first, rest = slice(0, RATE_HZ), slice(3 * RATE_HZ, len(now.pcm))
            rows.append(
                {
                    "delay_ms": delay_ms,
                    "level_db": level_db,
                    # For example, an echo of -30 dB of which -55 dB are left is 25 dB less. The
                    # literature calls this echo return loss enhancement (ITU-T G.168 has it as
                    # ERLE).
                    "less_first_s_db": round(_power_db(echo[first]) - _power_db(now.pcm[first])),
                    "less_after_3_s_db": round(_power_db(echo[rest]) - _power_db(now.pcm[rest])),
                    "before_interrupted": bool(before.interrupted_ms),
                    "held": len(now.suspected_ms),
                    "interrupted": len(now.interrupted_ms),
                }
            )
    return rows


def double_talk(model: SileroModel, levels_db: Sequence[int | None]) -> list[Row]:
    """Return how users are found who break into a reply: questions, two voices."""
    rows = []
    said = [spoken(voice, text) for voice in _VOICES for text in QUESTIONS]
    for level_db in levels_db:
        heard = [_in_reply(model, NOW, pcm, level_db, seed) for seed, pcm in enumerate(said)]
        # Held is when the reply falls silent, ended is when it is given up: a person notices the
        # first.
        held = [after for each in heard if (after := _first(each.suspected_ms)) is not None]
        ended = [after for each in heard if (after := _first(each.interrupted_ms)) is not None]
        rows.append(
            {
                "level_db": "no echo" if level_db is None else level_db,
                "found": f"{len(ended)}/{len(said)}",
                "held_p50_ms": round(float(np.median(held))) if held else None,
                "ended_p50_ms": round(float(np.median(ended))) if ended else None,
                "ended_max_ms": round(max(ended)) if ended else None,
                # Times count from the user's first sound, so what is negative was the echo's doing.
                "too_early": sum(any(at < 0 for at in each.interrupted_ms) for each in heard),
            }
        )
    return rows


def _in_reply(
    model: SileroModel, hearing: Hearing, sound: Wave, level_db: int | None, seed: int
) -> Heard:
    """Hear a sound in the middle of a reply; times count from its beginning."""
    lead = round(_LEAD_S * RATE_HZ)
    length = lead + len(sound) + round(_TAIL_S * RATE_HZ)
    # Each user breaks into another place of the reply. 9,973 is a prime, so places do not repeat
    # soon.
    far = np.roll(_reply(), -seed * 9_973)[:length]
    near = laid(length, [(lead, sound)]) + _hiss(length, seed)
    if level_db is not None:
        near = near + echoed(far, _USUAL_MS, level_db, seed)
    heard = listen(model, hearing, near, far, _before())
    for times in (heard.suspected_ms, heard.dismissed_ms, heard.interrupted_ms):
        times[:] = [at_ms - _LEAD_S * 1000 for at_ms in times]
    return heard


def _first(times_ms: Sequence[float]) -> float | None:
    return min((at_ms for at_ms in times_ms if at_ms >= 0), default=None)


# Sounds.


def sounds(num: int) -> dict[str, tuple[bool, list[Wave]]]:
    """Return sounds by their kind, and whether they are meant to interrupt."""

    def quieter(pcm: Wave, by_db: float) -> Wave:
        return (pcm * 10 ** (-by_db / 20)).astype(np.float32)

    seconds = 4.0
    return {
        "question": (True, [spoken(voice, text) for voice in _VOICES for text in QUESTIONS]),
        "one short word": (
            True,
            [spoken(voice, text) for voice in _VOICES for text in SHORT_WORDS],
        ),
        "cough": (False, [cough(seed) for seed in range(num)]),
        "hummed mhm": (False, [hum(seed) for seed in range(num)]),
        "spoken mhm": (False, [backchannel(v, text) for v in _VOICES for text in BACKCHANNELS]),
        "music, -6 dB": (False, [quieter(music(seed, seconds), 6) for seed in range(num // 2)]),
        "babble, -20 dB": (False, [quieter(babble(seed, seconds), 20) for seed in range(num // 2)]),
        "babble, -15 dB": (False, [quieter(babble(seed, seconds), 15) for seed in range(num // 2)]),
        "babble, -10 dB": (False, [quieter(babble(seed, seconds), 10) for seed in range(num // 2)]),
        "nothing": (False, [silence(seconds)] * (num // 2)),
    }


def interruptions(model: SileroModel, num: int) -> list[Row]:
    """Return which kinds of sounds end a reply."""
    rows = []
    for kind, (is_meant, made) in sounds(num).items():
        row: Row = {"sound": kind, "meant": is_meant, "of": len(made)}
        for place, level_db in (("headset", None), ("speaker", _USUAL_DB)):
            for name, hearing in (("before", BEFORE), ("now", NOW)):
                heard = [_in_reply(model, hearing, pcm, level_db, n) for n, pcm in enumerate(made)]
                row[f"{place}_{name}"] = sum(bool(each.interrupted_ms) for each in heard)
                if name == "now":
                    row[f"{place}_held"] = sum(bool(each.suspected_ms) for each in heard)
        rows.append(row)
    return rows


# Words.


def words(num: int) -> list[Row]:
    """Return how many words the starter hears wrongly."""
    said = utterances(num)
    texts = [text for text, _ in said]
    clean = [pcm for _, pcm in said]
    noisy = [add_noise(pcm, 10.0, np.random.default_rng(n)) for n, pcm in enumerate(clean)]
    listener = Listener(ROOT / "model" / "starter")
    try:

        def row(name: str, recordings: Sequence[Wave]) -> Row:
            return {"heard": name, "word_errors": listener.word_error_rate(texts, recordings)}

        # The two to compare all others with: what the starter gets wrong when nothing was done.
        rows = [row("clean", clean), row("noise 10 dB below", noisy)]
        kinds: tuple[NoiseKind, ...] = ("near_field", "far_field")
        for name, recordings in (("clean", clean), ("noise 10 dB below", noisy)):
            for kind in kinds:
                for strength in (0.5, 1.0):
                    reduced = [_reduced(pcm, kind, strength) for pcm in recordings]
                    rows.append(row(f"{name}, {kind} {strength}", reduced))
        for level_db in (None, -20, -6):
            name = "no echo" if level_db is None else f"echo {level_db} dB"
            for does_cancel in (False, True):
                over = [_talked_over(p, level_db, n, does_cancel) for n, p in enumerate(clean)]
                done = "cancelled" if does_cancel else "as it is"
                rows.append(row(f"over a reply, {name}, {done}", over))
        return rows
    finally:
        listener.stop()


def _reduced(pcm: Wave, kind: NoiseKind, strength: float) -> Wave:
    reducer = NoiseReducer(RATE_HZ, kind, strength)
    return np.concatenate([*map(reducer.feed, _chunks(pcm)), reducer.finish()])


def _talked_over(pcm: Wave, level_db: int | None, seed: int, does_cancel: bool) -> Wave:  # noqa: FBT001 - one of two
    """Return a user's words over a reply that has been heard for two seconds."""
    lead = round(_LEAD_S * RATE_HZ)
    far = np.resize(np.roll(_reply(), -seed * 9_973), lead + len(pcm)).astype(np.float32)
    near = np.concatenate((silence(_LEAD_S), pcm)) + _hiss(len(far), seed)
    if level_db is not None:
        near = near + echoed(far, _USUAL_MS, level_db, seed)
    if does_cancel:
        canceller = EchoCanceller(RATE_HZ)
        # 20 ms at a time, as it would come: a canceller that sees all at once could look ahead.
        both = zip(_chunks(near), _chunks(far), strict=True)
        near = np.concatenate([*(canceller.feed(n, f) for n, f in both), canceller.finish()])
    return near[lead:]


def _chunks(pcm: Wave) -> Iterator[Wave]:
    return (pcm[start : start + 320] for start in range(0, len(pcm), 320))


# Costs.


def costs(seconds: float) -> list[Row]:
    """Return what a second of sound costs, in milliseconds of one core."""
    rows = []
    for rate_hz in (16_000, 24_000):
        num = round(seconds * rate_hz)
        far = np.resize(_reply(), num).astype(np.float32)
        echo = np.concatenate((np.zeros(rate_hz // 10, np.float32), 0.5 * far))[:num]
        quiet = _hiss(num, 0)
        # One each: what a canceller has learned about one echo changes what the next one costs.
        cancellers = [EchoCanceller(rate_hz) for _ in range(3)]
        reducer = NoiseReducer(rate_hz, "near_field", 1.0)
        rows.append(
            {
                "rate_hz": rate_hz,
                "echo_is_cancelled": _cost(cancellers[0].feed, seconds, echo + quiet, far),
                "reply_without_echo": _cost(cancellers[1].feed, seconds, quiet, far),
                "no_reply": _cost(cancellers[2].feed, seconds, quiet, np.zeros_like(far)),
                "noise_reduction": _cost(reducer.feed, seconds, quiet),
            }
        )
    return rows


def _cost(feed: Callable[..., Wave], seconds: float, *sounds: Wave) -> float:
    step = round(len(sounds[0]) / seconds / 50)
    # Of all threads of this process, and of nothing else on the machine.
    started_s = time.process_time()
    for start in range(0, len(sounds[0]), step):
        feed(*(sound[start : start + step] for sound in sounds))
    return round((time.process_time() - started_s) / seconds * 1000, 1)


def check(paths: Sequence[Row], talks: Sequence[Row], kinds: Sequence[Row]) -> None:
    """Refuse figures of something that does not work.

    Raises:
        InterruptionGateError: an echo interrupts, a user is not found, or a short sound ends a
            reply.
    """
    if any(row["interrupted"] for row in paths):
        raise InterruptionGateError("an echo ended its own reply")
    # The first row is without any echo: all have to be found there, "14/14".
    if talks[0]["found"].split("/")[0] != talks[0]["found"].split("/")[1]:
        raise InterruptionGateError("without any echo, a question did not end the reply")
    for row in kinds:
        is_short = row["sound"] in ("cough", "hummed mhm", "spoken mhm", "nothing")
        if is_short and (row["headset_now"] or row["speaker_now"]):
            raise InterruptionGateError(f"a reply was ended by {row['sound']}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--utterances", type=int, default=30, help="that the starter is to hear")
    parser.add_argument("--quick", action="store_true", help="few of everything")
    options = parser.parse_args()
    model = SileroModel()
    is_quick = options.quick
    paths = echo_paths(
        model,
        (100,) if is_quick else DELAYS_MS,
        (-6,) if is_quick else LEVELS_DB,
        seconds=8.0 if is_quick else 12.0,
    )
    print_table(paths)
    talks = double_talk(model, (None,) if is_quick else (None, *LEVELS_DB))
    print_table(talks)
    kinds = interruptions(model, 4 if is_quick else 8)
    print_table(kinds)
    check(paths, talks, kinds)
    spent = costs(2.0 if is_quick else 10.0)
    print_table(spent)
    heard = words(2 if is_quick else options.utterances)
    print_table(heard)
    result = {
        "echo_paths": paths,
        "double_talk": talks,
        "interruptions": kinds,
        "costs_ms_per_s": spent,
        "words": heard,
    }
    source = provenance(ROOT / "configs" / "starter.yaml", ROOT / "model" / "starter")
    keep("interruption", source, result, is_saved=not is_quick)


if __name__ == "__main__":
    main()
