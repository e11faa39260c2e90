"""Carry audio between a client's encoding and the engine's floats, in both directions."""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from server.audio.g711 import Law, decode_g711, encode_g711
from server.audio.pcm import PcmDecoder, encode_pcm
from server.audio.resample import StreamResampler

WireEncoding: TypeAlias = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]

_LAWS: dict[WireEncoding, Law] = {"audio/pcmu": "mu", "audio/pcma": "a"}


class AudioDecoder:
    """Turn a client's bytes into the engine's samples, as a stream."""

    def __init__(self, encoding: WireEncoding, rate_hz: int, engine_rate_hz: int) -> None:
        self._encoding: WireEncoding = encoding
        self._pcm = PcmDecoder()
        self._resampler = StreamResampler(rate_hz, engine_rate_hz)

    def decode(self, data: bytes) -> npt.NDArray[np.float32]:
        """Return the samples completed by `data`: float32 [samples] at the engine's rate."""
        law = _LAWS.get(self._encoding)
        samples = self._pcm.decode(data) if law is None else decode_g711(data, law)
        return self._resampler.feed(samples)

    def finish(self) -> npt.NDArray[np.float32]:
        """Return what the resampler still holds and begin a new stream.

        Half a sample that never got its other half stays for the next bytes.
        """
        return self._resampler.finish()


class AudioEncoder:
    """Turn the engine's samples into a client's bytes, as a stream of whole samples."""

    def __init__(self, encoding: WireEncoding, rate_hz: int, engine_rate_hz: int) -> None:
        self._encoding: WireEncoding = encoding
        self._resampler = StreamResampler(engine_rate_hz, rate_hz)

    def encode(self, pcm: npt.NDArray[np.float32]) -> bytes:
        """Return the bytes that `pcm`, float32 [samples] at the engine's rate, completes."""
        return self._to_bytes(self._resampler.feed(pcm))

    def finish(self) -> bytes:
        """Return the bytes of what the resampler still holds."""
        return self._to_bytes(self._resampler.finish())

    def _to_bytes(self, samples: npt.NDArray[np.float32]) -> bytes:
        law = _LAWS.get(self._encoding)
        return encode_pcm(samples) if law is None else encode_g711(samples, law)
