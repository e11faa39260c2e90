"""An independent listener: pocketsphinx with a language model of what may be said.

It shares nothing with the model it judges. Told the domain's texts it is a lenient judge: compare
its score on one recording with its score on another, not with other recognisers.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from model.training.speech.flite import flite_speech, written_words
from model.training.speech.types import SAMPLE_RATE_HZ, SILENCE, Pcm, SynthesisError, Wave

_BEGIN, _END = "<s>", "</s>"
_NEVER = -99.0
_MARGIN_S = 0.2  # of silence around a recording: the acoustic model expects some


def bigram_arpa(texts: Iterable[str]) -> str:
    """Write an ARPA bigram model of `texts`, interpolated after Witten and Bell.

    Every word that occurs can follow every other one; the more different words followed a word,
    the more of its probability goes to new ones.
    """
    unigrams: Counter[str] = Counter()
    followers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        words = [_BEGIN, *written_words(text.lower()), _END]
        if len(words) == 2:
            continue
        unigrams.update(words[1:])
        for before, word in pairwise(words):
            followers[before][word] += 1
    if not unigrams:
        raise ValueError("a language model needs at least one text with words")
    total = sum(unigrams.values()) + len(unigrams)  # each word once more: rare ones stay likely
    chance = {word: (count + 1) / total for word, count in unigrams.items()}

    # A worked example: "what" was followed by "is" six times, by "time" twice. seen = 8 and kinds =
    # 2, so two tenths go to what was not seen. "is" has 6 / 10 + 0.2 * P(is), and "banana" only 0.2
    # * P(banana).
    # Source: Witten and Bell 1991, "The zero-frequency problem", method C.
    pairs: list[str] = []
    backoff: dict[str, float] = {}
    for before, counts in sorted(followers.items()):
        seen, kinds = sum(counts.values()), len(counts)
        backoff[before] = kinds / (seen + kinds)
        for word, count in sorted(counts.items()):
            probability = count / (seen + kinds) + backoff[before] * chance[word]
            pairs.append(f"{log10(probability):.5f} {before} {word}")
    lines = ["\\data\\", f"ngram 1={len(unigrams) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines.append(f"{_NEVER} {_BEGIN} {log10(backoff[_BEGIN]):.5f}")
    for word, probability in sorted(chance.items()):
        # A word that never stood before another has no count of its own: its backoff is 1, so that
        # what follows is as likely as anywhere.
        lines.append(f"{log10(probability):.5f} {word} {log10(backoff.get(word, 1.0)):.5f}")
    return "\n".join([*lines, "", "\\2-grams:", *pairs, "", "\\end\\", ""])


def _spelled(word: str) -> str:
    """A pronunciation by flite's letter-to-sound rules, in the recogniser's phones."""
    symbols = (phone.symbol for phone in flite_speech("kal16", word).phones)
    return " ".join("AH" if s == "ax" else s.upper() for s in symbols if s != SILENCE)


def _pronunciations(known: Path, words: set[str]) -> str:
    """Return a dictionary's lines for `words`: those of the recogniser, else that of flite."""
    lines: list[str] = []
    missing = set(words)
    with known.open() as file:
        for line in file:
            entry = line.split(maxsplit=1)[0]
            word = entry.partition("(")[0]  # "a(2)" is another way to say "a"
            if word in words:
                missing.discard(word)
                lines.append(line.rstrip())
    lines.extend(f"{word} {_spelled(word)}" for word in sorted(missing))
    return "\n".join([*lines, ""])


def _domain() -> list[str]:
    """What the starter's users and replies say."""
    from model.training.skills.mixture import corpus, reply_texts  # noqa: PLC0415  only by default

    return [*corpus(2000, seed=0), *reply_texts()]


class Recogniser:
    """Hear words in speech. About .4 s for an utterance on one core; not thread safe.

    Args:
        texts: what may be said: the vocabulary and which word follows which. By default what the
            starter and its users say.
    """

    def __init__(self, texts: Iterable[str] | None = None) -> None:
        try:
            import pocketsphinx  # noqa: PLC0415  needed for evaluation only
        except ImportError as error:
            raise SynthesisError(
                "pocketsphinx is not installed: run 'pip install pocketsphinx' "
                "(part of the extra 'train')"
            ) from error
        texts = _domain() if texts is None else list(texts)
        model = Path(pocketsphinx.get_model_path()) / "en-us"
        words = {word for text in texts for word in written_words(text.lower())}
        with tempfile.TemporaryDirectory(prefix="parley-recogniser-") as folder:
            grammar, lexicon = Path(folder) / "domain.arpa", Path(folder) / "domain.dict"
            grammar.write_text(bigram_arpa(texts))
            lexicon.write_text(_pronunciations(model / "cmudict-en-us.dict", words))
            self._decoder: Any = pocketsphinx.Decoder(
                hmm=str(model / "en-us"),
                lm=str(grammar),
                dict=str(lexicon),
                samprate=float(SAMPLE_RATE_HZ),
                cmn="batch",  # every recording for itself: the order of a test does not matter
                dither=True,
                seed=0,
                loglevel="FATAL",
            )

    def recognise(self, pcm: Pcm | Wave) -> str:
        """Return the words heard in `pcm` [samples] at 16 kHz, int16 or float32 of full scale 1."""
        scale = 1 if pcm.dtype == np.int16 else 32767
        rounded = np.clip(np.round(pcm.astype(np.float32) * scale), -32768, 32767)
        samples = np.pad(rounded, round(_MARGIN_S * SAMPLE_RATE_HZ)).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return "" if hypothesis is None else str(hypothesis.hypstr)
