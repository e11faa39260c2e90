"""Key frames become pictures one at a time; only the newest waits."""

import asyncio

import pytest

from server.errors import ImageError
from server.images.picture import Picture
from server.images.service import ImageService
from server.webrtc.camera import Camera


class SlowImages(ImageService):
    """Decode when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: asyncio.Queue[bytes] = asyncio.Queue()
        self.may_end: asyncio.Queue[bool] = asyncio.Queue()

    async def prepare(self) -> None:
        """Need nothing."""

    async def frame(self, codec: str, data: bytes, side: int) -> Picture:
        """Return a picture whose file is the frame; refuse it if the test does."""
        assert (codec, side) == ("vp8", 640)
        self.begun.put_nowait(data)
        if not await self.may_end.get():
            raise ImageError("the frame is broken")
        return Picture(None, data)  # type: ignore[arg-type]  # nobody looks at it


async def test_the_newest_waits() -> None:
    """Of frames that come while one is decoded, the last is the next; a broken one is told."""
    images = SlowImages()
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    broken: list[None] = []
    camera = Camera(
        "vp8",
        images,
        640,
        lambda picture: seen.put_nowait(picture.jpeg),
        lambda: broken.append(None),
    )
    running = asyncio.create_task(camera.run())
    camera.frame(b"1")
    assert await images.begun.get() == b"1"
    for data in (b"2", b"3", b"4"):
        camera.frame(data)
    images.may_end.put_nowait(True)
    assert await seen.get() == b"1"
    assert await images.begun.get() == b"4"
    camera.frame(b"5")
    images.may_end.put_nowait(False)
    assert await images.begun.get() == b"5"
    assert broken == [None]
    images.may_end.put_nowait(True)
    assert await seen.get() == b"5"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
