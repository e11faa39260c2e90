"""Measure how soon the model notices that a turn is over, and how often it does so too early.

The users of this measure hesitate: most sentences have a pause inside ("my name is … anna"). They
are heard frame by frame as in a live session, the model reading its own words back, and at every
frame it says how sure it is that the turn is over. Whoever takes the turn for over once that passes
a threshold waits for so long after the last word, and cuts off so many users who would have gone
on. The threshold is what eagerness decides.

Of a model with a head for it (`LMConfig.has_end_head`) that is what the head says; of another one,
the probability of the piece `<end>`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from kernels.arithmetic import ceil_div
from model.assemble.weights import Starter
from model.cache.state import Kind, Steps
from model.codec.mel import MelCodec
from model.messages import Eagerness
from model.text import Special
from model.training.evaluation.conditions import VoiceSet
from model.training.evaluation.conversation import Wave
from model.training.evaluation.scoring import Share
from model.training.evaluation.users import Spoken, Users
from model.training.skills import sample_dialogue
from model.training.speech.types import SAMPLE_RATE_HZ, SynthesisError
from model.transformer.lm import LM

AddNoise = Callable[[Wave, float, np.random.Generator], Wave]

FRAME_S = 0.08
PAUSE_SHARE = 0.7  # of the sentences that have an inside
PAUSE_S = (0.2, 1.4)
LAST_WORDS_SHARE = 0.5  # of the pauses: before one of the last two words
TAIL_S = 2.4  # of silence; an end that was not noticed by then counts as noticed then
NOISE_DB = (25.0, 40.0)
CUT_OFFS: dict[Eagerness, float] = {"low": 0.02, "medium": 0.05, "high": 0.10}
"""Share of users who may be cut off, by eagerness."""
VOICE_SETS: tuple[VoiceSet, ...] = ("held out", "neural", "joe")
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Hesitant:
    """A turn with pauses: float32 [samples], and the end of its last word in seconds."""

    pcm: Wave
    end_s: float
    has_pause: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """How sure the model was, frame by frame, float32 [frames], of a turn that ends at `end_s`."""

    sure: npt.NDArray[np.float32]
    end_s: float

    def delay_s(self, threshold: float) -> float:
        """Return how long after the last word it was sure; below zero if that was too early."""
        # A worked example: the last word ends at 2.00 s. If the model is sure in frame 26, it says
        # so when that has been heard, at 27 * 0.08 = 2.16 s: 160 ms late. If it was sure in frame
        # 20, that was at 1.68 s, and the user was cut off.
        frames = np.flatnonzero(self.sure >= threshold)
        # A frame says what it says when it has been heard.
        noticed_s = FRAME_S * (int(frames[0]) + 1) if len(frames) else self.end_s + TAIL_S
        return noticed_s - self.end_s


@dataclass(frozen=True, slots=True)
class EndPoint:
    """A threshold and what comes of it.

    Attributes:
        name: of the eagerness.
        threshold: how sure it has to be.
        cut_off: users whose last word had not ended.
        delays_ms: median, mean and 90th percentile, of the others.
    """

    name: Eagerness
    threshold: float
    cut_off: Share
    delays_ms: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Give the figures under stable names."""
        low, high = self.cut_off.interval
        middle, mean, late = self.delays_ms
        return {
            "eagerness": self.name,
            "threshold": round(self.threshold, 4),
            "cut_off": self.cut_off.value,
            "cut_off_low": round(low, 4),
            "cut_off_high": round(high, 4),
            "turns": self.cut_off.total,
            "delay_p50_ms": round(middle),
            "delay_mean_ms": round(mean),
            "delay_p90_ms": round(late),
        }


def hesitate(spoken: Spoken, rng: np.random.Generator) -> Hesitant:
    """Insert a pause between two words of a turn, mostly, and leave silence after the last one."""
    pcm, words = spoken.pcm, spoken.words
    end_s = words[-1][2] if words else spoken.end_ms / 1000
    # The clip's own silence goes, and a known one comes: so every turn has the same time to be
    # noticed in.
    pcm = pcm[: round((end_s + 0.1) * SAMPLE_RATE_HZ)]
    has_pause = len(words) > 2 and rng.random() < PAUSE_SHARE
    if has_pause:
        first = max(1, len(words) - 2) if rng.random() < LAST_WORDS_SHARE else 1
        after = int(rng.integers(first, len(words)))
        cut = round((words[after - 1][2] + words[after][1]) / 2 * SAMPLE_RATE_HZ)
        pause_s = float(rng.uniform(*PAUSE_S))
        silence = np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.float32)
        pcm = np.concatenate([pcm[:cut], silence, pcm[cut:]])
        end_s += pause_s
    tail = np.zeros(round((end_s + TAIL_S) * SAMPLE_RATE_HZ) - len(pcm), np.float32)
    return Hesitant(np.concatenate([pcm, tail]), end_s, has_pause)


