"""The listener's language model adds up, and it hears what a synthesiser said."""

from __future__ import annotations

from math import isclose

import numpy as np
import pytest

from model.training.speech.recogniser import Recogniser, bigram_arpa
from model.training.speech.voices import Voice, synthesise

TEXTS = ["what is six times seven", "what is the capital of france", "hello zorbo"]


def _parsed(arpa: str) -> tuple[dict[str, tuple[float, float]], dict[tuple[str, str], float]]:
    unigrams: dict[str, tuple[float, float]] = {}
    bigrams: dict[tuple[str, str], float] = {}
    for line in arpa.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[0][-1].isdigit() and not parts[2][-1].isdigit():
            bigrams[parts[1], parts[2]] = 10 ** float(parts[0])
        elif len(parts) == 3 and parts[0][-1].isdigit():
            unigrams[parts[1]] = (10 ** float(parts[0]), 10 ** float(parts[2]))
    return unigrams, bigrams


def test_what_follows_a_word_adds_up_to_one() -> None:
    """What follows a word adds up to one."""
    unigrams, bigrams = _parsed(bigram_arpa(TEXTS))
    successors = [word for word in unigrams if word != "<s>"]
    assert isclose(sum(unigrams[word][0] for word in successors), 1.0, abs_tol=1e-3)
    for before, (_, backoff) in unigrams.items():
        if before == "</s>":
            continue
        total = sum(bigrams.get((before, word), backoff * unigrams[word][0]) for word in successors)
        assert isclose(total, 1.0, abs_tol=1e-3), before


def test_what_was_said_is_likelier_than_what_was_not() -> None:
    """What was said is likelier than what was not."""
    unigrams, bigrams = _parsed(bigram_arpa(TEXTS))
    assert bigrams["what", "is"] > 0.5
    assert ("what", "seven") not in bigrams
    assert unigrams["what"][1] * unigrams["seven"][0] < 0.1


def test_a_model_of_nothing_is_refused() -> None:
    """A model of nothing is refused."""
    with pytest.raises(ValueError, match="at least one text"):
        bigram_arpa(["", " . "])


@pytest.mark.usefixtures("flite")
def test_it_hears_what_was_said_as_int16_and_as_float() -> None:
    """It hears what was said as int16 and as float."""
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (extra 'train')")
    listener = Recogniser(TEXTS)
    voice = Voice("rms", "flite", "rms")
    for text in TEXTS:  # "zorbo" is in no dictionary: flite spells it
        pcm = synthesise(voice, text).pcm
        assert listener.recognise(pcm) == text
        assert listener.recognise(pcm.astype(np.float32) / np.float32(32768)) == text
    silence = np.zeros(8000, np.int16)
    listener.recognise(silence)  # whatever it makes of it, the next recording is unaffected
    assert listener.recognise(synthesise(voice, TEXTS[0]).pcm) == TEXTS[0]
