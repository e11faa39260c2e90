"""Speech on disk: shards of int16 PCM with a JSON index, written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.training.speech.types import PHONES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from model.training.speech.types import Speech

PHONE_INDEX = {symbol: i for i, symbol in enumerate(PHONES)}
PHONE_SLOTS_HZ = 50  # phone labels are stored on a 20 ms grid


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance of a store.

    `pcm` is int16 ``[samples]`` at 16 kHz (a view of the mapped shard), `words` holds
    ``(text, start_s, end_s)``, `phones` uint8 ``[20 ms slots]`` indexes `PHONES`.
    """

    key: str
    text: str
    voice: str
    pcm: NDArray[np.int16]
    words: tuple[tuple[str, float, float], ...]
    phones: NDArray[np.uint8]


def phone_slots(speech: Speech) -> list[int]:
    """Label every 20 ms of `speech` with the phone at its middle."""
    slots = []
    phones = iter(speech.phones)
    current = next(phones)
    # A worked example: phones "hh" to 0.07 s and "ay" to 0.2 s. The slots have their middles at
    # 0.01, 0.03, 0.05, 0.07 and so on: three of hh, and the rest ay.
    for i in range(int(speech.duration_s * PHONE_SLOTS_HZ)):
        middle = (i + 0.5) / PHONE_SLOTS_HZ
        while current.end_s <= middle:
            following = next(phones, None)
            if following is None:
                break
            current = following
        slots.append(PHONE_INDEX[current.symbol])
    return slots


def write_shard(path: Path, clips: Iterable[tuple[str, str, str, Speech]]) -> None:
    """Write ``(key, text, voice, speech)`` items as `path`.pcm and `path`.json.

    The index appears last, atomically.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, Any]] = []
    offset = 0
    with path.with_suffix(".pcm").open("wb") as file:
        for key, text, voice, speech in clips:
            file.write(np.ascontiguousarray(speech.pcm, dtype="<i2").tobytes())
            index.append(
                {
                    "key": key,
                    "text": text,
                    "voice": voice,
                    "offset": offset,
                    "samples": len(speech.pcm),
                    "words": [
                        [w.text, round(w.start_s, 4), round(w.end_s, 4)] for w in speech.words
                    ],
                    "phones": bytes(phone_slots(speech)).hex(),
                }
            )
            offset += len(speech.pcm)
    # The audio is written first, and the index last, under another name that is then changed. A
    # shard with an index is whole; one without is written again.
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(index))
    os.replace(temporary, path.with_suffix(".json"))  # noqa: PTH105 - atomic over an existing file


def is_written(path: Path) -> bool:
    """Tell whether the shard at `path` is complete."""
    return path.with_suffix(".json").exists()


def read_shard(path: Path) -> Iterator[Clip]:
    """Yield the clips of one shard."""
    index = json.loads(path.with_suffix(".json").read_text())
    if not index:
        return  # nothing could be spoken, and an empty file cannot be mapped
    pcm = np.memmap(path.with_suffix(".pcm"), dtype="<i2", mode="r")
    for item in index:
        yield Clip(
            key=item["key"],
            text=item["text"],
            voice=item["voice"],
            pcm=pcm[item["offset"] : item["offset"] + item["samples"]],
            words=tuple((w, s, e) for w, s, e in item["words"]),
            phones=np.frombuffer(bytes.fromhex(item["phones"]), dtype=np.uint8),
        )


def read_store(directory: Path) -> list[Clip]:
    """Read every complete shard of `directory`, in name order."""
    return [
        clip
        for index in sorted(directory.glob("*.json"))
        for clip in read_shard(index.with_suffix(""))
    ]
