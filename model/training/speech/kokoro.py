"""Kokoro-82M: 28 natural English voices and all mixes of them, with the times of words and phones.

The model is the int8 ONNX export of hexgrad's Kokoro-82M v1.0 (Apache-2.0), on one thread:
onnxruntime runs it up to its generator, `model.training.speech.kokoro_generator` runs that.
`model.training.speech.packages` fetches it.

A text goes through four steps:

1. Each word is looked up in misaki's dictionaries, with which Kokoro was trained: "name" -> "nˈAm".
   American voices (`a…`) take the American one, British voices (`b…`) the British one.
2. The letters become tokens, words parted by a space: 0, n, ˈ, A, m, 0.
3. The model returns audio at 24 kHz, and how many steps of 25 ms each token takes.
4. The durations become times. The sound runs three steps ahead of them: forced alignment with
   pocketsphinx found 77 to 93 ms over 438 words of three voices. So three steps are taken off.

The same input gives the same audio: the graph draws no noise. Variety comes from voices, mixes,
speed and what `perturb` and `augment` do afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from model.training.speech.flite import written_words
from model.training.speech.kokoro_generator import GENERATOR_INPUTS, Generator, split
from model.training.speech.packages import VOICES_DIR
from model.training.speech.types import (
    SAMPLE_RATE_HZ,
    SILENCE,
    Phone,
    Speech,
    SynthesisError,
    Word,
)

KOKORO_RATE_HZ = 24_000
_STEP_S = 0.025  # one step of the duration predictor: 600 samples
_LAG_STEPS = 3  # by which the sound runs ahead of the durations
_DURATIONS = "/encoder/Clip_output_0"  # node of the graph: steps of each token, rounded
_SHORT_GAP_S = 0.06  # a space between words of less is no silence
_STYLE_WIDTH = 256

# The author's grades and the packages list 28 English voices. These four stay unheard in training.
HELD_OUT_KOKORO = ("af_sarah", "am_fenrir", "bf_lily", "bm_lewis")
KOKORO_VOICES = (
    "af_alloy",
    "af_aoede",
    "af_bella",
    "af_heart",
    "af_jessica",
    "af_kore",
    "af_nicole",
    "af_nova",
    "af_river",
    "af_sky",
    "am_adam",
    "am_echo",
    "am_eric",
    "am_liam",
    "am_michael",
    "am_onyx",
    "am_puck",
    "am_santa",
    "bf_alice",
    "bf_emma",
    "bf_isabella",
    "bm_daniel",
    "bm_fable",
    "bm_george",
)

# Words of the recipe's texts that misaki's dictionaries do not have, in misaki's letters.
_EXTRA = {
    "ababa": "ˈɑbəbə",
    "aires": "ˈɛɹiz",
    "bogota": "bˌOɡətˈɑ",
    "brian": "bɹˈIən",
    "buenos": "bwˈAnəs",
    "clara": "klˈɛɹə",
    "created": "kɹiˈAtᵻd",
    "elena": "ˈɛlənə",
    "emily": "ˈɛməli",
    "eva": "ˈivə",
    "felix": "fˈilɪks",
    "hugo": "hjˈuɡO",
    "kevin": "kˈɛvən",
    "linda": "lˈɪndə",
    "lucas": "lˈukəs",
    "multiplied": "mˈʌltəplˌId",
    "nina": "nˈinə",
    "olivia": "Olˈɪviə",
    "patrick": "pˈætɹɪk",
    "paul": "pˈɔl",
    "rebecca": "ɹəbˈɛkə",
    "simon": "sˈImən",
    "sophia": "sOfˈiə",
}

# misaki's letters as flite's phones, the labels of all voices. Marks of stress and length have
# none.
# fmt: off
_PAIRS = (
    "Aey", "Iay", "Oow", "Waw", "Yoy", "Qow", "æae", "aae", "ɑaa", "ɒaa", "ɔao", "əax", "ɐax",
    "ᵊax", "ɜer", "ɚer", "ɛeh", "eeh", "ɪih", "ᵻih", "iiy", "uuw", "ʊuh", "ʌah", "bb", "dd", "ff",
    "kk", "ll", "mm", "nn", "pp", "ss", "tt", "vv", "ww", "zz", "ʤjh", "ʧch", "Tt", "ɹr", "ɡg",
    "θth", "ðdh", "ʃsh", "ʒzh", "ŋng", "hhh", "jy",
)
# fmt: on
_FLITE_PHONES = {pair[0]: pair[1:] for pair in _PAIRS}
_STARTS_WITH_VOWEL = re.compile(r"[ˈˌ]?[AIOQWYaiuæɑɐɒɔəɛɜɪʊʌᵻe]")
# Texts have no punctuation; these begin a question, which Kokoro speaks with a question's melody.
_QUESTION = re.compile(
    r"\b(what|who|how|which|where|when|why|can you|could you|do you|are you|is it|will you)\b"
)


@cache
def _dictionaries(*, is_british: bool) -> tuple[dict[str, Any], ...]:
    kind = "gb" if is_british else "us"
    found = []
    for book in ("gold", "silver"):
        path = VOICES_DIR / "misaki" / f"{kind}_{book}.json"
        try:
            found.append(json.loads(path.read_text()))
        except OSError as error:
            raise SynthesisError(
                f"{path} is missing: 'parley train --stage voices' fetches Kokoro's voices"
            ) from error
    return tuple(found)


def _looked_up(word: str, *, is_british: bool) -> str | None:
    for spelt in (word, word.capitalize()):
        for book in _dictionaries(is_british=is_british):
            if spelt in book:
                letters = book[spelt]
                return str(letters if isinstance(letters, str) else letters["DEFAULT"])
    if word in _EXTRA:
        return _EXTRA[word]
    # "peter's" and plurals: the stem, and its ending by the last sound.
    # "cats" is cat and s, "dogs" dog and z, "buses" bus and a short iz: the ending takes after the
    # last sound of the stem.
    for ending, least in (("'s", 3), ("s", 4)):
        stem = word.removesuffix(ending)
        if stem == word or len(word) < least:
            continue
        letters = _looked_up(stem, is_british=is_british)
        if letters is not None:
            if letters[-1] in "ptkfθ":
                return letters + "s"
            hissing = letters[-1] in "szʃʒʧʤ"
            return letters + (("ɪz" if is_british else "ᵻz") if hissing else "z")
    return None


def _letters(word: str, following: str | None, *, is_british: bool) -> str:
    """Return a word in misaki's letters.

    Args:
        word: lower case.
        following: the next word in letters, None at the end: "the apple" but "the pear".
        is_british: which dictionary.

    Raises:
        SynthesisError: no dictionary has the word.
    """
    before_vowel = following is not None and bool(_STARTS_WITH_VOWEL.match(following))
    match word:
        case "a":
            return "ɐ"
        case "an":
            return "ɐn"
        case "i":
            return "ˌI"
        case "the":
            return "ði" if before_vowel else "ðə"
        case "to" if following is not None:
            return "tʊ" if before_vowel else "tə"
        case "in":
            return "ˈɪn" if following is None else "ɪn"
    letters = _looked_up(word, is_british=is_british)
    if letters is None:
        raise SynthesisError(f"Kokoro has no pronunciation of {word!r}")
    return letters.replace("ɾ", "T").replace("ʔ", "t")


def pronounced(words: list[str], *, is_british: bool) -> list[str]:
    """Return each word in misaki's letters.

    Raises:
        SynthesisError: no dictionary has a word.
    """
    following: str | None = None
    found: list[str] = []
    # From the end backwards, since a word's sound may depend on the next one's first letter: "the"
    # before "apple" is ði, before "pear" ðə.
    for word in reversed(words):
        following = _letters(word, following, is_british=is_british)
        found.append(following)
    return found[::-1]


@cache
def _network() -> tuple[onnxruntime.InferenceSession, Generator]:
    """Return the two parts of the network: what onnxruntime runs, and the generator."""
    front, weights = _assembled()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(front), options, providers=["CPUExecutionProvider"])
    return session, Generator(load_file(weights))


def _assembled() -> tuple[Path, Path]:
    """Cut the network before its generator, once.

    Returns:
        The graph without its generator, with the durations as an output; the generator's weights.
    """
    front = VOICES_DIR / "kokoro-front.onnx"
    generator = VOICES_DIR / "kokoro-generator.safetensors"
    if front.exists() and generator.exists():
        return front, generator
    import onnx  # noqa: PLC0415 - only the first run of all needs it

    rest, weights = split(onnx.load_from_string(_joined()), keep=(_DURATIONS,))
    # Several workers may do this at once: each writes files of its own and renames them.
    for path, write in (
        (generator, partial(save_file, weights)),
        (front, partial(onnx.save, rest)),
    ):
        scratch = path.with_suffix(f".{os.getpid()}")
        write(str(scratch))
        scratch.rename(path)
    return front, generator


def _joined() -> bytes:
    """Join the four parts of the network and check the whole."""
    try:
        parts = [(VOICES_DIR / f"kokoro-{i}" / "part.bin").read_bytes() for i in range(1, 5)]
        expected = (VOICES_DIR / "kokoro" / "model.sha256").read_text().strip()
    except OSError as error:
        raise SynthesisError(
            f"{error.filename} is missing: 'parley train --stage voices' fetches Kokoro's voices"
        ) from error
    # The packages are checked one by one when they are fetched, and the model as a whole here:
    # parts of two versions would each be right, and the whole would not.
    whole = b"".join(parts)
    got = hashlib.sha256(whole).hexdigest()
    if got != expected:
        raise SynthesisError(f"Kokoro's model: expected sha256 {expected}, got {got}")
    return whole


@cache
def _vocabulary() -> dict[str, int]:
    found: dict[str, int] = json.loads((VOICES_DIR / "kokoro" / "vocab.json").read_text())["vocab"]
    return found


@cache
def _style(name: str) -> NDArray[np.float32]:
    """Return a voice's style for each length of text: float32 [tokens, 256].

    Args:
        name: a voice, or a mix such as "af_heart*0.4+bm_george*0.6".
    """
    total: NDArray[np.float32] | None = None
    # A style is a vector, and a weighted mean of two is a voice between them: 0.4 of one woman and
    # 0.6 of one man make a new voice.
    for part in name.split("+"):
        voice, _, weight = part.partition("*")
        path = VOICES_DIR / "kokoro-styles" / f"{voice}.bin"
        if not path.exists():
            raise SynthesisError(f"Kokoro has no voice {voice!r}: there is no {path}")
        style = np.fromfile(path, np.float32).reshape(-1, _STYLE_WIDTH)
        scaled = style * np.float32(weight or 1)
        total = scaled if total is None else total + scaled
    assert total is not None, "a split has at least one part"
    return total


def has_kokoro() -> bool:
    """Say whether Kokoro's packages were fetched."""
    return (VOICES_DIR / "kokoro-styles").exists() and (VOICES_DIR / "misaki").exists()


