"""Turn 16-bit little-endian PCM into floats and back."""

import numpy as np
import numpy.typing as npt

_FULL_SCALE = np.float32(32768.0)  # 2**15, of 16-bit samples
_LEAST, _MOST = -_FULL_SCALE, _FULL_SCALE - np.float32(1.0)
_SAMPLE_BYTES = 2


class PcmDecoder:
    """Decode a stream of PCM16 bytes; a sample may be cut between two chunks."""

    def __init__(self) -> None:
        self._dangling = b""

    def decode(self, data: bytes) -> npt.NDArray[np.float32]:
        """Return the samples completed by `data`: float32 [samples] in [-1, 1)."""
        if self._dangling:
            data = self._dangling + data
        whole = len(data) - len(data) % _SAMPLE_BYTES
        self._dangling = data[whole:]
        samples = np.frombuffer(data, dtype="<i2", count=whole // _SAMPLE_BYTES)
        return samples.astype(np.float32) / _FULL_SCALE


def encode_pcm(pcm: npt.NDArray[np.float32]) -> bytes:
    """Return PCM16 bytes of float32 [samples]; what is out of [-1, 1) is clipped."""
    # In place, by methods: dozens of short frames a second come here for each session.
    scaled = pcm * _FULL_SCALE
    np.rint(scaled, out=scaled)
    scaled.clip(_LEAST, _MOST, out=scaled)
    return scaled.astype("<i2").tobytes()
