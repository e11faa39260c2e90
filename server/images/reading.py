"""Turn a file or a key frame into pixels, in whatever process this is called.

A file is read by Pillow, which is told what it may be (PNG, JPEG or WebP); the first frame of an
animated one counts. A frame of video is read by FFmpeg. Both know the size of a picture before they
decode it, and what has too many pixels is not decoded.
"""

import base64
import binascii
import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from model.messages import Pixels
from server.errors import ImageError
from server.images.picture import VideoCodec

_FORMATS = ("PNG", "JPEG", "WEBP")
# For eyes only: the model gets the pixels. More would be larger, and hardly look better.
_JPEG_QUALITY = 85
_EXIF_ORIENTATION = 0x0112
# What makes an image upright that was taken otherwise (Exif 2.32, section 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODERS = {"vp8": "vp8", "h264": "h264", "h265": "hevc"}

# Our own bound comes first, with an error of ours.
Image.MAX_IMAGE_PIXELS = None


def read_file(encoded: bytes, *, side: int, max_bytes: int, max_pixels: int) -> Pixels:
    """Return the pixels of an image file, upright, on white where it is transparent.

    Args:
        encoded: the file in base64; missing padding and line breaks are forgiven.
        side: a larger picture is made smaller, until neither of its sides is over this.
        max_bytes: of the file.
        max_pixels: of the picture in the file.

    Raises:
        ImageError: it is no picture of a kind that is read, is broken, or too large.
    """
    data = _from_base64(encoded)
    if len(data) > max_bytes:
        raise ImageError(f"the file has {len(data)} bytes, and at most {max_bytes} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which nobody needs
            return _file_pixels(data, side, max_pixels)
    except UnidentifiedImageError:
        raise ImageError("expected a PNG, JPEG or WebP file") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's readers fail in many ways, and mean one
        raise ImageError(f"the file is broken ({_told(error)})") from None


def _from_base64(encoded: bytes) -> bytes:
    compact = encoded.translate(None, b" \t\n\r\v\f").rstrip(b"=")
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except binascii.Error:
        raise ImageError("what follows 'base64,' is not base64") from None


def _file_pixels(data: bytes, side: int, max_pixels: int) -> Pixels:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        # `open` reads the header alone. A PNG of a few kilobytes may say that it has 100,000 ×
        # 100,000 pixels, which would be 30 GB.
        _check_size(*image.size, max_pixels)
        # Read now, since making it smaller drops it. Applied later, to fewer pixels.
        orientation = image.getexif().get(_EXIF_ORIENTATION)
        image.draft("RGB", (side, side))  # of a JPEG, only as much is decoded as is needed
        image.load()
        read: Image.Image = image
        if read.mode.startswith("I"):
            # 16 bits of grey, which Pillow does not scale when it converts them.
            # 65,535 >> 8 is 255. Pillow would cut off at 255 instead, and all would be white.
            grey = np.asarray(read).astype(np.uint32) >> 8
            read = Image.fromarray(grey.astype(np.uint8))
        read = read.convert("RGBA" if read.has_transparency_data else "RGB")
    read.thumbnail((side, side), reducing_gap=2.0)
    if orientation in _UPRIGHT:
        read = read.transpose(_UPRIGHT[orientation])
    if read.mode == "RGBA":
        paper = Image.new("RGBA", read.size, "white")
        read = Image.alpha_composite(paper, read).convert("RGB")
    return np.asarray(read)


def read_frame(data: bytes, *, codec: VideoCodec, side: int, max_pixels: int) -> Pixels:
    """Return the pixels of a frame that needs no other: a key frame with its parameter sets.

    Args:
        data: the frame; of H.264 and H.265 with start codes (Annex B).
        codec: that it is in.
        side: as of `read_file`.
        max_pixels: of the frame.

    Raises:
        ImageError: it is broken, or too large.
    """
    import av  # noqa: PLC0415 - large, and only for calls with a camera

    decoder: Any = av.CodecContext.create(_DECODERS[codec], "r")
    # FFmpeg's threads each take memory of their own, which is bounded here.
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(max_pixels)}
    try:
        # A decoder may hold a frame back for what follows it. None says that nothing does.
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise ImageError(f"the frame is broken ({_told(error)})") from None
    if not frames:
        raise ImageError("the frame is broken (nothing comes of it)")
    frame = frames[0]
    _check_size(frame.width, frame.height, max_pixels)
    image: Image.Image = frame.to_image()
    image.thumbnail((side, side), reducing_gap=2.0)
    return np.asarray(image)


def to_jpeg(pixels: Pixels) -> bytes:
    """Return a picture as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"the picture is {width} × {height}, and at most {max_pixels} pixels are read"
        )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]
