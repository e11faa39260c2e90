"""Make pictures of a call's video, without ever holding up its sound."""

import asyncio
from collections.abc import Callable

from server.errors import ImageError
from server.images.picture import Picture, VideoCodec
from server.images.service import ImageService


class Camera:
    """Have key frames decoded, one at a time; while one is, only the newest other waits.

    Args:
        codec: of the frames.
        images: decodes them.
        side: largest side of a picture, in pixels.
        see: takes a picture.
        again: called where a frame is broken.
    """

    def __init__(
        self,
        codec: VideoCodec,
        images: ImageService,
        side: int,
        see: Callable[[Picture], None],
        again: Callable[[], None],
    ) -> None:
        self._codec: VideoCodec = codec
        self._images = images
        self._side = side
        self._see = see
        self._again = again
        self._waiting: bytes | None = None
        self._has_frame = asyncio.Event()

    def frame(self, data: bytes) -> None:
        """Take a key frame in place of one that waits."""
        # A picture takes its time to decode, and may wait for those of other calls. A queue would
        # show the model what was there some time ago; the newest frame is what it should see.
        self._waiting = data
        self._has_frame.set()

    async def run(self) -> None:
        """Decode what comes, until this is cancelled."""
        await self._images.prepare()
        while True:
            await self._has_frame.wait()
            self._has_frame.clear()
            data, self._waiting = self._waiting, None
            assert data is not None, "there is a frame"
            try:
                self._see(await self._images.frame(self._codec, data, self._side))
            except ImageError:
                self._again()
