"""Speak the training dialogues.

Texts come first, then shards of speech made by any number of worker processes.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import numpy as np
import soxr
from tqdm import tqdm

from model.training.skills import Dialogue, Turn, sample_dialogue
from model.training.speech.types import SAMPLE_RATE_HZ, Phone, Speech, SynthesisError, Word
from model.training.speech.voices import (
    ASSISTANT_VOICES,
    TRAIN_VOICES,
    available,
    pick_voice,
    synthesise,
)
from model.training.store import is_written, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIALOGUES_PER_SHARD = 100
REPLY_SHARDS = 256
# Of user voices that get another vocal tract than their synthesiser gave them.
NEW_SPEAKER_SHARE = 0.6
TRACT_LENGTH = (0.86, 1.16)  # relative; adults span about 13 to 18 cm

ASSISTANT_NAMES = tuple(voice.name for voice in ASSISTANT_VOICES)


@dataclass(frozen=True, slots=True)
class Script:
    """One dialogue to be spoken.

    Its `number` seeds every choice, `voice` indexes `ASSISTANT_VOICES`.
    """

    number: int
    turns: Dialogue
    voice: int


def write_scripts(path: Path, num_dialogues: int, seed: int) -> list[Script]:
    """Write the texts of all dialogues as JSON lines and return them."""
    scripts = []
    for number in range(num_dialogues):
        rng = random.Random(f"{seed}/{number}")
        scripts.append(
            Script(number, sample_dialogue(rng, "train"), rng.randrange(len(ASSISTANT_VOICES)))
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for script in scripts:
            turns = [[t.user, t.reply, t.skill] for t in script.turns]
            file.write(
                json.dumps({"number": script.number, "voice": script.voice, "turns": turns}) + "\n"
            )
    return scripts


def read_scripts(path: Path) -> list[Script]:
    """Read what `write_scripts` wrote."""
    scripts = []
    for line in path.read_text().splitlines():
        item = json.loads(line)
        scripts.append(
            Script(item["number"], tuple(Turn(*t) for t in item["turns"]), item["voice"])
        )
    return scripts


def user_key(script: Script, turn: int) -> str:
    """Name the clip of a user turn."""
    return f"{script.number}.{turn}"


def reply_key(voice: int, text: str) -> str:
    """Name the clip of a reply."""
    return f"{voice}:{text}"


def speak_all(scripts: list[Script], directory: Path, *, seed: int, workers: int) -> None:
    """Write every missing shard of ``directory/users`` and ``directory/replies``."""
    jobs = list(_jobs(scripts, directory, seed))
    # Interleaved, so that an early start of the tokenizer's training already finds both kinds.
    jobs.sort(key=lambda job: int(job[0].name))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in tqdm(
            pool.imap(_speak_shard, jobs), total=len(jobs), desc="speech", mininterval=5.0
        ):
            pass


# Clip key, text, dialogue number or assistant voice, is it a user's.
_Line: TypeAlias = tuple[str, str, int, bool]
_Job: TypeAlias = "tuple[Path, int, list[_Line]]"


def _jobs(scripts: list[Script], directory: Path, seed: int) -> Iterator[_Job]:
    for start in range(0, len(scripts), DIALOGUES_PER_SHARD):
        path = directory / "users" / f"{start // DIALOGUES_PER_SHARD:04d}"
        part = scripts[start : start + DIALOGUES_PER_SHARD]
        lines = [
            (user_key(s, i), t.user, s.number, True) for s in part for i, t in enumerate(s.turns)
        ]
        if not is_written(path):
            yield path, seed, lines
    replies = sorted({(s.voice, t.reply) for s in scripts for t in s.turns})
    for shard in range(REPLY_SHARDS):
        path = directory / "replies" / f"{shard:04d}"
        mine = [
            (v, text)
            for v, text in replies
            if crc32(f"{v}:{text}".encode()) % REPLY_SHARDS == shard
        ]
        if not is_written(path):
            yield path, seed, [(reply_key(v, text), text, v, False) for v, text in mine]


def _speak_shard(job: _Job) -> None:
    path, seed, lines = job
    write_shard(path, _speak_lines(seed, lines))


def _speak_lines(seed: int, lines: list[_Line]) -> Iterator[tuple[str, str, str, Speech]]:
    for key, text, number, is_user in lines:
        if not is_user:
            voice = ASSISTANT_VOICES[number]
            yield key, text, voice.name, synthesise(voice, text)
            continue
        rng = np.random.default_rng([seed, number])  # one speaker for all turns of a dialogue
        voice = pick_voice(rng, available(TRAIN_VOICES))
        tract = float(rng.uniform(*TRACT_LENGTH)) if rng.random() < NEW_SPEAKER_SHARE else 1.0
        try:
            # Resampling moves formants, pitch and tempo together; the synthesiser gives the tempo
            # back beforehand.
            speech = resampled(
                synthesise(replace(voice, stretch=voice.stretch / tract), text), tract
            )
        except SynthesisError:
            # A voice may refuse a word; a dialogue with a missing clip is left out when it is
            # assembled.
            continue
        yield key, text, voice.name, speech


def resampled(speech: Speech, factor: float) -> Speech:
    """Play `speech` slower by `factor`: lower formants and pitch, as of a longer vocal tract."""
    if factor == 1.0:
        return speech
    pcm = soxr.resample(speech.pcm, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * factor).astype(np.int16)
    return Speech(
        pcm,
        tuple(Word(w.text, w.start_s * factor, w.end_s * factor) for w in speech.words),
        tuple(Phone(p.symbol, p.start_s * factor, p.end_s * factor) for p in speech.phones),
    )
