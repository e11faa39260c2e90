"""flite in this process: Debian's shared libraries called through ctypes.

Starting the program for every text costs more than the synthesis; in process one core speaks
thirty to a thousand texts a second, and the segment relation gives word and phone times for free.
Each process loads the libraries for itself. Not thread safe.
"""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from model.training.speech.types import (
    PHONES,
    SAMPLE_RATE_HZ,
    SILENCE,
    Pcm,
    Phone,
    Speech,
    SynthesisError,
    Word,
)

FLITE_VOICES = ("slt", "rms", "awb", "kal16", "kal")

# The diphone voices draw their own pitch around a mean; the others scale the pitch they learned.
_MEAN_F0_HZ = {"kal": 95.0, "kal16": 95.0}
_F0_DEVIATION_HZ = 11.0


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("features", ctypes.c_void_p),
        ("ffunctions", ctypes.c_void_p),
        ("utt_init", ctypes.c_void_p),
    )


def load_library(name: str, package: str) -> ctypes.CDLL:
    """Load a shared library or say which Debian package has it."""
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SynthesisError(
            f"{name} is not installed: on Debian or Ubuntu run 'apt install {package}'"
        ) from error


@cache
def _library() -> ctypes.CDLL:
    lib = load_library("libflite.so.1", "flite")
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float
    signatures: dict[str, tuple[object, tuple[object, ...]]] = {
        "flite_init": (ctypes.c_int, ()),
        "flite_synth_text": (pointer, (text, pointer)),
        "utt_wave": (ctypes.POINTER(_Wave), (pointer,)),
        "utt_relation": (pointer, (pointer, text)),
        "relation_head": (pointer, (pointer,)),
        "item_next": (pointer, (pointer,)),
        "item_as": (pointer, (pointer, text)),
        "item_parent": (pointer, (pointer,)),
        "item_feat_string": (text, (pointer, text)),
        "item_feat_float": (number, (pointer, text)),
        "delete_utterance": (None, (pointer,)),
        "flite_feat_set_float": (None, (pointer, text, number)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    lib.flite_init()
    return lib


def _seed(seed: int) -> None:
    ctypes.CDLL(None).srand(ctypes.c_uint(seed))


@cache
def _voice(name: str) -> tuple[int, int]:
    """Addresses of the voice and of its features."""
    if name not in FLITE_VOICES:
        raise SynthesisError(f"flite has no voice {name!r}: use one of {', '.join(FLITE_VOICES)}")
    _library()
    for needed in ("libflite_usenglish.so.1", "libflite_cmulex.so.1"):
        load_library(needed, "flite")
    voice_library = load_library(f"libflite_cmu_us_{name}.so.1", "flite")
    register = getattr(voice_library, f"register_cmu_us_{name}")
    register.restype = ctypes.c_void_p
    register.argtypes = (ctypes.c_char_p,)
    address: int | None = register(None)
    if address is None:
        raise SynthesisError(f"flite could not set up its voice {name!r}")
    return address, int(_Voice.from_address(address).features)


@dataclass(frozen=True, slots=True)
class _Segment:
    symbol: str
    end_s: float
    token: int  # index into the text's words; -1 for silence


def _segments(lib: ctypes.CDLL, utterance: int) -> list[_Segment]:
    segments: list[_Segment] = []
    tokens: dict[int, int] = {}
    item = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
    while item:
        symbol = lib.item_feat_string(item, b"name").decode()
        token = -1
        if symbol != SILENCE:
            # From a phone up to its syllable and on to its word.
            word = lib.item_parent(lib.item_parent(lib.item_as(item, b"SylStructure")))
            # One written word can become several spoken ones ("bob's"); the token is what was
            # written.
            pointer = lib.item_parent(lib.item_as(word, b"Token"))
            token = tokens.setdefault(pointer, len(tokens))
        segments.append(_Segment(symbol, float(lib.item_feat_float(item, b"end")), token))
        item = lib.item_next(item)
    return segments


def _aligned(
    segments: list[_Segment], written: list[str], duration_s: float
) -> tuple[tuple[Word, ...], tuple[Phone, ...]]:
    phones: list[Phone] = []
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    start_s = 0.0
    for index, segment in enumerate(segments):
        # The last segment's stated end and the audio's differ by a few samples.
        end_s = duration_s if index == len(segments) - 1 else min(segment.end_s, duration_s)
        if segment.symbol not in PHONES:
            raise SynthesisError(f"flite used a phone that is not in PHONES: {segment.symbol!r}")
        phones.append(Phone(segment.symbol, start_s, end_s))
        if segment.token >= 0:
            starts.setdefault(segment.token, start_s)
            ends[segment.token] = end_s
        start_s = end_s
    if len(starts) != len(written):
        raise SynthesisError(
            f"flite spoke {len(starts)} words where {len(written)} are written: {written}"
        )
    words = tuple(Word(text, starts[index], ends[index]) for index, text in enumerate(written))
    return words, tuple(phones)


def written_words(text: str) -> list[str]:
    """The words of a text as they appear in alignments: no punctuation around them."""
    stripped = (word.strip('.,;:!?"()') for word in text.split())
    return [word for word in stripped if word]


def flite_speech(
    voice: str, text: str, *, stretch: float = 1.0, pitch: float = 1.0, pitch_range: float = 1.0
) -> Speech:
    """Speak `text` with one of `FLITE_VOICES`.

    `stretch` multiplies durations and `pitch` the fundamental frequency; `pitch_range` widens the
    melody of the diphone voices (kal, kal16) and does nothing to the others.
    """
    written = written_words(text)
    if not written:
        raise SynthesisError("there is nothing to say: the text has no words")
    lib = _library()
    handle, features = _voice(voice)
    lib.flite_feat_set_float(features, b"duration_stretch", stretch)
    if voice in _MEAN_F0_HZ:
        lib.flite_feat_set_float(features, b"int_f0_target_mean", _MEAN_F0_HZ[voice] * pitch)
        lib.flite_feat_set_float(
            features, b"int_f0_target_stddev", _F0_DEVIATION_HZ * pitch * pitch_range
        )
    else:
        lib.flite_feat_set_float(features, b"f0_shift", pitch)
    # The excitation noise comes from the C library's generator: seeded, a text always sounds alike.
    _seed(zlib.crc32(text.encode()))
    utterance = lib.flite_synth_text(text.encode(), handle)
    if not utterance:
        raise SynthesisError(f"flite could not speak {text!r}")
    try:
        wave = lib.utt_wave(utterance).contents
        pcm: Pcm = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.int16)
        rate_hz = int(wave.sample_rate)
        segments = _segments(lib, utterance)
    finally:
        lib.delete_utterance(utterance)
    if rate_hz != SAMPLE_RATE_HZ:
        pcm = soxr.resample(pcm, rate_hz, SAMPLE_RATE_HZ)
    words, phones = _aligned(segments, written, len(pcm) / SAMPLE_RATE_HZ)
    return Speech(pcm, words, phones)
