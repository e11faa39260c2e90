"""Hear a client's appended audio: decode it, and find where speech begins and ends in it."""

import base64
import binascii
from typing import assert_never

import numpy as np

from model.messages import Pcm
from server.audio.resample import StreamResampler
from server.audio.silero import VAD_RATE_HZ, SileroModel, SileroStream
from server.audio.vad import (
    Boundary,
    SpeechEnd,
    SpeechPause,
    SpeechResumption,
    SpeechSegmenter,
    SpeechStart,
    VadRules,
)
from server.audio.wire import AudioDecoder
from server.config import VadSettings
from server.errors import ClientError
from server.protocol.events import (
    Heard,
    InputAudio,
    SpeechBegan,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
)
from server.protocol.settings.config import (
    AudioFormat,
    SemanticVad,
    ServerVad,
    SessionConfig,
    TurnDetection,
)
from server.protocol.wire.checks import JsonObject

# The API's limit for one append, decoded.
_MAX_APPEND_BYTES = 15 * 1024 * 1024
# A semantic turn is found with the defaults of server_vad; only its end is found differently.
_SEMANTIC_THRESHOLD = 0.5
_SEMANTIC_PADDING_MS = 300


class Ears:
    """Turn appended audio into what was heard in it.

    `hear` is plain computing and may run in a worker thread, one call at a time; everything else
    runs between such calls. Only `sounds_finished` may come at any time.

    Args:
        model: finds speech.
        engine_rate_hz: of the audio that the engine takes.
        vad: what clients cannot set of voice detection.
        config: the session's configuration at its start.
    """

    def __init__(
        self, model: SileroModel, engine_rate_hz: int, vad: VadSettings, config: SessionConfig
    ) -> None:
        self._model = model
        self._rate_hz = engine_rate_hz
        self._vad = vad
        self._num_samples = 0  # of all audio heard, at the engine's rate
        self._format = config.input_format
        self._detection = config.turn_detection
        self._decoder = self._new_decoder()
        self._restart_detection()

    def configure(self, config: SessionConfig) -> list[Heard]:
        """Follow a change of the session; returns what the old audio format still held back."""
        heard: list[Heard] = []
        if config.input_format != self._format:
            heard = self._digest(self._decoder.finish())
            self._format = config.input_format
            self._decoder = self._new_decoder()
        if config.turn_detection != self._detection:
            self._detection = config.turn_detection
            if self._detection is None or self._segmenter is None:
                self._restart_detection()
            else:
                self._segmenter.change_rules(self._rules(self._detection))
        return heard

    def restart(self) -> None:
        """Begin anew after the buffer was committed or cleared by hand."""
        self._restart_detection()

    def finish(self) -> list[Heard]:
        """Return what the decoder still holds back of the audio so far."""
        return self._digest(self._decoder.finish())

    def sounds_finished(self) -> None:
        """Note that the model takes the user's turn for finished."""
        if self._segmenter is None:
            return
        enough_ms: int | None = None
        if isinstance(self._detection, SemanticVad):
            enough_ms = self._vad.end_wait_ms[self._detection.eagerness]
        self._segmenter.sounds_finished(enough_ms)

    def hear(self, audio: str) -> list[Heard]:
        """Return what was heard in appended audio, in order.

        Args:
            audio: base64 in the session's input format.
        """
        return self._digest(self._decoder.decode(decode_base64(audio, "audio")))

    def hear_pcm(self, pcm: Pcm) -> list[Heard]:
        """Return what was heard in audio that the transport decoded, in order.

        Args:
            pcm: float32 [samples] at the engine's rate.
        """
        return self._digest(pcm)

    def decode_items(self, carried: list[tuple[str, str]]) -> Pcm:
        """Return the audio that an item carries, at the engine's rate.

        Args:
            carried: see `carried_audio`.
        """
        pcms: list[Pcm] = []
        for audio, path in carried:
            decoder = self._new_decoder()
            pcms += [decoder.decode(decode_base64(audio, path)), decoder.finish()]
        return np.concatenate(pcms)

    def _digest(self, pcm: Pcm) -> list[Heard]:
        start = self._num_samples
        self._num_samples += len(pcm)
        if self._segmenter is None:
            return [InputAudio(pcm)] if len(pcm) else []
        heard: list[Heard] = []
        taken = 0
        for probability in self._stream.feed(self._to_vad_rate.feed(pcm)):
            boundary = self._segmenter.feed(probability)
            if boundary is None:
                continue
            place = boundary.at_ms * self._rate_hz // 1000 - start
            place = min(max(place, taken), len(pcm))
            heard += [InputAudio(pcm[taken:place])] if place > taken else []
            taken = place
            heard.append(_heard(boundary))
        return [*heard, InputAudio(pcm[taken:])] if taken < len(pcm) else heard

    def _new_decoder(self) -> AudioDecoder:
        audio_format: AudioFormat = self._format
        return AudioDecoder(audio_format.encoding, audio_format.rate_hz, self._rate_hz)

    def _restart_detection(self) -> None:
        self._stream = SileroStream(self._model)
        self._to_vad_rate = StreamResampler(self._rate_hz, VAD_RATE_HZ)
        self._segmenter: SpeechSegmenter | None = None
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
                )
            case SemanticVad():
                return VadRules(
                    _SEMANTIC_THRESHOLD,
                    _SEMANTIC_PADDING_MS,
                    self._vad.max_wait_ms[detection.eagerness],
                    self._vad.min_speech_ms,
                    self._vad.speculate_after_ms,
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
            return SpeechEnded(boundary.at_ms)
        case _:
            assert_never(boundary)


def carried_audio(item: JsonObject) -> list[tuple[str, str]]:
    """Return the base64 of each audio part of a raw item, with the part's path."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return [
        (part["audio"], f"item.content[{index}].audio")
        for index, part in enumerate(parts)
        if isinstance(part, dict)
        and part.get("type") == "input_audio"
        and isinstance(part.get("audio"), str)
    ]


def decode_base64(text: str, path: str) -> bytes:
    """Return the bytes; missing padding and line breaks are forgiven.

    Raises:
        ClientError: it is not base64, or too much.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        compact = "".join(text.split()).rstrip("=")
        try:
            data = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ClientError(
                f"Invalid '{path}': expected base64-encoded audio.",
                code="invalid_value",
                param=path,
            ) from None
    if len(data) > _MAX_APPEND_BYTES:
        raise ClientError(
            f"Invalid '{path}': too much audio. Expected at most {_MAX_APPEND_BYTES} bytes, but "
            f"got {len(data)} instead.",
            code="invalid_value",
            param=path,
        )
    return data
