"""Turn speech into codes: user turns several times, each time through another room and microphone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from model.codec.features import FRAME_SAMPLES, SAMPLE_RATE_HZ
from model.training.corrupt import corrupt

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from model.codec.mel import MelCodec
    from model.training.store import Clip

BATCH_CLIPS = 48
LEAD_S = (0.0, 0.5)  # silence before the first word: a voice activity detector's padding varies
TAIL_S = (0.0, 1.0)  # silence after the last word: from push-to-talk to a patient detector
PAUSE_SHARE = 0.15  # of user turns that hesitate between two words
PAUSE_S = (0.2, 0.9)


@dataclass(frozen=True, slots=True)
class CodedClip:
    """One utterance as codes: int16 ``[frames, K]``, with word times in seconds of that audio."""

    codes: NDArray[np.int16]
    words: tuple[tuple[str, float, float], ...]


def encode_store(
    codec: MelCodec, clips: list[Clip], path: Path, *, seed: int, is_user: bool
) -> dict[str, CodedClip]:
    """Encode `clips` with `codec` into `path` (``.npz``), or read it if it is there.

    User clips get silence around them, sometimes a pause within, and a room and microphone; replies stay clean.
    """
    if not path.exists():
        order = sorted(range(len(clips)), key=lambda i: len(clips[i].pcm))
        coded: dict[str, CodedClip] = {}
        starts = range(0, len(order), BATCH_CLIPS)
        for batch, start in enumerate(tqdm(starts, desc=path.stem, mininterval=5.0)):
            part = [clips[i] for i in order[start : start + BATCH_CLIPS]]
            coded.update(_encode_batch(codec, part, seed * 100_003 + batch, is_user=is_user))
        _write(path, coded)
    return _read(path)


def _encode_batch(
    codec: MelCodec, clips: list[Clip], seed: int, *, is_user: bool
) -> dict[str, CodedClip]:
    rng = np.random.default_rng(seed)
    prepared = [_prepare(clip, rng) if is_user else (clip.pcm, clip.words) for clip in clips]
    frames = [-(-len(pcm) // FRAME_SAMPLES) for pcm, _ in prepared]
    wave = torch.zeros(len(clips), max(frames) * FRAME_SAMPLES)
    for row, (pcm, _) in enumerate(prepared):
        wave[row, : len(pcm)] = torch.from_numpy(pcm / np.float32(32768.0))
    wave = wave.to(next(codec.parameters()).device)
    if is_user:
        wave = corrupt(wave, torch.Generator().manual_seed(seed), share=0.8)
    codes = codec.encode(wave).cpu().numpy().astype(np.int16)
    return {
        clip.key: CodedClip(codes[row, : frames[row]], words)
        for row, (clip, (_, words)) in enumerate(zip(clips, prepared, strict=True))
    }


def _prepare(
    clip: Clip, rng: np.random.Generator
) -> tuple[NDArray[np.int16], tuple[tuple[str, float, float], ...]]:
    """Give a user clip its silences; returns PCM and shifted word times."""
    lead = round(rng.uniform(*LEAD_S) * SAMPLE_RATE_HZ)
    tail = round(rng.uniform(*TAIL_S) * SAMPLE_RATE_HZ)
    gain = 10 ** (rng.uniform(-14.0, 2.0) / 20)
    pcm, words = clip.pcm, clip.words
    if len(words) > 2 and rng.random() < PAUSE_SHARE:  # noqa: PLR2004 - one word has no inside
        after = int(rng.integers(1, len(words)))
        cut = round((words[after - 1][2] + words[after][1]) / 2 * SAMPLE_RATE_HZ)
        pause_s = rng.uniform(*PAUSE_S)
        pcm = np.concatenate(
            [pcm[:cut], np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.int16), pcm[cut:]]
        )
        words = words[:after] + tuple((w, s + pause_s, e + pause_s) for w, s, e in words[after:])
    pcm = np.clip(pcm * gain, -32768, 32767).astype(np.int16)
    shift = lead / SAMPLE_RATE_HZ
    return np.pad(pcm, (lead, tail)), tuple((w, s + shift, e + shift) for w, s, e in words)


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
    ends = np.cumsum(frames)
    return {
        key: CodedClip(codes[end - count : end], tuple((w, s, e) for w, s, e in words))
        for (key, words), end, count in zip(index, ends, frames, strict=True)
    }
