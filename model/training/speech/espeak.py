"""espeak-ng in this process: many accents and made-up speakers, called through ctypes.

espeak-ng reports when its words and its own phonemes start. Its phonemes differ from flite's, so a
word's phones are taken from flite and laid over the times of the word's espeak phonemes.
Each process loads the library for itself. Not thread safe.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from math import log2
from pathlib import Path

import numpy as np
import soxr

from model.training.speech.flite import flite_speech, load_library, written_words
from model.training.speech.types import (
    SAMPLE_RATE_HZ,
    SILENCE,
    Pcm,
    Phone,
    Speech,
    SynthesisError,
    Word,
)

_PACKAGE = "libespeak-ng1"
_RETRIEVAL = 1
_SYNCHRONOUS = 2
_PHONEME_EVENTS = 0x0001
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_NORMAL_WORDS_PER_MINUTE = 165
_WORD_EVENT, _PHONEME_EVENT = 1, 7


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Something begins: a word (1-based position in the text) or a phoneme (its name)."""

    start_s: float
    position: int
    phoneme: str


class _Espeak:
    """The library with the buffers that its callback fills."""

    def __init__(self) -> None:
        self._lib = load_library("libespeak-ng.so.1", _PACKAGE)
        self.rate_hz = self._lib.espeak_Initialize(
            _SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT
        )
        if self.rate_hz <= 0:
            raise SynthesisError(
                "espeak-ng found no data: on Debian or Ubuntu run 'apt install espeak-ng-data'"
            )
        path = ctypes.c_char_p()
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self._lib.espeak_Info(ctypes.byref(path))
        self._variants = Path((path.value or b"").decode()) / "voices" / "!v"
        self._chunks: list[np.ndarray] = []
        self._marks: list[_Mark] = []
        self._callback = _Callback(self._receive)  # must outlive the library's use of it
        self._lib.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def _receive(self, samples: object, count: int, events: object) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:  # type: ignore[index]
            event = events[index]  # type: ignore[index]
            start_s = event.sample / self.rate_hz
            if event.type == _WORD_EVENT:
                self._marks.append(_Mark(start_s, event.text_position, ""))
            elif event.type == _PHONEME_EVENT:
                self._marks.append(_Mark(start_s, 0, event.name.decode(errors="replace")))
            index += 1
        return 0

    def _choose(self, voice: str) -> None:
        if voice == self._voice:
            return
        _, plus, variant = voice.partition("+")
        # An unknown language is refused, but an unknown variant is silently the plain voice.
        missing = bool(plus) and not (self._variants / variant).is_file()
        if missing or self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            self._voice = ""
            raise SynthesisError(f"espeak-ng has no voice {voice!r}")
        self._voice = voice

    def speak(
        self, voice: str, text: str, rate: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[_Mark]]:
        """Audio int16 [samples] at `rate_hz` with its marks."""
        self._choose(voice)
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            if self._lib.espeak_SetParameter(parameter, value, 0) != 0:
                raise SynthesisError(f"espeak-ng refused parameter {parameter} = {value}")
        self._chunks.clear()
        self._marks.clear()
        encoded = text.encode() + b"\0"
        status = self._lib.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
        if status != 0 or not self._chunks:
            raise SynthesisError(f"espeak-ng could not speak {text!r} (status {status})")
        return np.concatenate(self._chunks), list(self._marks)


@cache
def _engine() -> _Espeak:
    return _Espeak()


def _is_pause(phoneme: str) -> bool:
    return phoneme.startswith("_")


@dataclass(slots=True)
class Span:
    """A word's place in the audio in seconds; `onsets` are the starts of espeak's phonemes."""

    start_s: float
    end_s: float
    onsets: list[float]


def _spans(marks: list[_Mark], positions: list[int], duration_s: float) -> list[Span | None]:
    """Where each written word lies; None for one that espeak-ng joined to its neighbour."""
    spans: list[Span | None] = [None] * len(positions)
    current = Span(0.0, -1.0, [])
    newest = -1
    # A worked example, "hi there": the marks are word 1 at 0.05 s, its phonemes at 0.05 and 0.12,
    # word 4 at 0.30, phonemes at 0.30, 0.36, 0.41, and a pause at 0.60. So "hi" lies from 0.05 to
    # 0.30 and "there" from 0.30 to 0.60. A pause ends a word; the next phoneme would take that
    # back.
    for mark in marks:
        if mark.position:
            # Positions count from one and may point inside a word ("o'clock").
            index = sum(start < mark.position for start in positions) - 1
            if index <= newest:  # the same word, or the mark that closes a sentence
                continue
            if current.end_s < 0:
                current.end_s = mark.start_s
            newest = index
            current = spans[index] = Span(mark.start_s, -1.0, [])
        elif _is_pause(mark.phoneme):
            if current.end_s < 0:
                current.end_s = mark.start_s
        elif mark.phoneme:
            current.end_s = -1.0
            current.onsets.append(mark.start_s)
    if current.end_s < 0:
        current.end_s = duration_s
    return spans


