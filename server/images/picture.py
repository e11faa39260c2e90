"""Hold a picture as a model is given it and as a client is shown it."""

import base64
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from model.messages import Pixels

VideoCodec: TypeAlias = Literal["vp8", "h264", "h265"]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Hold one picture in its two canonical forms.

    Attributes:
        pixels: sRGB, uint8 [height, width, 3], for the model.
        jpeg: the same as a JPEG file, for clients that ask for it.
    """

    pixels: Pixels = field(repr=False)
    jpeg: bytes = field(repr=False)

    @property
    def num_bytes(self) -> int:
        """Return how much memory it takes."""
        return self.pixels.nbytes + len(self.jpeg)

    @property
    def data_url(self) -> str:
        """Return it as a data URL (RFC 2397)."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"
