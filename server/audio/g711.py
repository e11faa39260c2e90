"""Decode and encode G.711, the telephone's logarithmic 8-bit audio.

Both laws cut each sign's range into eight segments of sixteen equal steps, each segment twice as
steep as the one before. Decoding is a table of 256 values; encoding finds the nearest of them.

Source: ITU-T Recommendation G.711, tables 1 and 2.
"""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Law: TypeAlias = Literal["mu", "a"]

_FULL_SCALE = 32768.0  # 16-bit samples
_MU_BIAS = 0x84  # 33 << 2: the mu-law's offset, at 16 bits


def _mu_law_values() -> npt.NDArray[np.int32]:
    code = ~np.arange(256) & 0xFF  # all bits are sent inverted
    segment, step = (code >> 4) & 7, code & 15
    # For example, the byte 0x80 becomes 0x7F: segment 7, step 15. ((15 · 8 + 132) · 128) - 132 =
    # 32,124, the loudest value. The byte 0xFF is 0.
    magnitude = (((step << 3) + _MU_BIAS) << segment) - _MU_BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int32)


def _a_law_values() -> npt.NDArray[np.int32]:
    code = np.arange(256) ^ 0x55  # every other bit is sent inverted
    segment, step = (code >> 4) & 7, code & 15
    # For example, 0xAA becomes 0xFF: (15 · 16 + 264) · 64 = 32,256, the loudest value. There is no
    # zero: the quietest are +8 (0xD5) and -8 (0x55).
    magnitude = np.where(
        segment == 0, (step << 4) + 8, ((step << 4) + 0x108) << np.maximum(segment - 1, 0)
    )
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int32)


_VALUES: dict[Law, npt.NDArray[np.int32]] = {"mu": _mu_law_values(), "a": _a_law_values()}


def _nearest_codes(values: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return the code of the nearest value for each of the 65,536 16-bit samples."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    halfway = (ascending[1:] + ascending[:-1]) / 2
    return order[np.searchsorted(halfway, np.arange(-32768, 32768))].astype(np.uint8)


_CODES: dict[Law, npt.NDArray[np.uint8]] = {law: _nearest_codes(v) for law, v in _VALUES.items()}


def decode_g711(data: bytes, law: Law) -> npt.NDArray[np.float32]:
    """Return float32 [samples] in [-1, 1) of one byte a sample."""
    values = _VALUES[law][np.frombuffer(data, dtype=np.uint8)]
    return values.astype(np.float32) / np.float32(_FULL_SCALE)


def encode_g711(pcm: npt.NDArray[np.float32], law: Law) -> bytes:
    """Return one byte a sample of float32 [samples]; what is out of [-1, 1) is clipped."""
    scaled = np.clip(np.rint(pcm * np.float32(_FULL_SCALE)), -_FULL_SCALE, _FULL_SCALE - 1)
    codes: npt.NDArray[np.uint8] = _CODES[law][scaled.astype(np.int32) + 32768]
    return codes.tobytes()
