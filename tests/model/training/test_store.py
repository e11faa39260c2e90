"""Speech written to disk comes back whole, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.training.speech.types import PHONES, Phone, Speech, Word
from model.training.store import is_written, phone_slots, read_store, write_shard

if TYPE_CHECKING:
    from pathlib import Path


def speech(samples: int) -> Speech:
    """Make a word that fills the first half of its audio."""
    half = samples / 32000
    pcm = np.arange(samples, dtype=np.int16)
    phones = (Phone("aa", 0.0, half), Phone("pau", half, 2 * half))
    return Speech(pcm, (Word("a", 0.0, half),), phones)


def test_clips_come_back_in_order(tmp_path: Path) -> None:
    """Two shards are one store, each clip with its own audio."""
    write_shard(tmp_path / "0001", [("k2", "a", "v", speech(3200))])
    write_shard(tmp_path / "0000", [("k0", "a", "v", speech(640)), ("k1", "a", "w", speech(1600))])
    clips = read_store(tmp_path)
    assert [(c.key, len(c.pcm), c.voice) for c in clips] == [
        ("k0", 640, "v"),
        ("k1", 1600, "w"),
        ("k2", 3200, "v"),
    ]
    assert np.array_equal(clips[1].pcm, np.arange(1600))
    assert clips[2].words == (("a", 0.0, 0.1),)


def test_a_shard_without_an_index_does_not_exist(tmp_path: Path) -> None:
    """An interrupted shard is made again."""
    (tmp_path / "0000.pcm").write_bytes(b"1234")
    assert not is_written(tmp_path / "0000")
    assert read_store(tmp_path) == []


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    """A shard of which nothing could be spoken is complete and holds nothing."""
    write_shard(tmp_path / "0000", [])
    assert is_written(tmp_path / "0000")
    assert read_store(tmp_path) == []


def test_phone_slots_label_the_middle_of_every_20_ms() -> None:
    """Half of the audio is the vowel, half silence."""
    slots = phone_slots(speech(3200))
    assert slots == [PHONES.index("aa")] * 5 + [PHONES.index("pau")] * 5
