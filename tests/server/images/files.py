"""Make image files, good and bad."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

RED, GREEN, BLUE = (220, 30, 30), (30, 180, 60), (30, 60, 220)


def image_file(
    colour: tuple[int, ...] = RED,
    size: tuple[int, int] = (64, 48),
    kind: str = "PNG",
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """Return a picture of one colour as a file."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **options)
    return file.getvalue()


def encoded(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()


def data_url(data: bytes | None = None, kind: str = "png") -> str:
    """Return a file, or a red picture, as a data URL."""
    return f"data:image/{kind};base64,{encoded(image_file() if data is None else data)}"


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png_head(width: int, height: int) -> bytes:
    """Return the beginning of a PNG file in colour and transparency."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG file that is small and holds much."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(width * 4 + 1)) for _ in range(height)) + rows.flush()
    return png_head(width, height) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