def kokoro_speech(
    voice: str, text: str, *, stretch: float = 1.0, pitch: float = 1.0, pitch_range: float = 1.0
) -> Speech:
    """Speak `text` with a voice of Kokoro or a mix of voices.

    Args:
        voice: such as "af_heart", or "af_heart*0.4+bm_george*0.6".
        text: lower-case words.
        stretch: multiplies durations.
        pitch: ignored: Kokoro has no such control.
        pitch_range: ignored, likewise.

    Raises:
        SynthesisError: a word has no pronunciation, or the packages are missing.
    """
    del pitch, pitch_range
    written = written_words(text)
    if not written:
        raise SynthesisError("there is nothing to say: the text has no words")
    letters = pronounced([word.lower() for word in written], is_british=voice.startswith("b"))
    ending = "?" if _QUESTION.search(text) else "."
    vocabulary = _vocabulary()
    tokens, owners, symbols = [0], [-1], [""]
    # A worked example: "my name" is the letters m'I n'Am, where ' marks stress. Tokens, and the
    # words that own them:
    #
    #     token    0    m  '  I  ' '   n  '  A  m   .    0
    #     owner    -1   0  0  0  -1    1  1  1  1  -1   -1
    #
    # Token 0 stands at both ends. The full stop makes the melody fall, and belongs to no word.
    for index, word in enumerate(letters):
        for letter in (" " if index else "") + word:
            if letter in vocabulary:
                tokens.append(vocabulary[letter])
                owners.append(-1 if letter == " " else index)
                symbols.append(letter)
    tokens += [vocabulary[ending], 0]
    owners += [-1, -1]
    style = _style(voice)
    # Kokoro has a style for each length of text. Row 8 is for nine tokens.
    row = style[min(len(tokens) - 2, len(style)) - 1]
    session, generator = _network()
    durations, voiced, oscillation = session.run(
        [_DURATIONS, *GENERATOR_INPUTS],
        {
            "tokens": np.array([tokens], np.int64),
            "style": row[None],
            "speed": np.array([1 / stretch], np.float32),
        },
    )
    wave = generator(voiced, oscillation, row[None])
    # A worked example with durations of 4, 3, 1, 5, 2, ... steps of 25 ms. The running sums are 0,
    # 4, 7, 8, 13, 15. Three steps less, in seconds: -0.075, 0.025, 0.1, 0.125, 0.25, 0.3. So the
    # "m" of the example above lies from 0.025 to 0.1 s, and the word "my" from 0.025 to 0.25 s.
    edges_s = (np.concatenate([[0.0], np.cumsum(np.ravel(durations))]) - _LAG_STEPS) * _STEP_S
    audio = soxr.resample(wave, KOKORO_RATE_HZ, SAMPLE_RATE_HZ)
    pcm = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)
    words, phones = aligned(written, owners, symbols, edges_s, len(pcm) / SAMPLE_RATE_HZ)
    return Speech(pcm, words, phones)


