"""Encode and decode Opus (RFC 6716) with libopus.

Bound by hand, because what a call needs most is what wrappers leave out: concealment of what is
lost, in-band forward error correction on receipt, and decoding at the engine's own rate.
"""

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path

import numpy as np

from model.messages import Pcm
from server.errors import ConfigError, TransportError

RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Rates at which Opus is coded; any other is an error."""
FRAME_MS = 20

_MAX_PACKET_BYTES = 1_275  # RFC 6716, section 3.2.1
_MAX_FRAME_MS = 120
_COMPLEXITY = 5  # of 10: half the time of 10, and hardly a difference to hear
# From opus_defines.h.
_APPLICATION_VOIP = 2_048
_SET_BITRATE = 4_002
_SET_COMPLEXITY = 4_010
_SET_INBAND_FEC = 4_012
_SET_PACKET_LOSS_PERC = 4_014
_SET_SIGNAL = 4_024
_SIGNAL_VOICE = 3_001


class OpusError(TransportError):
    """Report a packet that is not Opus."""


@cache
def library() -> ctypes.CDLL:
    """Return libopus: the system's, else the one that PyAV's wheel carries.

    Raises:
        ConfigError: there is none.
    """
    name = ctypes.util.find_library("opus") or _bundled()
    if name is None:
        raise ConfigError(
            "webrtc.enabled: libopus was not found. Install it (Debian: libopus0), or set "
            "webrtc.enabled=false"
        )
    lib = ctypes.CDLL(name)
    for create in (lib.opus_encoder_create, lib.opus_decoder_create):
        create.restype = ctypes.c_void_p
    for number in (lib.opus_encode_float, lib.opus_decode_float, lib.opus_packet_get_nb_samples):
        number.restype = ctypes.c_int
    lib.opus_strerror.restype = ctypes.c_char_p
    return lib


def _bundled() -> str | None:
    import av  # noqa: PLC0415 - only where the system has no libopus, and only for its place

    package = Path(av.__file__).parent
    places = (package.parent / "av.libs", package / ".dylibs")
    found = [path for place in places for path in sorted(place.glob("libopus-*"))]
    return str(found[0]) if found else None


class OpusEncoder:
    """Encode mono speech, 20 ms a packet.

    Args:
        rate_hz: of the samples, one of `RATES_HZ`.
        bitrate: bits a second.
        fec: whether packets may carry what the one before said, once losses are expected.
    """

    def __init__(self, rate_hz: int, bitrate: int, *, fec: bool = True) -> None:
        assert rate_hz in RATES_HZ
        self._lib = library()
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(
            # One channel. The mode for speech puts intelligibility above sameness.
            self._lib.opus_encoder_create(rate_hz, 1, _APPLICATION_VOIP, ctypes.byref(error))
        )
        assert error.value == 0, "the arguments are right"
        self.frame_samples = rate_hz * FRAME_MS // 1000
        self._samples = np.empty(self.frame_samples, dtype=np.float32)
        # Kept, since numpy makes one anew each time.
        self._samples_at = ctypes.c_void_p(self._samples.ctypes.data)
        self._buffer = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
        for request, value in (
            (_SET_BITRATE, bitrate),
            (_SET_COMPLEXITY, _COMPLEXITY),
            (_SET_SIGNAL, _SIGNAL_VOICE),
            (_SET_INBAND_FEC, int(fec)),
        ):
            self._set(request, value)

    def expect_loss(self, percent: int) -> None:
        """Prepare for lost packets: correction costs quality where nothing is lost."""
        self._set(_SET_PACKET_LOSS_PERC, percent)

    def encode(self, pcm: Pcm) -> bytes:
        """Return the packet of one frame.

        Args:
            pcm: float32 [frame_samples] in [−1, 1]; beyond that it is clipped.
        """
        assert len(pcm) == self.frame_samples
        # libopus would code what is beyond as it is, and a client that decodes to 16 bits would
        # clip it (opus.h, opus_encode_float).
        np.maximum(pcm, -1.0, out=self._samples)
        np.minimum(self._samples, 1.0, out=self._samples)
        size = self._lib.opus_encode_float(
            self._state,
            self._samples_at,
            self.frame_samples,
            self._buffer,
            _MAX_PACKET_BYTES,
        )
        assert size > 0, f"opus_encode: {size}"
        return self._buffer.raw[:size]

    def close(self) -> None:
        """Free the encoder; it is not used again."""
        self._lib.opus_encoder_destroy(self._state)
        self._state = ctypes.c_void_p()

    def _set(self, request: int, value: int) -> None:
        result = self._lib.opus_encoder_ctl(self._state, request, ctypes.c_int(value))
        assert result == 0, f"opus_encoder_ctl({request}): {result}"


class OpusDecoder:
    """Decode to mono at a rate of ours, whatever the sender coded.

    Args:
        rate_hz: one of `RATES_HZ`.
    """

    def __init__(self, rate_hz: int) -> None:
        assert rate_hz in RATES_HZ
        self._lib = library()
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(
            self._lib.opus_decoder_create(rate_hz, 1, ctypes.byref(error))
        )
        assert error.value == 0, "the arguments are right"
        self._rate_hz = rate_hz
        # A packet holds 120 ms at most (RFC 6716, section 3.2.5): 2,880 samples at 24 kHz.
        self._buffer = np.empty(rate_hz * _MAX_FRAME_MS // 1000, dtype=np.float32)
        self._buffer_at = ctypes.c_void_p(self._buffer.ctypes.data)

    def num_samples(self, packet: bytes) -> int:
        """Return how many samples a packet holds.

        Raises:
            OpusError: it is no packet.
        """
        return self._checked(
            self._lib.opus_packet_get_nb_samples(packet, len(packet), self._rate_hz)
        )

    def decode(self, packet: bytes) -> Pcm:
        """Return the sound of the next packet: float32 [samples].

        Raises:
            OpusError: it is no packet.
        """
        if not packet:
            raise OpusError("the packet is empty")
        return self._decoded(packet, len(self._buffer), is_before=False)

    def recover(self, packet: bytes, num_samples: int) -> Pcm:
        """Return the sound that was lost just before a packet, from the packet's copy of it.

        Without a copy in it, the loss is concealed.

        Args:
            packet: the next one that arrived; it is decoded afterwards.
            num_samples: lost, a multiple of 2.5 ms.

        Raises:
            OpusError: it is no packet.
        """
        return self._decoded(packet, num_samples, is_before=True)

    def conceal(self, num_samples: int) -> Pcm:
        """Return a guess of what was lost: a multiple of 2.5 ms, up to 120 ms."""
        return self._decoded(None, num_samples, is_before=False)

    def close(self) -> None:
        """Free the decoder; it is not used again."""
        self._lib.opus_decoder_destroy(self._state)
        self._state = ctypes.c_void_p()

    def _decoded(self, packet: bytes | None, num_samples: int, *, is_before: bool) -> Pcm:
        assert num_samples <= len(self._buffer)
        length = self._checked(
            self._lib.opus_decode_float(
                self._state,
                packet,
                len(packet) if packet is not None else 0,
                self._buffer_at,
                num_samples,
                int(is_before),
            )
        )
        # The buffer is the next packet's as well.
        return self._buffer[:length].copy()

    def _checked(self, result: int) -> int:
        if result < 0:
            reason = self._lib.opus_strerror(result).decode()
            raise OpusError(f"not an Opus packet: {reason}")
        return int(result)
