"""Files and frames become pixels, upright and bounded; what is none is refused by name."""

import io
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from server.errors import ImageError
from server.images.picture import VideoCodec
from server.images.reading import read_file, read_frame, to_jpeg
from tests.server.images.files import BLUE, RED, chunk, encoded, huge_png, image_file, png_head

_BOUNDS = {"side": 256, "max_bytes": 1 << 20, "max_pixels": 1 << 20}


def read(data: bytes, **bounds: int) -> np.ndarray[Any, Any]:
    """Read a file within bounds."""
    return read_file(encoded(data).encode(), **{**_BOUNDS, **bounds})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_kinds(kind: str) -> None:
    """Each kind of file gives the same picture, in the canonical form."""
    pixels = read(image_file(kind=kind))
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
    assert np.abs(pixels.reshape(-1, 3).mean(0) - RED).max() < 6


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", (90,), (90, 90, 90)),
        ("LA", (90, 255), (90, 90, 90)),
        ("1", (1,), (255, 255, 255)),
        ("RGBA", (220, 30, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("P", (0,), (0, 0, 0)),
    ],
)
def test_colour_modes(mode: str, colour: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Grey, palettes and transparency become colours on white."""
    whole = colour if len(colour) > 1 else colour[0]
    pixels = read(image_file(whole, mode=mode))  # type: ignore[arg-type]  # one channel is a number
    assert pixels[0, 0].tolist() == list(expected)


def test_sixteen_bits() -> None:
    """Sixteen bits of grey are scaled to eight."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0x4000, dtype=np.uint16)).save(file, "PNG")
    assert read(file.getvalue())[0, 0].tolist() == [0x40] * 3


def test_size() -> None:
    """What is larger than asked is made smaller, in proportion; what is smaller stays."""
    assert read(image_file(size=(800, 400))).shape == (128, 256, 3)
    assert read(image_file(size=(800, 400), kind="JPEG")).shape == (128, 256, 3)
    assert read(image_file(size=(1, 700))).shape == (256, 1, 3)
    assert read(image_file(size=(3, 2))).shape == (2, 3, 3)


def test_orientation() -> None:
    """A picture that a telephone has taken on its side stands upright."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    pixels = read(file.getvalue())
    assert pixels.shape == (40, 20, 3)
    assert pixels[0, 0].tolist() == list(BLUE)
    assert pixels[-1, 0].tolist() == list(RED)


def test_the_first_of_several() -> None:
    """Of what moves, the first frame counts."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert read(file.getvalue())[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected a PNG, JPEG or WebP file"),
        (b"hello", "expected a PNG, JPEG or WebP file"),
        (image_file(kind="GIF"), "expected a PNG, JPEG or WebP file"),
        (image_file(kind="TIFF"), "expected a PNG, JPEG or WebP file"),
        (image_file()[:90], "the file is broken"),
        (image_file(kind="JPEG", size=(640, 480))[:700], "the file is broken"),
        (image_file(kind="WEBP")[:40], "the file is broken"),
        (png_head(0, 5) + chunk(b"IEND", b""), "expected a PNG, JPEG or WebP file"),
        (image_file() + bytes(1 << 20), "and at most 1048576 are read"),
        (huge_png(2000, 2000), "the picture is 2000 × 2000, and at most 1048576 pixels"),
        (png_head(1 << 30, 1 << 30) + chunk(b"IEND", b""), "at most 1048576 pixels"),
    ],
)
def test_refusals(data: bytes, reason: str) -> None:
    """What is no picture, is broken or too large says so."""
    with pytest.raises(ImageError, match=reason):
        read(data)


def test_a_bomb_beside_the_picture() -> None:
    """Text that unpacks to hundreds of megabytes is not unpacked."""
    text = b"Comment\0\0" + zlib.compress(bytes(200 << 20))
    bomb = png_head(4, 4) + chunk(b"zTXt", text)
    with pytest.raises(ImageError, match="the file is broken"):
        read(bomb)


@pytest.mark.parametrize("text", ["a", "not base64!", "AAAA====A"])
def test_not_base64(text: str) -> None:
    """What is not base64 says so."""
    with pytest.raises(ImageError, match="not base64"):
        read_file(text.encode(), **_BOUNDS)


def test_base64_that_is_forgiven() -> None:
    """Line breaks and missing padding are forgiven, as in sound."""
    text = encoded(image_file()).rstrip("=")
    broken = "\r\n".join(text[start : start + 60] for start in range(0, len(text), 60))
    assert read_file(broken.encode(), **_BOUNDS).shape == (48, 64, 3)


def key_frame(encoder: str, colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    """Return a picture of one colour as a key frame."""
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 30)
    image = np.full((size[1], size[0], 3), colour, dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
    packets = [*context.encode(frame), *context.encode(None)]
    return bytes(packets[0])


CODECS: list[tuple[VideoCodec, str]] = [
    ("vp8", "libvpx"),
    ("h264", "libx264"),
    ("h265", "libx265"),
]


@pytest.mark.parametrize(("codec", "encoder"), CODECS)
def test_frames(codec: VideoCodec, encoder: str) -> None:
    """A key frame of each codec gives its picture, made smaller; what is none is refused."""
    data = key_frame(encoder, RED, (320, 240))
    pixels = read_frame(data, codec=codec, side=160, max_pixels=1 << 20)
    assert pixels.shape == (120, 160, 3)
    assert np.abs(pixels.reshape(-1, 3).mean(0) - RED).max() < 12
    for broken in (b"", b"\0\0\0\1hello", data[:9]):
        with pytest.raises(ImageError, match="the frame is broken"):
            read_frame(broken, codec=codec, side=160, max_pixels=1 << 20)
    with pytest.raises(ImageError):
        read_frame(data, codec=codec, side=160, max_pixels=320 * 239)


def test_the_canonical_file() -> None:
    """What clients are shown is the picture that the model is given."""
    pixels = read(image_file())
    again = read(to_jpeg(pixels))
    assert np.abs(again.astype(int) - pixels).max() < 6