def aligned(
    written: list[str],
    owners: list[int],
    symbols: list[str],
    edges_s: NDArray[np.float64],
    duration_s: float,
) -> tuple[tuple[Word, ...], tuple[Phone, ...]]:
    """Turn tokens and their times into words and phones that tile the audio.

    Args:
        written: the text's words.
        owners: token → index of its word, -1 for what belongs to none.
        symbols: token → its letter.
        edges_s: where each token begins, and where the last ends.
        duration_s: of the audio.
    """
    spans: list[tuple[float, float]] = []
    sounds: list[tuple[str, float, float]] = []
    for index in range(len(written)):
        mine = [token for token, owner in enumerate(owners) if owner == index]
        spans.append((float(edges_s[mine[0]]), float(edges_s[mine[-1] + 1])))
        start_s = spans[-1][0]
        # The mark of stress before a vowel has a time of its own. As it is no sound, the vowel
        # begins where the mark does.
        for token in mine:
            phone = _FLITE_PHONES.get(symbols[token])
            end_s = float(edges_s[token + 1])
            if phone is not None:
                # A mark before a sound has a duration of its own, which is the sound's.
                sounds.append((phone, start_s, end_s))
                start_s = end_s
        if start_s < spans[-1][1] and sounds:
            name, begin_s, _ = sounds[-1]
            sounds[-1] = (name, begin_s, spans[-1][1])
    words: list[Word] = []
    # Words must not overlap, and must lie within the audio; durations that were rounded to 25 ms
    # may say otherwise by a step.
    for text, (start, end) in zip(written, spans, strict=True):
        earliest = words[-1].end_s if words else 0.0
        begin = min(max(start, earliest), duration_s)
        words.append(Word(text, begin, min(max(end, begin), duration_s)))
    phones: list[Phone] = []
    cursor_s = 0.0
    for name, begin, end in sounds:
        start_s = min(max(begin, cursor_s), duration_s)
        end_s = min(max(end, start_s), duration_s)
        if end_s <= start_s:
            continue
        # A gap of 50 ms between two words is no silence that anyone hears: the sound before it gets
        # the time. From 60 ms on it is a pause.
        if start_s - cursor_s > _SHORT_GAP_S or not phones:
            if start_s > cursor_s:
                phones.append(Phone(SILENCE, cursor_s, start_s))
        elif start_s > cursor_s:
            last = phones.pop()
            phones.append(Phone(last.symbol, last.start_s, start_s))
        phones.append(Phone(name, start_s, end_s))
        cursor_s = end_s
    if cursor_s < duration_s:
        phones.append(Phone(SILENCE, cursor_s, duration_s))
    return tuple(words), tuple(phones)
