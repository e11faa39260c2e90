"""Pictures are read elsewhere; what breaks or holds up the reader is refused, and nothing else."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest

from server.errors import ImageError
from server.images.service import ImageService
from server.images.worker import Bounds
from tests.server.images.files import BLUE, RED, encoded, huge_png, image_file
from tests.server.images.test_reading import key_frame

# In JPEG, two million markers that Pillow looks at one by one.
_SLOW = encoded(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000)


@pytest.fixture
async def service(no_tasks_left: None) -> AsyncIterator[ImageService]:
    """Give a service that ends its process with the test."""
    del no_tasks_left
    made = ImageService()
    yield made
    await made.close()


async def test_pictures(service: ImageService) -> None:
    """Files and frames are read by one process, which starts when it is needed."""
    assert service.counts.image_processes == 0
    file = await service.file(encoded(image_file(RED)), 768)
    frame = await service.frame("vp8", key_frame("libvpx", BLUE, (64, 48)), 32)
    assert file.pixels[0, 0].tolist() == list(RED)
    assert frame.pixels.shape == (24, 32, 3)
    assert file.jpeg[:2] == b"\xff\xd8"
    assert file.data_url.startswith("data:image/jpeg;base64,/9j/")
    assert file.num_bytes == 64 * 48 * 3 + len(file.jpeg)
    assert service.counts.image_processes == 1


async def test_many_at_once(service: ImageService) -> None:
    """Whoever waits gets their own picture."""
    sizes = range(1, 20)
    files = (service.file(encoded(image_file(size=(side, 1))), 768) for side in sizes)
    pictures = await asyncio.gather(*files)
    assert [picture.pixels.shape[1] for picture in pictures] == [*sizes]


async def test_refusals(service: ImageService) -> None:
    """What is refused ends nothing."""
    for text, reason in (
        ("AAAA", "expected a PNG"),
        ("ü", "not base64"),
        ("A" * (17 << 20), "at most 8388608"),
        (encoded(huge_png(4097, 4096)), "4097 × 4096"),
    ):
        with pytest.raises(ImageError, match=reason):
            await service.file(text, 768)
    assert service.counts.image_processes == 1


async def test_what_takes_too_long(service: ImageService) -> None:
    """A file that keeps its reader busy is refused once, and others are read by the next one."""
    service._bounds = Bounds(cpu_s=0.5)
    first = await service.file(encoded(image_file()), 768)
    with pytest.raises(ImageError, match="more time or memory"):
        await service.file(_SLOW, 768)
    assert (await service.file(encoded(image_file()), 768)).jpeg == first.jpeg
    assert service.counts.image_processes == 2


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux")
async def test_what_takes_too_much(service: ImageService) -> None:
    """A file for which there is no memory is refused, and others are read by the next process."""
    service._bounds = Bounds(memory_bytes=96 << 20)
    with pytest.raises(ImageError, match="more time or memory"):
        await service.file(encoded(huge_png(4096, 4096)), 768)
    service._bounds = Bounds()  # of the next process
    assert (await service.file(encoded(image_file()), 768)).pixels.shape == (48, 64, 3)


async def test_a_process_that_others_end(service: ImageService) -> None:
    """A picture is read all the same."""
    await service.file(encoded(image_file()), 768)
    assert service._process is not None
    os.kill(service._process.pid, signal.SIGKILL)
    assert (await service.file(encoded(image_file()), 768)).pixels.shape == (48, 64, 3)
    assert service.counts.image_processes == 2


async def test_who_is_gone(service: ImageService) -> None:
    """Half an answer to somebody who has left is not the next one's."""
    await service.file(encoded(image_file()), 768)
    leaving = asyncio.create_task(service.file(encoded(image_file(RED, (8, 8))), 768))
    await asyncio.to_thread(lambda: None)  # it is on its way by now
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    picture = await service.file(encoded(image_file(BLUE, (9, 9))), 768)
    assert np.array_equal(picture.pixels, np.full((9, 9, 3), BLUE))
    assert service.counts.image_processes == 1


async def test_the_end_in_the_middle() -> None:
    """What is being read when the service closes is not read."""
    service = ImageService()
    await service.file(encoded(image_file()), 768)
    process = service._process
    assert process is not None
    reading = asyncio.create_task(service.file(_SLOW, 768))
    await asyncio.to_thread(lambda: None)  # it is on its way by now
    await service.close()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert process.returncode is not None
