"""Settings of pictures."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from server.config.strict import Strict


class ImageSettings(Strict):
    """What pictures may be, where the model sees; see docs/security.md.

    Attributes:
        max_side: `detail` of an item → largest side, in pixels, of what the model is given; what is
            larger is made smaller. Cameras have that of "auto".
        max_bytes: of an image file, decoded from base64.
        max_pixels: of a picture before it is made smaller.
        max_of_item: pictures of one item.
        max_kept_bytes: pictures of one conversation as the model is given them, three bytes a
            pixel, and as clients are shown them. Past it the oldest are forgotten; one item may not
            have more.
    """

    # 768 × 768 pixels of three bytes are 1.8 MB.
    max_side: Mapping[str, int] = Field(default={"low": 256, "auto": 768, "high": 768})
    max_bytes: Annotated[int, Field(ge=1_024)] = 8 * 1_024 * 1_024
    # Decoded, 16 Mi pixels are 48 MiB, or 64 MiB with transparency; the reader may have 768 MiB.
    max_pixels: Annotated[int, Field(ge=4_096)] = 16 * 1_024 * 1_024
    max_of_item: Annotated[int, Field(ge=1)] = 8
    max_kept_bytes: Annotated[int, Field(ge=1_024)] = 8 * 1_024 * 1_024

    @model_validator(mode="after")
    def _all_details(self) -> "ImageSettings":
        if set(self.max_side) != {"low", "auto", "high"}:
            raise ValueError("max_side needs exactly the keys auto, high, low")
        if not all(16 <= side <= 4_096 for side in self.max_side.values()):
            raise ValueError("max_side: sides are 16 to 4096")
        return self


IMAGE_DEFAULTS = ImageSettings()
"""As `DEFAULTS`, of pictures."""