def draw_turns(
    users: Users, add_noise: AddNoise, sets: Sequence[VoiceSet], num_turns: int, seed: int
) -> list[Hesitant]:
    """Have so many turns spoken, the sets of voices taking turns; none where nobody can speak."""
    turns = []
    # Turn 0 is spoken by the first set of voices, turn 1 by the second, and so on: with three sets
    # and 300 turns each has a hundred.
    for number in tqdm(range(num_turns), desc="ends", unit="turn", mininterval=5.0, disable=None):
        text = sample_dialogue(Random(f"{seed}/{number}"), "eval")[0].user
        try:
            voice = users.choose(sets[number % len(sets)], seed, number // len(sets))
            spoken = users.speak(voice, text)
        except SynthesisError:
            continue
        rng = np.random.default_rng((seed, number))
        turn = hesitate(spoken, rng)
        noisy = add_noise(turn.pcm, float(rng.uniform(*NOISE_DB)), rng)
        turns.append(Hesitant(noisy.astype(np.float32), turn.end_s, turn.has_pause))
    return turns


@torch.inference_mode()
def listen(lm: LM, codec: MelCodec, turns: Sequence[Hesitant]) -> list[Heard]:
    """Hear turns, each as a conversation's first, frame by frame."""
    heard = []
    # Neighbours in length share a batch, as in training. The results go back into the order in
    # which the turns came.
    order = sorted(range(len(turns)), key=lambda i: len(turns[i].pcm))
    for start in range(0, len(order), _BATCH):
        part = [turns[i] for i in order[start : start + _BATCH]]
        heard += _listen(lm, codec, part)
    return [heard[order.index(i)] for i in range(len(turns))]


def _listen(lm: LM, codec: MelCodec, turns: Sequence[Hesitant]) -> list[Heard]:
    count, size = len(turns), codec.frame_samples
    frames = max(ceil_div(len(turn.pcm), size) for turn in turns)
    wave = torch.zeros(count, frames * size)
    for row, turn in enumerate(turns):
        wave[row, : len(turn.pcm)] = torch.from_numpy(turn.pcm)
    codes = codec.encode(wave)  # [turns, frames, K]
    state, slots = lm.init_state(count), list(range(count))
    absent = torch.full((count, 1, codes.shape[-1]), -1)

    def step(position: int, kind: Kind, text: torch.Tensor, user: torch.Tensor) -> torch.Tensor:
        where = torch.full((count, 1), position)
        kinds = torch.full((count, 1), int(kind))
        return lm.step(Steps(text[:, None], user, absent, kinds, where), state, slots)[:, 0]

    for position, piece in enumerate((Special.BOS, Special.VOICE0)):
        step(position, Kind.PREFIX, torch.full((count,), int(piece)), absent)
    allowed = torch.full((lm.config.text_vocab,), -torch.inf)
    allowed[Special.VOICE0 :] = 0.0  # words; pieces of voices are never likely
    allowed[[Special.PAD, Special.END]] = 0.0
    text, sure = torch.full((count,), int(Special.PAD)), []
    for frame in range(frames):
        hidden = step(2 + frame, Kind.LISTEN, text, codes[:, frame : frame + 1])
        logits = lm.text_logits(hidden).float() + allowed
        # The model reads back what it has put out itself, right or wrong, as in a session. The
        # right words would make it look better than it is.
        text = logits.argmax(-1)
        if lm.config.has_end_head:
            sure.append(lm.end_logits(hidden).float().sigmoid())
        else:
            sure.append(logits.softmax(-1)[:, Special.END])
    table = torch.stack(sure, 1).numpy()  # [turns, frames]
    lengths = [ceil_div(len(turn.pcm), size) for turn in turns]
    return [Heard(table[i, : lengths[i]], turn.end_s) for i, turn in enumerate(turns)]


def end_points(heard: Sequence[Heard]) -> list[EndPoint]:
    """Choose for each eagerness the lowest threshold that cuts off no more users than it may."""
    points = []
    for name, share in CUT_OFFS.items():
        # What a turn reaches before its end: a threshold above that does not cut it off.
        early = sorted(
            float(h.sure[: max(0, int(h.end_s / FRAME_S - 1e-9))].max(initial=0.0)) for h in heard
        )
        # A worked example: of 300 turns 5 % may be cut off, which are 15. `early` says how sure the
        # model was of each before its end. The threshold is the next number above the 16th largest
        # of these, so that 15 turns reach it too early.
        most = int(share * len(heard))
        above = np.nextafter(np.float32(early[-most - 1]), np.float32(2.0))
        threshold = min(float(above), 1.0)
        points.append(point_at(heard, name, threshold))
    return points


def point_at(heard: Sequence[Heard], name: Eagerness, threshold: float) -> EndPoint:
    """Say what comes of a threshold."""
    delays = [1000 * h.delay_s(threshold) for h in heard]
    late = sorted(delay for delay in delays if delay >= 0) or [1000 * TAIL_S]
    figures = (median(late), sum(late) / len(late), late[int(0.9 * (len(late) - 1))])
    cut = Share(sum(delay < 0 for delay in delays), len(delays))
    return EndPoint(name, threshold, cut, figures)


def run_ends(
    starter: Starter,
    users: Users,
    add_noise: AddNoise,
    *,
    num_turns: int = 300,
    seed: int = 0,
    sets: Sequence[VoiceSet] = VOICE_SETS,
    out: Path | None = None,
) -> list[EndPoint]:
    """Measure and print: a line for each eagerness, then one JSON line last.

    Args:
        starter: the model, in evaluation mode.
        users: who speaks.
        add_noise: adds noise to a turn, so many dB below its speech.
        num_turns: turns of all voices together.
        seed: decides what is said, where users hesitate, and the noise.
        sets: whose voices.
        out: also write the figures to this file, as JSON.
    """
    turns = draw_turns(users, add_noise, sets, num_turns, seed)
    points = end_points(listen(starter.lm, starter.codec, turns))
    pauses = sum(turn.has_pause for turn in turns)
    print(f"{len(turns)} turns, {pauses} with a pause of {PAUSE_S[0]} to {PAUSE_S[1]} s inside")
    for point in points:
        middle, mean, late = point.delays_ms
        print(
            f"{point.name:7} cut off {100 * (point.cut_off.value or 0):.1f} %  "
            f"delay p50 {middle:.0f} mean {mean:.0f} p90 {late:.0f} ms  "
            f"(sure of {point.threshold:.3f})"
        )
    result = {"turns": len(turns), "pauses": pauses, "ends": [p.to_json() for p in points]}
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return points
