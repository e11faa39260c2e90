"""Piper's voice `joe`: a second neural synthesiser, which no weights were trained on.

A VITS model (en_US-joe-medium) of another family than Kokoro, so that a score in this voice says
how much is owed to one synthesiser's habits. onnxruntime runs it on one thread;
`model.training.speech.packages` fetches it. Its phonemes come from the program `espeak-ng`, as in
its own training.

The model draws noise for the melody and the lengths of sounds. It is seeded by the text, so the
same text gives the same audio.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from model.training.speech.espeak import Span, laid_out
from model.training.speech.flite import written_words
from model.training.speech.packages import VOICES_DIR
from model.training.speech.types import SAMPLE_RATE_HZ, Speech, SynthesisError

JOE = "joe"
PIPER_RATE_HZ = 22_050
_HOP = 256  # samples of a frame, in which the model counts durations
_DURATIONS = "/Ceil_output_0"  # node of the graph: frames of each symbol
_NOISE, _DURATION_NOISE = 0.667, 0.8  # what Piper itself uses
_START, _GAP, _END = 1, 0, 2  # symbols that stand before, between and after the phonemes


def _folder() -> Path:
    return VOICES_DIR / JOE / "data"


@cache
def _model() -> bytes:
    """Return the graph with the durations as an output."""
    import onnx  # noqa: PLC0415 - only who scores in this voice needs it

    path = _folder() / "en_US-joe-medium.onnx"
    if not path.exists():
        raise SynthesisError(f"{path} is missing: 'parley train --stage voices' fetches it")
    model = onnx.load(str(path))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None)
    )
    return bytes(model.SerializeToString())


@cache
def _symbols() -> dict[str, list[int]]:
    config: dict[str, Any] = json.loads((_folder() / "en_US-joe-medium.onnx.json").read_text())
    found: dict[str, list[int]] = config["phoneme_id_map"]
    return found


def _run(ids: list[int], stretch: float, seed: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return audio float32 [samples] at 22,050 Hz and the frames that each symbol takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    # A session takes its seed when it is made and draws on from there, so each text has its own.
    onnxruntime.set_seed(seed)
    session = onnxruntime.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])
    audio, durations = session.run(
        ["output", _DURATIONS],
        {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([_NOISE, stretch, _DURATION_NOISE], np.float32),
        },
    )
    return np.ravel(audio), np.ravel(durations)


def _phonemes(lines: list[str]) -> list[str]:
    """Return each line in IPA, a space between words; espeak-ng joins some ("of the")."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SynthesisError("espeak-ng is not installed (Debian package espeak-ng)")
    found = []
    for line in lines:
        done = subprocess.run(  # noqa: S603 - words after "--" are never options
            [program, "-q", "--ipa", "-v", "en-us", "--", line],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SynthesisError(f"espeak-ng has no phonemes for {line!r}: {done.stderr.strip()}")
        # It ties the two parts of "ch" together with a bow, which the voice has no symbol for.
        found.append(" ".join(done.stdout.split()).replace("\u0361", ""))
    return found


def first_words(groups: list[int], words: list[int]) -> list[int]:
    """Find which word each group of phonemes begins with, where some words were joined.

    Worked example: groups of 4 and 5 phonemes for words of 4, 2 and 3 begin with words 0 and 1.

    Args:
        groups: length of each group, at least one group.
        words: length of each word when spoken alone; at least as many as groups.

    Returns:
        An index of a word for each group, rising from 0.
    """
    starts, index = [], 0
    for number, length in enumerate(groups):
        starts.append(index)
        groups_left = len(groups) - number - 1
        taken = words[index]
        index += 1
        while len(words) - index > groups_left and abs(taken + words[index] - length) < abs(
            taken - length
        ):
            taken += words[index]
            index += 1
    return starts


def piper_speech(
    voice: str, text: str, *, stretch: float = 1.0, pitch: float = 1.0, pitch_range: float = 1.0
) -> Speech:
    """Speak `text` with the voice `joe`.

    Args:
        voice: `joe`.
        text: lower-case words.
        stretch: multiplies durations.
        pitch: ignored: Piper has no such control.
        pitch_range: ignored, likewise.

    Raises:
        SynthesisError: the voice or espeak-ng is missing, or there is nothing to say.
    """
    del pitch, pitch_range
    if voice != JOE:
        raise SynthesisError(f"Piper has no voice {voice!r}: there is {JOE!r}")
    written = written_words(text)
    if not written:
        raise SynthesisError("there is nothing to say: the text has no words")
    groups = _phonemes([" ".join(written)])[0].split()
    starts = list(range(len(groups)))
    if len(groups) < len(written):
        starts = first_words([len(g) for g in groups], [len(p) for p in _phonemes(written)])
    elif len(groups) > len(written):
        raise SynthesisError(f"espeak-ng says more words than are written: {text!r}")

    symbols = _symbols()
    # A worked example: "cat" is k, æ, t in phonemes, and ^ _ k _ æ _ t _ . _ $ in symbols. A gap
    # stands behind every symbol, and belongs to the word of the symbol before it.
    ids, owners = [_START, _GAP], [-1, -1]
    for number, group in enumerate(groups):
        for letter in (" " if number else "") + group + ("." if number == len(groups) - 1 else ""):
            for symbol in symbols.get(letter, ()):
                ids += [symbol, _GAP]
                owners += [-1 if letter in " ." else number] * 2
    audio, frames = _run([*ids, _END], stretch, crc32(text.encode()))
    # A frame has 256 samples at 22,050 Hz, 11.6 ms.
    edges_s = np.concatenate([[0.0], np.cumsum(frames)]) * _HOP / PIPER_RATE_HZ
    places: list[Span | None] = [None] * len(written)
    for number, start in enumerate(starts):
        mine = [place for place, owner in enumerate(owners) if owner == number]
        if mine:
            places[start] = Span(float(edges_s[mine[0]]), float(edges_s[mine[-1] + 1]), [])
    peak = max(float(np.abs(audio).max()), 1e-4)
    pcm = soxr.resample(audio * np.float32(0.9 / peak), PIPER_RATE_HZ, SAMPLE_RATE_HZ)
    return laid_out(text, places, np.round(pcm * 32767).clip(-32768, 32767).astype(np.int16))
