"""Hear a client's appended audio: decode it, and find where speech begins and ends in it."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from model.messages import Pcm
from server.audio.cleaning import EchoCanceller, NoiseReducer
from server.audio.resample import StreamResampler
from server.audio.silero import VAD_RATE_HZ, SileroModel, SileroStream
from server.audio.vad import (
    WINDOW_MS,
    Boundary,
    Echo,
    InterruptionDismissed,
    InterruptionRules,
    InterruptionSuspected,
    SpeechEnd,
    SpeechPause,
    SpeechResumption,
    SpeechSegmenter,
    SpeechSpotter,
    SpeechStart,
    VadRules,
    Window,
)
from server.audio.wire import AudioDecoder
from server.config.sound import VadSettings
from server.protocol.events import (
    EndInDoubt,
    Heard,
    InputAudio,
    SpeechBegan,
    SpeechDismissed,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
    SpeechSuspected,
)
from server.protocol.settings.config import (
    AudioFormat,
    SemanticVad,
    ServerVad,
    SessionConfig,
    TurnDetection,
)

_PIECE_S = 10
# A semantic turn is found with the defaults of server_vad; only its end is found differently.
_SEMANTIC_THRESHOLD = 0.5
_SEMANTIC_PADDING_MS = 300
_LOOK_MS = 100
# What was played and has no recorded sound beside it yet: what a decoder holds back is far less.
_MAX_FAR_S = 0.1


@dataclass(slots=True)
class _Stretch:
    """Audio that was appended and not passed on yet, and the windows that it completed.

    Attributes:
        pcm: float32 [samples] at the engine's rate.
        windows: in their order.
    """

    pcm: Pcm
    windows: deque[Window]


# A worked example, with semantic_vad. 900 ms are appended at once: 500 ms of speech, 400 ms of
# silence.
#
#     hear      decodes, resamples, and finds the probability of speech of each window of 32 ms
#     next      SpeechBegan, and the audio from 300 ms before it
#     next      InputAudio up to the end of the first window of silence, then EndInDoubt
#               (the machine asks the engine; `next` returns None until the answer is there)
#     next      sounds finished: SpeechEnded; not yet: on to the next window of silence
#
# So the model's word falls at the same place in the audio, however fast the audio came.
#
# Source: Realtime guide, "Voice activity detection", semantic_vad.


class Ears:
    """Turn appended audio into what was heard in it, without the echo and noise in it.

    Audio goes in by `hear`; what was heard in it comes out of `next`, piece by piece. Where a turn
    ends is for the model to say as well if the client has asked for semantic_vad. Its word is asked
    for at every window of silence in the turn (`EndInDoubt`), when it has been given the audio up
    to there and none after, and until it has come there is nothing more to be had. So the same
    audio has the same turns whether it comes in real time, faster, or all at once.

    `hear` and `finish` are plain computing and may run in a worker thread, one call at a time.
    `next`, `sounds_finished` and `num_waiting` may come at any time, everything else between such
    calls.

    Args:
        model: finds speech.
        engine_rate_hz: of the audio that the engine takes.
        vad: what clients cannot set of voice detection.
        config: the session's configuration at its start.
        cancels_echo: whether what is played meanwhile is taken out of what is heard.

    Attributes:
        decoded: what was heard since somebody took it, before anything is done to it; None where
            nobody wants it.
    """

    def __init__(
        self,
        model: SileroModel,
        engine_rate_hz: int,
        vad: VadSettings,
        config: SessionConfig,
        *,
        cancels_echo: bool = False,
    ) -> None:
        self._model = model
        self._rate_hz = engine_rate_hz
        self._vad = vad
        self.decoded: list[Pcm] | None = None
        self._num_samples = 0  # of all audio appended, at the engine's rate
        self._num_passed = 0  # of it, passed on
        self._stretches: deque[_Stretch] = deque()
        self._found: Heard | None = None  # at the end of the audio that was passed on last
        self._is_in_doubt = False
        self._segmenter: SpeechSegmenter | None = None
        self._format = config.input_format
        self._detection = config.turn_detection
        self._decoder = self._new_decoder()
        self._echo = EchoCanceller(engine_rate_hz) if cancels_echo else None
        self._echo_heard = Echo.NONE  # what the last audio had of it
        self._far = np.zeros(0, dtype=np.float32)  # played beside what the decoder holds back
        self._noise_reduction = config.noise_reduction
        self._noise = self._new_noise_reducer()
        self._restart_detection()

    @property
    def cancels_echo(self) -> bool:
        """Say whether it wants to know what is played."""
        return self._echo is not None

    @property
    def is_in_doubt(self) -> bool:
        """Say whether `next` said so last: what follows depends on the model's word."""
        return self._is_in_doubt and self._found is None

    @property
    def has_more(self) -> bool:
        """Say whether `next` may have something to return."""
        return self._found is not None or bool(self._stretches)

    @property
    def num_waiting(self) -> int:
        """Count the samples that were heard and not passed on yet."""
        return sum(len(stretch.pcm) for stretch in self._stretches)

    def configure(self, config: SessionConfig) -> None:
        """Follow a change of the session."""
        if config.input_format != self._format:
            self.finish()
            self._format = config.input_format
            self._decoder = self._new_decoder()
        if config.noise_reduction != self._noise_reduction:
            self._noise_reduction = config.noise_reduction
            if self._noise is not None:
                self._listen_to(self._noise.finish())
            self._noise = self._new_noise_reducer()
        if config.turn_detection != self._detection:
            self._detection = config.turn_detection
            self._is_in_doubt = False
            if self._detection is None:
                self._segmenter = None
            elif self._segmenter is None:
                self._restart_detection()
            else:
                self._segmenter.change_rules(self._rules(self._detection))

    def restart(self) -> None:
        """Begin anew after the buffer was committed or cleared by hand.

        What was not passed on yet is forgotten.
        """
        self._stretches.clear()
        self._found = None
        self._is_in_doubt = False
        self._num_passed = self._num_samples
        self._restart_detection()

    def finish(self) -> None:
        """Hear what is still held back of the audio so far."""
        self._digest(self._decoder.finish())
        if self._echo is not None:
            self._reduce_noise(self._echo.finish())
        if self._noise is not None:
            self._listen_to(self._noise.finish())

    def sounds_finished(self) -> None:
        """Note that the model says by itself that the user's turn sounds finished."""
        if self._segmenter is not None and not isinstance(self._detection, SemanticVad):
            self._segmenter.sounds_finished(is_finished=True)

    def seconds_of(self, data: bytes) -> float:
        """Return how long audio in the session's input format is."""
        return len(data) / self._bytes_per_s

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Cut audio in the session's input format: more than 10 s of it are not heard at once.

        What one piece takes on its way, as floats at several rates and as windows, is some ten
        times its own size.
        """
        step = _PIECE_S * self._bytes_per_s
        for start in range(0, len(data), step):
            yield data[start : start + step]

    def played(self, far: Pcm) -> None:
        """Note what was played while the audio was recorded that is heard next.

        Args:
            far: float32 [samples] at the engine's rate, as long as that audio; silence where this
                is not called.
        """
        self._far = np.concatenate((self._far, far)) if len(self._far) else far

    def hear_pcm(self, pcm: Pcm) -> None:
        """Hear audio that the transport decoded.

        Args:
            pcm: float32 [samples] at the engine's rate.
        """
        self._digest(pcm)

    def hear(self, data: bytes) -> None:
        """Hear appended audio.

        Args:
            data: one of `pieces`.
        """
        self._digest(self._decoder.decode(data))

    def next(self, *, is_finished: bool, would_interrupt: bool) -> Heard | None:
        """Return what was heard next, None if there is nothing more so far.

        Args:
            is_finished: after an `EndInDoubt`, whether the turn sounds finished to the model.
            would_interrupt: whether speech that begins would end a reply.
        """
        if self._found is not None:
            found, self._found = self._found, None
            return found
        # Window by window, and never further than a boundary: what lies beyond it may depend on
        # what the machine does with it.
        while self._stretches:
            stretch, segmenter = self._stretches[0], self._segmenter
            if not stretch.windows:
                self._stretches.popleft()
                if len(stretch.pcm):
                    return self._passed(stretch.pcm)
                continue
            window = stretch.windows[0]
            if segmenter is None:
                self._spotter.feed(stretch.windows.popleft().probability)
                continue
            if self._is_in_doubt:
                segmenter.sounds_finished(is_finished=is_finished)
                self._is_in_doubt = False
            elif segmenter.is_doubtful(window.probability):
                self._is_in_doubt = True
                return self._up_to(segmenter.now_ms + WINDOW_MS, EndInDoubt())
            stretch.windows.popleft()
            self._spotter.feed(window.probability)
            boundary = segmenter.feed(window, would_interrupt=would_interrupt)
            if boundary is not None:
                return self._up_to(boundary.at_ms, _heard(boundary))
        return None

    def decode_items(self, carried: list[bytes]) -> InputAudio:
        """Return the audio that an item carries, and whether there is speech in it.

        Args:
            carried: each part's, in the session's input format.
        """
        pcms: list[Pcm] = []
        part_samples: list[int] = []
        spotter = SpeechSpotter(self._vad.min_speech_ms)
        stream, to_vad_rate = SileroStream(self._model), StreamResampler(self._rate_hz, VAD_RATE_HZ)
        for data in carried:
            decoder = self._new_decoder()
            num_before = sum(map(len, pcms))
            decoded = (decoder.decode(piece) for piece in self.pieces(data))
            for pcm in itertools.chain(decoded, (decoder.finish() for _ in range(1))):
                pcms.append(pcm)
                for probability in stream.feed(to_vad_rate.feed(pcm)):
                    spotter.feed(probability)
            part_samples.append(sum(map(len, pcms)) - num_before)
        return InputAudio(np.concatenate(pcms), spotter.take(), tuple(part_samples))

    @property
    def _bytes_per_s(self) -> int:
        return self._format.rate_hz * (2 if self._format.encoding == "audio/pcm" else 1)

    def _digest(self, pcm: Pcm) -> None:
        """Take decoded audio."""
        if self.decoded is not None and len(pcm):
            self.decoded.append(pcm)
        if self._echo is None:
            self._reduce_noise(pcm)
            return
        # The decoder holds a little back at first and gives it later, so the two ends may differ in
        # length by that. What is missing is silence before it.
        missing = len(pcm) - len(self._far)
        if missing > 0:
            self._far = np.concatenate((np.zeros(missing, dtype=np.float32), self._far))
        beside, rest = self._far[: len(pcm)], self._far[len(pcm) :]
        self._far = rest[-int(_MAX_FAR_S * self._rate_hz) :].copy()
        # Whether there is an echo is found out while it is heard: not all of a long piece has the
        # same answer.
        step = self._rate_hz * _LOOK_MS // 1000
        if len(pcm) > step and not beside.any():
            step = len(pcm)
        for start in range(0, len(pcm), step):
            part = slice(start, start + step)
            self._reduce_noise(self._echo.feed(pcm[part], beside[part]))

    def _reduce_noise(self, pcm: Pcm) -> None:
        self._listen_to(pcm if self._noise is None else self._noise.feed(pcm))

    def _listen_to(self, pcm: Pcm) -> None:
        echo = Echo.NONE if self._echo is None else self._echo.state
        if echo is Echo.REMOVED and self._echo_heard is Echo.UNKNOWN:
            # Voice detection has heard the reply for a second, and would find its voice in what is
            # left of it for some windows more.
            self._stream.forget()
        self._echo_heard = echo
        windows = self._stream.windows(self._to_vad_rate.feed(pcm), echo)
        self._num_samples += len(pcm)
        self._stretches.append(_Stretch(pcm, deque(windows)))

    def _up_to(self, place_ms: int, found: Heard) -> Heard:
        """Return the audio before a place in the first stretch, and after it what is there."""
        stretch = self._stretches[0]
        # Windows are cut at 16 kHz and sound at the engine's rate. Both count milliseconds of all
        # that was appended, so a boundary is at the same moment in both.
        place = place_ms * self._rate_hz // 1000 - self._num_passed
        place = min(max(place, 0), len(stretch.pcm))
        if not place:
            return found
        pcm, stretch.pcm = stretch.pcm[:place], stretch.pcm[place:]
        self._found = found
        return self._passed(pcm)

    def _passed(self, pcm: Pcm) -> InputAudio:
        self._num_passed += len(pcm)
        if pcm.base is not None:
            pcm = pcm.copy()  # what is kept of a piece must not keep all of it
        return InputAudio(pcm, has_speech=self._spotter.take())

    def _new_decoder(self) -> AudioDecoder:
        audio_format: AudioFormat = self._format
        return AudioDecoder(audio_format.encoding, audio_format.rate_hz, self._rate_hz)

    def _new_noise_reducer(self) -> NoiseReducer | None:
        wanted = self._noise_reduction
        if wanted is None:
            return None
        return NoiseReducer(self._rate_hz, wanted["type"], wanted.get("strength", 1.0))

    def _restart_detection(self) -> None:
        self._stream = SileroStream(self._model)
        self._to_vad_rate = StreamResampler(self._rate_hz, VAD_RATE_HZ)
        self._spotter = SpeechSpotter(self._vad.min_speech_ms)
        if self._detection is not None:
            heard_ms = self._num_samples * 1000 // self._rate_hz
            self._segmenter = SpeechSegmenter(self._rules(self._detection), heard_ms)

    def _rules(self, detection: TurnDetection) -> VadRules:
        match detection:
            case ServerVad():
                return VadRules(
                    detection.threshold,
                    detection.prefix_padding_ms,
                    detection.silence_duration_ms,
                    self._vad.min_speech_ms,
                    self._vad.speculate_after_ms,
                    interruption=self._interruption,
                )
            case SemanticVad():
                return VadRules(
                    _SEMANTIC_THRESHOLD,
                    _SEMANTIC_PADDING_MS,
                    self._vad.max_wait_ms[detection.eagerness],
                    self._vad.min_speech_ms,
                    self._vad.speculate_after_ms,
                    self._vad.end_wait_ms[detection.eagerness],
                    interruption=self._interruption,
                )

    @property
    def _interruption(self) -> InterruptionRules:
        vad = self._vad
        return InterruptionRules(
            vad.interrupt_speech_ms, vad.interrupt_silence_ms, vad.interrupt_quieter_db
        )


def _heard(boundary: Boundary) -> Heard:
    match boundary:
        case SpeechStart():
            return SpeechBegan(boundary.start_ms)
        case SpeechPause():
            return SpeechPaused()
        case SpeechResumption():
            return SpeechResumed()
        case SpeechEnd():
            return SpeechEnded(boundary.at_ms, boundary.silence_ms)
        case InterruptionSuspected():
            return SpeechSuspected()
        case InterruptionDismissed():
            return SpeechDismissed()
        case _:
            assert_never(boundary)
