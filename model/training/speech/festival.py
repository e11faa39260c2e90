"""Festival as one long-lived child process that takes texts on its standard input.

It is kept for voices that are nowhere else: mainly those that stay out of training, so that they
also come from a synthesiser's front end that training never heard. One child serves all voices; it
starts with the first text, ends with this process, and is replaced when it hangs.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import selectors
import shutil
import subprocess
import time
import wave
from dataclasses import dataclass

import numpy as np
import soxr

from model.training.speech.flite import written_words
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

# The voices and the Debian packages that have them.
FESTIVAL_VOICES = {
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
    "kal_diphone": "festvox-kallpc16k",
    "ked_diphone": "festvox-kdlpc16k",
}

_TIMEOUT_S = 30.0
_END = "parley-end"

# Festival's US phones that flite's set has no name for.
_RENAMED = {
    "axr": "er",
    "dx": "d",
    "el": "l",
    "em": "m",
    "en": "n",
    "h#": SILENCE,
    "hv": "hh",
    "brth": SILENCE,
    "ssil": SILENCE,
    "nx": "n",
}

# A token without a parent is what was written; its daughters are the words that were spoken.
_DEFINITIONS = """
(define (parley_report utt)
  (mapcar (lambda (s) (format t "S %s %f\\n" (item.name s) (item.feat s 'end)))
    (utt.relation.items utt 'Segment))
  (mapcar (lambda (token)
      (if (not (item.parent token))
        (begin
          (format t "T\\n")
          (mapcar (lambda (w)
              (format t "W %f %f\\n" (item.feat w 'word_start) (item.feat w 'word_end)))
            (item.relation.daughters token 'Token)))))
    (utt.relation.items utt 'Token)))
(define (parley_diphone stretch pitch range)
  (Parameter.set 'Duration_Stretch (* stretch (Parameter.get 'Duration_Stretch)))
  (set! int_lr_params
    (list
      (list 'target_f0_mean (* pitch (cadr (assoc 'target_f0_mean int_lr_params))))
      (list 'target_f0_std (* pitch (* range (cadr (assoc 'target_f0_std int_lr_params)))))
      (assoc 'model_f0_mean int_lr_params)
      (assoc 'model_f0_std int_lr_params))))
(define (parley_hts stretch)
  (set! hts_engine_params
    (append hts_engine_params (list (list "-r" (/ 1.0 stretch))))))
(define (parley_say text file)
  (set! parley_utt (utt.synth (eval (list 'Utterance 'Text text))))
  (utt.save.wave parley_utt file 'riff)
  (parley_report parley_utt))
"""


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


class _Festival:
    """The child process and the memory through which it hands over audio.

    Its audio and its complaints go to anonymous memory files: nothing is left behind, however
    either process ends.
    """

    def __init__(self) -> None:
        program = shutil.which("festival")
        if program is None:
            raise SynthesisError(
                "festival is not installed: on Debian or Ubuntu run 'apt install festival'"
            )
        self.owner = os.getpid()
        self._wav = os.memfd_create("parley-speech")
        self._errors = os.memfd_create("parley-festival-errors")
        self._child = subprocess.Popen(  # noqa: S603  a program found on the path, no shell
            [program, "--pipe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=(self._wav,),
            start_new_session=True,  # an interrupt at the terminal is for us to pass on
        )
        self._rest = b""
        try:
            self._ask(_DEFINITIONS)
        except SynthesisError:
            self.close()
            raise

    def _complaint(self) -> str:
        text = _content(self._errors).replace(b"\0", b"").decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it says nothing"

    def _ask(self, script: str) -> list[str]:
        """Run Scheme in the child; the lines it printed."""
        if self._child.stdin is None or self._child.stdout is None:
            raise SynthesisError("festival has no pipes")
        os.ftruncate(self._errors, 0)
        try:
            self._child.stdin.write(f'{script}\n(format t "{_END}\\n")\n(fflush nil)\n'.encode())
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise SynthesisError(f"festival ended: {self._complaint()}") from error
        end = f"{_END}\n".encode()
        deadline = time.monotonic() + _TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            # The answer to a script ends with a line that no report contains. What comes after it
            # belongs to the next answer, and is kept.
            while end not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise SynthesisError(f"festival did not answer within {_TIMEOUT_S:.0f} s")
                chunk = os.read(self._child.stdout.fileno(), 65536)
                if not chunk:
                    raise SynthesisError(f"festival ended: {self._complaint()}")
                self._rest += chunk
        answer, _, self._rest = self._rest.partition(end)
        return answer.decode(errors="replace").splitlines()

    def speak(self, setup: str, text: str) -> tuple[Pcm, list[str]]:
        """Audio at 16 kHz and the report's lines."""
        # The memory file is emptied first: if festival says nothing, there is nothing to be taken
        # for its answer.
        os.ftruncate(self._wav, 0)
        quoted = text.replace("\\", " ").replace('"', " ")
        say = f'(parley_say "{quoted}" "/proc/self/fd/{self._wav}")'
        # One expression: when the voice cannot be chosen, nothing is said with the last one.
        lines = self._ask(f"(begin {setup} {say})")
        content = _content(self._wav)
        if not content:
            raise SynthesisError(f"festival could not speak {text!r}: {self._complaint()}")
        with wave.open(io.BytesIO(content)) as file:
            pcm: Pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            rate_hz = file.getframerate()
        if rate_hz != SAMPLE_RATE_HZ:
            pcm = soxr.resample(pcm, rate_hz, SAMPLE_RATE_HZ)
        return pcm, lines

    def close(self) -> None:
        """End the child; after a fork only the process that started it may."""
        if self.owner != os.getpid():
            return
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        os.close(self._errors)
        os.close(self._wav)


_running: list[_Festival] = []


def _engine() -> _Festival:
    """The child of this process: after a fork a new one, the parent keeps its own."""
    # Two processes that write to one pipe would get each other's answers.
    if _running and _running[0].owner != os.getpid():
        _running.clear()
    if not _running:
        _running.append(_Festival())
        atexit.register(stop_festival)
    return _running[0]


def stop_festival() -> None:
    """End the child process, if there is one."""
    while _running:
        _running.pop().close()


@dataclass(frozen=True, slots=True)
class _Report:
    segments: list[tuple[str, float]]  # phone, end in seconds
    words: list[tuple[float, float]]  # per written word: start and end in seconds


def _parsed(lines: list[str]) -> _Report:
    segments: list[tuple[str, float]] = []
    tokens: list[list[tuple[float, float]]] = []
    for line in lines:
        # A worked example of a report: "S hh 0.11", "S ay 0.30", "T", "W 0.05 0.30" is the word
        # "hi" with its phones. A token of several words, as "bob's" may be, has several W lines,
        # and lies from the first one's beginning to the last one's end.
        match line.split():
            case ["S", name, end]:
                segments.append((_RENAMED.get(name, name), float(end)))
            case ["T"]:
                tokens.append([])
            case ["W", start, end] if float(end) > float(start):  # punctuation takes no time
                tokens[-1].append((float(start), float(end)))
            case _:
                pass
    return _Report(segments, [(spans[0][0], spans[-1][1]) for spans in tokens if spans])


def festival_speech(
    voice: str, text: str, *, stretch: float = 1.0, pitch: float = 1.0, pitch_range: float = 1.0
) -> Speech:
    """Speak `text` with one of `FESTIVAL_VOICES`.

    `stretch` multiplies durations. `pitch` multiplies the fundamental frequency and `pitch_range`
    the melody's width of the diphone voices; neither does anything to the HTS voice.
    """
    if voice not in FESTIVAL_VOICES:
        known = ", ".join(FESTIVAL_VOICES)
        raise SynthesisError(f"festival has no voice {voice!r}: use one of {known}")
    written = written_words(text)
    if not written:
        raise SynthesisError("there is nothing to say: the text has no words")
    if voice.endswith("_hts"):
        tuning = f"(parley_hts {stretch:.4f})"
    else:
        tuning = f"(parley_diphone {stretch:.4f} {pitch:.4f} {pitch_range:.4f})"
    try:
        pcm, lines = _engine().speak(f"(voice_{voice}) {tuning}", text)
    except SynthesisError as error:
        stop_festival()  # what it would answer next belongs to this text
        if "unbound variable : voice_" in str(error):
            raise SynthesisError(
                f"festival lacks the voice {voice}: on Debian or Ubuntu run "
                f"'apt install {FESTIVAL_VOICES[voice]}'"
            ) from error
        raise
    report = _parsed(lines)
    if len(report.words) != len(written):
        raise SynthesisError(
            f"festival spoke {len(report.words)} words where {len(written)} are written: {written}"
        )
    duration_s = len(pcm) / SAMPLE_RATE_HZ
    phones: list[Phone] = []
    start_s = 0.0
    # Festival tells where each phone ends; it begins where the one before it did. The last one ends
    # with the audio, whatever festival says.
    for index, (symbol, stated_s) in enumerate(report.segments):
        if symbol not in PHONES:
            raise SynthesisError(f"festival used a phone that is not in PHONES: {symbol!r}")
        last = index == len(report.segments) - 1
        end_s = duration_s if last else min(stated_s, duration_s)
        phones.append(Phone(symbol, start_s, end_s))
        start_s = end_s
    words = tuple(
        Word(text, min(start, duration_s), min(end, duration_s))
        for text, (start, end) in zip(written, report.words, strict=True)
    )
    return Speech(pcm, words, tuple(phones))
