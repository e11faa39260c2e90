"""Speak the training dialogues.

Texts come first, then shards of speech made by any number of worker processes.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import numpy as np
import soxr
import torch
from tqdm import tqdm

from model.messages import Tool
from model.training.memory import keep_freed_memory
from model.training.skills import (
    Called,
    Conversation,
    Dialogue,
    Turn,
    reply_texts,
    sample_conversation,
    sample_dialogue,
)
from model.training.skills.phrasing import Style
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
# Of user voices that get another vocal tract than their synthesiser gave them.
NEW_SPEAKER_SHARE = 0.6
TRACT_LENGTH = (0.86, 1.16)  # relative; adults span about 13 to 18 cm

ASSISTANT_NAMES = tuple(voice.name for voice in ASSISTANT_VOICES)


# How a reply is spoken that is asked for slower, or louder.
SLOW_STRETCH = 1.4
LOUD_GAIN = 2.2
# Replies that only one conversation has, such as words to repeat: so many of them are spoken, the
# others answered in writing. Those that many conversations share are all spoken.
SPOKEN_SHARE = 0.45
FOREIGN = "foreign"
_FOREIGN_VARIANTS = ("", "+f1", "+f2", "+f4", "+m1", "+m3", "+m4", "+m7")


@dataclass(frozen=True, slots=True)
class Script:
    """One conversation to be spoken.

    Its `number` seeds every choice, `voice` indexes `ASSISTANT_VOICES`.
    """

    number: int
    turns: Dialogue
    voice: int
    instructions: str = ""
    tools: tuple[Tool, ...] = ()


def write_scripts(path: Path, num_dialogues: int, seed: int, num_plain: int = 0) -> list[Script]:
    """Write the texts of all dialogues as JSON lines and return them.

    Args:
        path: of the file.
        num_dialogues: how many.
        seed: of all of them.
        num_plain: the first so many are answered questions and nothing else, whatever the recipe
            has learned since.
    """
    scripts = []
    for number in range(num_dialogues):
        rng = random.Random(f"{seed}/{number}")
        if number < num_plain:
            talk = Conversation(sample_dialogue(rng, "train"))
        else:
            talk = sample_conversation(rng, "train")
        voice = rng.randrange(len(ASSISTANT_VOICES))
        scripts.append(Script(number, talk.turns, voice, talk.instructions, talk.tools))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for script in scripts:
            file.write(json.dumps(asdict(script)) + "\n")
    return scripts


def read_scripts(path: Path) -> list[Script]:
    """Read what `write_scripts` wrote."""
    scripts = []
    for line in path.read_text().splitlines():
        item = json.loads(line)
        for turn in item["turns"]:
            turn["calls"] = tuple(Called(**call) for call in turn["calls"])
        item["turns"] = tuple(Turn(**turn) for turn in item["turns"])
        item["tools"] = tuple(Tool(**tool) for tool in item["tools"])
        scripts.append(Script(**item))
    return scripts


def user_key(script: Script, turn: int) -> str:
    """Name the clip of a user turn."""
    return f"{script.number}.{turn}"


def reply_key(voice: int, text: str, style: Style = "plain") -> str:
    """Name the clip of a reply."""
    return f"{voice}:{text}" if style == "plain" else f"{voice}:{style}:{text}"


def speak_all(scripts: list[Script], directory: Path, *, seed: int, workers: int) -> None:
    """Write every missing shard of ``directory/users`` and ``directory/replies``.

    A shard of either is for a hundred dialogues; of replies it holds those that no earlier dialogue
    has and that no other shard in the folder holds.
    """
    jobs = list(_jobs(scripts, directory, seed))
    with multiprocessing.get_context("spawn").Pool(workers, _begin_worker) as pool:
        for _ in tqdm(
            pool.imap(_speak_shard, jobs), total=len(jobs), desc="speech", mininterval=5.0
        ):
            pass


@dataclass(frozen=True, slots=True)
class _Line:
    """What is to be spoken: `number` is the dialogue's or the assistant voice's."""

    key: str
    text: str
    number: int
    is_user: bool
    style: Style = "plain"
    language: str = ""


_Job: TypeAlias = "tuple[Path, int, list[_Line]]"


def _jobs(scripts: list[Script], directory: Path, seed: int) -> Iterator[_Job]:
    known: set[str] = set()
    # A folder may hold shards of an older recipe. What they have is not spoken again, which is most
    # of what a new recipe needs.
    for index in sorted((directory / "replies").glob("*.json")):
        known.update(item["key"] for item in json.loads(index.read_text()))
    shared = frozenset(reply_texts())
    for start in range(0, len(scripts), DIALOGUES_PER_SHARD):
        name = f"{start // DIALOGUES_PER_SHARD:04d}"
        part = scripts[start : start + DIALOGUES_PER_SHARD]
        if not is_written(directory / "users" / name):
            yield directory / "users" / name, seed, [*_user_lines(part)]
        replies = []
        for line in _reply_lines(part, shared):
            if line.key not in known:
                known.add(line.key)
                replies.append(line)
        if not is_written(directory / "replies" / name):
            yield directory / "replies" / name, seed, replies


def _user_lines(scripts: list[Script]) -> Iterator[_Line]:
    for script in scripts:
        for i, turn in enumerate(script.turns):
            language = turn.spoilt.removeprefix(FOREIGN).strip() if _is_foreign(turn) else ""
            if turn.user:
                key = user_key(script, i)
                yield _Line(key, turn.user, script.number, is_user=True, language=language)


def _is_foreign(turn: Turn) -> bool:
    return turn.spoilt.startswith(FOREIGN)


def _reply_lines(scripts: list[Script], shared: frozenset[str]) -> Iterator[_Line]:
    for script in scripts:
        for turn in script.turns:
            voice = script.voice
            if turn.first:
                yield _Line(reply_key(voice, turn.first), turn.first, voice, is_user=False)
            key = reply_key(voice, turn.reply, turn.style)
            # A hash decides, so a reply is spoken in every run or in none.
            is_spoken = crc32(key.encode()) % 1000 < 1000 * SPOKEN_SHARE
            if turn.reply in shared or is_spoken:
                yield _Line(key, turn.reply, voice, is_user=False, style=turn.style)


def _begin_worker() -> None:
    torch.set_num_threads(1)  # the workers share the cores already
    keep_freed_memory()


def _speak_shard(job: _Job) -> None:
    path, seed, lines = job
    write_shard(path, _speak_lines(seed, lines))


def _speak_lines(seed: int, lines: list[_Line]) -> Iterator[tuple[str, str, str, Speech]]:
    for line in lines:
        try:
            voice, speech = _user_said(seed, line) if line.is_user else _reply_said(line)
        except SynthesisError:
            # A voice may refuse a word. A dialogue whose user said nothing is left out when it is
            # assembled, and a reply without a clip is answered in writing.
            continue
        yield line.key, line.text, voice, speech


def _reply_said(line: _Line) -> tuple[str, Speech]:
    voice = ASSISTANT_VOICES[line.number]
    if line.style == "slow":
        return voice.name, synthesise(replace(voice, stretch=SLOW_STRETCH), line.text)
    speech = synthesise(voice, line.text)
    if line.style == "loud":
        # Louder by 2.2, which is 7 dB, as long as the loudest sample stays in 16 bits.
        peak = float(np.abs(speech.pcm).max())
        gain = min(LOUD_GAIN, 32_000 / max(peak, 1.0))
        speech = replace(speech, pcm=np.round(speech.pcm * gain).astype(np.int16))
    return voice.name, speech


def _user_said(seed: int, line: _Line) -> tuple[str, Speech]:
    rng = np.random.default_rng([seed, line.number])  # one speaker for all turns of a dialogue
    voice = pick_voice(rng, available(TRAIN_VOICES))
    tract = float(rng.uniform(*TRACT_LENGTH)) if rng.random() < NEW_SPEAKER_SHARE else 1.0
    if line.language:
        name = line.language + str(rng.choice(_FOREIGN_VARIANTS))
        voice = replace(
            voice, name=f"{FOREIGN} {line.language}", engine="espeak", engine_voice=name
        )
    # Resampling moves formants, pitch and tempo together; the synthesiser gives the tempo back
    # beforehand.
    # A worked example with a tract of 1.1: the synthesiser speaks faster, at 1 / 1.1 of the length.
    # Played slower by 1.1, the sound has the old tempo, and formants and pitch that are 9 % lower,
    # as of a taller person.
    speech = synthesise(replace(voice, stretch=voice.stretch / tract), line.text)
    return voice.name, resampled(speech, tract)


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
