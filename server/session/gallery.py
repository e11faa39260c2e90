"""Read the pictures that a session's events bring."""

from collections.abc import Mapping

from server.config.images import ImageSettings
from server.errors import ClientError, ImageError
from server.images.picture import Picture
from server.images.service import ImageService
from server.protocol.wire.client_events import ItemCreate, ResponseCreate
from server.protocol.wire.images import carried_images


class Gallery:
    """Hand an event's pictures to whoever reads them, one after another.

    All sessions share it.

    Args:
        images: reads them.
        settings: how large they may be.
        image_side: largest side that the model takes, in pixels; 0 if it cannot see.
    """

    def __init__(self, images: ImageService, settings: ImageSettings, image_side: int) -> None:
        self.images = images
        self._settings = settings
        self._image_side = image_side

    @property
    def sees(self) -> bool:
        """Say whether pictures are read at all."""
        return self._image_side > 0

    def side(self, detail: str) -> int:
        """Return the largest side of what the model is given of a picture."""
        return min(self._settings.max_side[detail], self._image_side)

    async def pictures(self, event: ItemCreate | ResponseCreate) -> Mapping[str, Picture] | None:
        """Return the pictures that an event carries, by their parts' paths.

        None where the model cannot see: then nothing is read, and whoever takes the event refuses
        them.

        Raises:
            ClientError: one is not written as it must be, cannot be read, or is one too many.
        """
        if not self.sees:
            return None
        carried = carried_images(event)
        if len(carried) > self._settings.max_of_item:
            raise ClientError(
                f"Too many images: expected at most {self._settings.max_of_item} in an event, but "
                f"got {len(carried)} instead.",
                code="array_above_max_length",
                param=carried[self._settings.max_of_item].path,
            )
        found: dict[str, Picture] = {}
        for image in carried:
            try:
                found[image.path] = await self.images.file(image.encoded, self.side(image.detail))
            except ImageError as error:
                path = f"{image.path}.image_url"
                raise ClientError(
                    f"Invalid '{path}': {error}.", code="invalid_value", param=path
                ) from None
        return found
