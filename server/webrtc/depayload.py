"""Find in packets of video what a decoder takes (RFC 7741, RFC 6184, RFC 7798).

A picture is made of a key frame alone. So two things matter in each packet: what it adds to its
frame, and whether that frame can be decoded without others.
"""

from enum import Enum
from struct import unpack_from

from aiortc.codecs.h264 import H264PayloadDescriptor
from aiortc.codecs.vpx import VpxPayloadDescriptor

from server.images.picture import VideoCodec

_START_CODE = b"\x00\x00\x00\x01"
# RFC 6184, section 5.2, table 1, and ITU-T H.264, table 7-1.
_H264_SPS, _H264_IDR = 7, 5
_H264_STAP_A, _H264_FU_A = 24, 28
# RFC 7798, sections 1.1.4 and 4.4, and ITU-T H.265, table 7-1.
_H265_VPS, _H265_SPS = 32, 33
_H265_FIRST_IRAP = 16  # pictures at which decoding can begin have this type or a higher one
_H265_AP, _H265_FU, _H265_PACI = 48, 49, 50


class Place(Enum):
    """Say what a packet tells of its frame."""

    KEY = "key"  # a key frame begins here
    OTHER = "other"  # it is part of a frame that needs earlier ones
    WITHIN = "within"  # it is part of some frame


def look(codec: VideoCodec, payload: bytes) -> Place:
    """Return what a packet tells of its frame.

    Raises:
        ValueError: it is none of this codec.
    """
    if codec == "vp8":
        # A frame begins where S is 1 and PID is 0 (RFC 7741, section 4.2). The lowest bit of its
        # first byte is 0 in a key frame (section 4.3).
        descriptor, data = VpxPayloadDescriptor.parse(payload)
        if not descriptor.partition_start or descriptor.partition_id or not data:
            return Place.WITHIN
        return Place.OTHER if data[0] & 1 else Place.KEY
    types = _h264_types(payload) if codec == "h264" else _h265_types(payload)
    # Senders put the parameter sets before each key frame. A decoder that is new for each picture
    # needs them, so a key frame without them is of no use here.
    begins = (_H264_SPS,) if codec == "h264" else (_H265_VPS, _H265_SPS)
    if any(each in begins for each in types):
        return Place.KEY
    others = range(1, _H264_IDR) if codec == "h264" else range(_H265_FIRST_IRAP)
    return Place.OTHER if any(each in others for each in types) else Place.WITHIN


def depayload(codec: VideoCodec, payload: bytes) -> bytes:
    """Return what a packet adds to its frame; of H.264 and H.265 with start codes (Annex B).

    Raises:
        ValueError: it is none of this codec.
    """
    match codec:
        case "vp8":
            data: bytes = VpxPayloadDescriptor.parse(payload)[1]
        case "h264":
            data = H264PayloadDescriptor.parse(payload)[1]
        case "h265":
            data = _h265(payload)
    return data


def _h264_types(payload: bytes) -> list[int]:
    """Return the types of the NAL units in a packet, or that of which it has a part."""
    if len(payload) < 2:
        raise ValueError("a packet of H.264 has two bytes or more")
    kind = payload[0] & 0x1F
    if kind == _H264_STAP_A:
        return [unit[0] & 0x1F for unit in _units(payload, 1)]
    # The second byte of a fragment is S, E, R and the type of the whole unit (RFC 6184, section
    # 5.8).
    return [payload[1] & 0x1F] if kind == _H264_FU_A else [kind]


def _h265_types(payload: bytes) -> list[int]:
    """Return the types of the NAL units in a packet, or that of which it has a part."""
    kind = _h265_type(payload)
    if kind == _H265_AP:
        return [_h265_type(unit) for unit in _units(payload, 2)]
    if kind == _H265_FU:
        if len(payload) < 4:
            raise ValueError("a fragment of H.265 has four bytes or more")
        return [payload[2] & 0x3F]
    return [kind]


def _h265_type(unit: bytes) -> int:
    if len(unit) < 3:
        raise ValueError("a unit of H.265 has three bytes or more")
    return (unit[0] >> 1) & 0x3F


def _h265(payload: bytes) -> bytes:
    kind = _h265_type(payload)
    if kind == _H265_AP:
        return b"".join(_START_CODE + unit for unit in _units(payload, 2))
    if kind == _H265_FU:
        (fragmented,) = _h265_types(payload)
        if not payload[2] & 0x80:
            # Two bytes of header and one of the fragment. Only the first fragment makes the unit's
            # own header again, of the type in the fragment's (RFC 7798, section 4.4.3).
            return payload[3:]
        return (
            _START_CODE + bytes([(payload[0] & 0x81) | (fragmented << 1), payload[1]]) + payload[3:]
        )
    if kind >= _H265_PACI:
        raise ValueError(f"packets of H.265 of type {kind} are not read")
    return _START_CODE + payload


def _units(payload: bytes, header_bytes: int) -> list[bytes]:
    """Return the units that are put together in a packet, each after its length."""
    units, at = [], header_bytes
    while at < len(payload):
        if at + 2 > len(payload):
            raise ValueError("a length is cut short")
        (size,) = unpack_from("!H", payload, at)
        unit = payload[at + 2 : at + 2 + size]
        if not size or len(unit) < size:
            raise ValueError("a unit is cut short")
        units.append(unit)
        at += 2 + size
    return units