def _fill_joined(spans: list[Span | None], weights: list[float]) -> list[Span]:
    """Give words without a mark a share of the span before them, by `weights` (seconds)."""
    filled: list[Span] = []
    index = 0
    while index < len(spans):
        after = index + 1
        while after < len(spans) and spans[after] is None:
            after += 1
        span = spans[index]
        if span is None:
            raise SynthesisError("the first word of the text has no place in the audio")
        if after == index + 1:
            filled.append(span)
        else:
            # A worked example: espeak-ng says "of the" as one. Its span is 0.2 s, and flite would
            # take 0.12 and 0.08 s for the two words: they get 60 % and 40 % of it.
            shares = np.cumsum([0.0, *weights[index:after]])
            edges = span.start_s + (span.end_s - span.start_s) * shares / shares[-1]
            filled.extend(
                Span(
                    float(edges[part]),
                    float(edges[part + 1]),
                    [onset for onset in span.onsets if edges[part] <= onset < edges[part + 1]],
                )
                for part in range(after - index)
            )
        index = after
    return filled


def _laid_over(span: Span, symbols: list[str], lengths: list[float]) -> list[Phone]:
    """Flite's phones of a word, `symbols` with their `lengths`, over espeak's span of it."""
    # The first phoneme's own mark comes after a stop's closure; the closure is the stop's too.
    own = [span.start_s, *(onset for onset in span.onsets[1:] if onset < span.end_s)]
    edges = np.array([*own, span.end_s])
    # "cat" has three phones in both sets: each of flite's names gets espeak's own times.
    if len(edges) - 1 == len(symbols):
        times = edges
    else:
        # Different counts: the word is stretched evenly, which is right to a few tens of
        # milliseconds.
        shares = np.cumsum([0.0, *lengths])
        times = span.start_s + (span.end_s - span.start_s) * shares / shares[-1]
    return [
        Phone(symbol, float(start), float(end))
        for symbol, start, end in zip(symbols, times[:-1], times[1:], strict=True)
    ]


def espeak_speech(
    voice: str, text: str, *, stretch: float = 1.0, pitch: float = 1.0, pitch_range: float = 1.0
) -> Speech:
    """Speak `text` with an espeak-ng voice, "language" or "language+variant".

    `stretch` multiplies durations, `pitch` the fundamental frequency (about .5 to 2) and
    `pitch_range` the melody's width.
    """
    written = written_words(text)
    if not written:
        raise SynthesisError("there is nothing to say: the text has no words")
    engine = _engine()
    samples, marks = engine.speak(
        voice,
        text,
        rate=int(np.clip(round(_NORMAL_WORDS_PER_MINUTE / stretch), 80, 450)),
        # espeak-ng counts pitch from 0 to 99 with 50 in the middle. An octave up would be 100, and
        # is cut to 99.
        pitch=int(np.clip(round(50 + 50 * log2(pitch)), 0, 99)),  # espeak-ng: 50 steps an octave
        pitch_range=int(np.clip(round(50 * pitch_range), 0, 99)),
    )
    pcm = soxr.resample(samples, engine.rate_hz, SAMPLE_RATE_HZ)
    duration_s = len(pcm) / SAMPLE_RATE_HZ

    positions: list[int] = []
    cursor = 0
    for word in written:
        cursor = text.index(word, cursor)
        positions.append(cursor)
        cursor += len(word)

    return laid_out(text, _spans(marks, positions, duration_s), pcm)


def laid_out(text: str, places: list[Span | None], pcm: Pcm) -> Speech:
    """Give spoken words flite's phones, laid over the places of the words in the audio.

    Args:
        text: what is said.
        places: of each of its words; None for one that was joined to the word before it.
        pcm: int16 [samples] at 16 kHz.

    Raises:
        SynthesisError: the first word has no place.
    """
    written = written_words(text)
    duration_s = len(pcm) / SAMPLE_RATE_HZ
    model = flite_speech("kal16", text)
    parts: list[tuple[list[str], list[float]]] = []
    for spoken in model.words:
        own = [
            phone
            for phone in model.phones
            if phone.symbol != SILENCE
            and spoken.start_s - 1e-6 <= phone.start_s < spoken.end_s - 1e-6
        ]
        parts.append(([p.symbol for p in own], [p.end_s - p.start_s for p in own]))

    spans = _fill_joined(places, [sum(lengths) for _, lengths in parts])
    words: list[Word] = []
    phones: list[Phone] = []
    cursor_s = 0.0
    for word, span, (symbols, lengths) in zip(written, spans, parts, strict=True):
        span.start_s = min(max(span.start_s, cursor_s), duration_s)
        span.end_s = min(max(span.end_s, span.start_s), duration_s)
        if span.start_s > cursor_s:
            phones.append(Phone(SILENCE, cursor_s, span.start_s))
        words.append(Word(word, span.start_s, span.end_s))
        phones.extend(_laid_over(span, symbols, lengths))
        cursor_s = span.end_s
    if cursor_s < duration_s:
        phones.append(Phone(SILENCE, cursor_s, duration_s))
    return Speech(pcm, tuple(words), tuple(phones))
