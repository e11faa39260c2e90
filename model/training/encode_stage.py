"""Turn speech into codes: user turns several times, from other mouths and through other rooms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from tqdm import tqdm

from kernels.arithmetic import ceil_div
from model.codec.features import FRAME_SAMPLES, SAMPLE_RATE_HZ
from model.training.skills.unheard import WAYS
from model.training.speech.augment import augment
from model.training.speech.perturb import perturb_voice
from model.training.speech.spoil import spoil
from model.training.speech.types import Speech, Wave, Word

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from model.codec.mel import MelCodec
    from model.training.store import Clip

BATCH_CLIPS = 48
LEAD_S = (0.0, 0.5)  # silence before the first word: a voice activity detector's padding varies
TAIL_S = (0.0, 1.0)  # silence after the last word: from push-to-talk to a patient detector
PAUSE_SHARE = 0.3  # of user turns that hesitate between two words
# Of 0.15 s, which is a breath, up to 1.4 s, in which most detectors have long taken the turn for
# over: the model has to learn from the words that it is not.
PAUSE_S = (0.15, 1.4)
LAST_WORDS_SHARE = 0.5  # of these: before one of the last two, where an end is most easily heard
NEW_SPEAKER_SHARE = 0.5  # of user turns that somebody else says
WORN_SHARE = 0.85  # of user turns that come through a room, noise, a microphone or a line
GAIN_DB = (-14.0, 3.0)

Words: TypeAlias = "tuple[tuple[str, float, float], ...]"


@dataclass(frozen=True, slots=True)
class CodedClip:
    """One utterance as codes: int16 ``[frames, K]``, with word times in seconds of that audio."""

    codes: NDArray[np.int16]
    words: Words


def encode_store(
    codec: MelCodec,
    clips: list[Clip],
    path: Path,
    *,
    seed: int,
    is_user: bool,
    spoilt: Mapping[str, str] | None = None,
) -> dict[str, CodedClip]:
    """Encode `clips` with `codec` into `path` (``.npz``), or read it if it is there.

    User clips get another speaker, silence around them, sometimes a pause within, a room and a
    microphone; replies stay clean.

    Args:
        codec: the tokenizer.
        clips: what was spoken.
        path: of the coded clips.
        seed: of everything that is drawn.
        is_user: whether users spoke.
        spoilt: by their keys, how clips are made impossible to understand; they have no words then.
            See `model.training.skills.unheard`.
    """
    if not path.exists():
        # Sorted by length, the clips of a batch are about equally long, and little is encoded that
        # is only padding.
        order = sorted(range(len(clips)), key=lambda i: len(clips[i].pcm))
        coded: dict[str, CodedClip] = {}
        starts = range(0, len(order), BATCH_CLIPS)
        for batch, start in enumerate(tqdm(starts, desc=path.stem, mininterval=5.0)):
            part = [clips[i] for i in order[start : start + BATCH_CLIPS]]
            # Each batch has a seed of its own. A run that was stopped makes the same codes as one
            # that was not.
            coded.update(
                _encode_batch(codec, part, seed * 100_003 + batch, spoilt or {}, is_user=is_user)
            )
        _write(path, coded)
    return _read(path)


def _encode_batch(
    codec: MelCodec, clips: list[Clip], seed: int, spoilt: Mapping[str, str], *, is_user: bool
) -> dict[str, CodedClip]:
    rng = np.random.default_rng(seed)
    others = [_full_scale(clip.pcm) for clip in clips]
    prepared = [
        _prepare(clip, rng, others, spoilt.get(clip.key, "")) if is_user else _as_recorded(clip)
        for clip in clips
    ]
    frames = [ceil_div(len(pcm), FRAME_SAMPLES) for pcm, _ in prepared]
    wave = torch.zeros(len(clips), max(frames) * FRAME_SAMPLES)
    for row, (pcm, _) in enumerate(prepared):
        wave[row, : len(pcm)] = torch.from_numpy(pcm)
    wave = wave.to(next(codec.parameters()).device)
    codes = codec.encode(wave).cpu().numpy().astype(np.int16)
    return {
        clip.key: CodedClip(codes[row, : frames[row]], words)
        for row, (clip, (_, words)) in enumerate(zip(clips, prepared, strict=True))
    }


def _as_recorded(clip: Clip) -> tuple[Wave, Words]:
    return _full_scale(clip.pcm), clip.words


def _full_scale(pcm: NDArray[np.int16]) -> Wave:
    return pcm.astype(np.float32) / np.float32(32768.0)


def _prepare(
    clip: Clip, rng: np.random.Generator, others: list[Wave], way: str
) -> tuple[Wave, Words]:
    """Give a user clip a speaker, its silences, a room and a microphone; word times follow.

    `others` may talk in the background. What is spoilt, in some `way`, has no words.
    """
    pcm, words = clip.pcm, clip.words
    if rng.random() < NEW_SPEAKER_SHARE:
        speech = Speech(np.asarray(pcm), tuple(Word(*word) for word in words), ())
        speech = perturb_voice(speech, rng)
        pcm, words = speech.pcm, tuple((w.text, w.start_s, w.end_s) for w in speech.words)
    if len(words) > 2 and rng.random() < PAUSE_SHARE:  # one word has no inside
        pcm, words = _hesitating(pcm, words, rng)
    # Word times count from the clip's first sample. With 0.3 s of silence in front, all of them
    # move by 0.3 s.
    lead = round(rng.uniform(*LEAD_S) * SAMPLE_RATE_HZ)
    tail = round(rng.uniform(*TAIL_S) * SAMPLE_RATE_HZ)
    shift = lead / SAMPLE_RATE_HZ
    wave = _full_scale(np.pad(pcm, (lead, tail)))
    if way:
        words = ()
        if way in WAYS:
            wave = spoil(wave, way, rng, [other for other in others if len(other)])
    if rng.random() < WORN_SHARE:
        wave = augment(wave, rng, float(rng.uniform(0.2, 1.0)), others)
    wave = np.clip(wave * np.float32(10 ** (rng.uniform(*GAIN_DB) / 20)), -1.0, 1.0)
    return wave, tuple((w, s + shift, e + shift) for w, s, e in words)


def _hesitating(
    pcm: NDArray[np.int16], words: Words, rng: np.random.Generator
) -> tuple[NDArray[np.int16], Words]:
    """Insert a silence between two words."""
    first = max(1, len(words) - 2) if rng.random() < LAST_WORDS_SHARE else 1
    after = int(rng.integers(first, len(words)))
    # A worked example: "my name is anna" has the words at 0.1-0.2, 0.25-0.5, 0.55-0.65 and 0.7-1.1.
    # A pause before the last one cuts at (0.65 + 0.7) / 2 = 0.675 s. With 0.8 s of silence "anna"
    # begins at 1.5 s, and the turn is over at 1.9 s and not in the pause.
    cut = round((words[after - 1][2] + words[after][1]) / 2 * SAMPLE_RATE_HZ)
    pause_s = float(rng.uniform(*PAUSE_S))
    silence = np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.int16)
    later = tuple((w, s + pause_s, e + pause_s) for w, s, e in words[after:])
    return np.concatenate([pcm[:cut], silence, pcm[cut:]]), words[:after] + later


def _write(path: Path, coded: dict[str, CodedClip]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        codes=np.concatenate([c.codes for c in coded.values()]),
        frames=np.array([len(c.codes) for c in coded.values()]),
        index=np.frombuffer(
            json.dumps([[k, c.words] for k, c in coded.items()]).encode(), dtype=np.uint8
        ),
    )
    temporary.replace(path)


def _read(path: Path) -> dict[str, CodedClip]:
    with np.load(path) as file:
        codes, frames = file["codes"], file["frames"]
        index = json.loads(file["index"].tobytes())
    # The codes of all clips lie one after another: with 10, 7 and 12 frames they end at 10, 17 and
    # 29, and clip 1 is rows 10 to 16.
    ends = np.cumsum(frames)
    return {
        key: CodedClip(codes[end - count : end], tuple((w, s, e) for w, s, e in words))
        for (key, words), end, count in zip(index, ends, frames, strict=True)
    }
