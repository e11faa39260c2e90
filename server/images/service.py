"""Have pictures read by a process that is limited, and started when it is first needed."""

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import structlog

from server.config import IMAGE_DEFAULTS
from server.errors import ImageError
from server.images.picture import Picture, VideoCodec
from server.images.worker import LENGTHS, Bounds, framed
from server.names import ROOT

_BEYOND = "it takes more time or memory to read than a picture may take"
_PIECE_BYTES = 1 << 18

_log = structlog.get_logger("images")


class ImageService:
    """Read pictures, one at a time; who waits is served in turn.

    A picture that its process did not survive is refused, and the next one finds a new process.

    Args:
        max_bytes: of an image file.
        max_pixels: of a picture before it is made smaller.
        bounds: of the reading.

    Attributes:
        num_starts: processes that were started.
    """

    def __init__(
        self,
        *,
        max_bytes: int = IMAGE_DEFAULTS.max_bytes,
        max_pixels: int = IMAGE_DEFAULTS.max_pixels,
        bounds: Bounds | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._bounds = bounds or Bounds()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Picture]] = set()
        self._process: asyncio.subprocess.Process | None = None
        self.num_starts = 0

    async def file(self, encoded: str, side: int) -> Picture:
        """Read a PNG, JPEG or WebP file.

        Args:
            encoded: the file, in base64.
            side: largest side of what is made of it, in pixels.

        Raises:
            ImageError: it is none, is broken, or too large.
        """
        # Three bytes are four characters; spaces may stand between them.
        # A first look that costs nothing; the exact size is known once it is decoded, which the
        # other process does.
        if len(encoded) > 2 * self._max_bytes:
            raise ImageError(
                f"the file has about {len(encoded) * 3 // 4} bytes, and at most {self._max_bytes} "
                "are read"
            )
        data = encoded.encode("ascii", "replace")
        return await self._read(
            {"side": side, "max_bytes": self._max_bytes, "max_pixels": self._max_pixels}, data
        )

    async def frame(self, codec: VideoCodec, data: bytes, side: int) -> Picture:
        """Read a key frame of video; see `server.images.reading.read_frame`.

        Raises:
            ImageError: it is broken, or too large.
        """
        return await self._read(
            {"codec": codec, "side": side, "max_pixels": self._max_pixels}, data
        )

    async def prepare(self) -> None:
        """Start the process and let it load what frames need: the first picture comes sooner."""
        with contextlib.suppress(ImageError):
            await self.frame("vp8", b"", 1)

    async def close(self) -> None:
        """End the process, and what it was doing; it is started again if it is needed."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end()

    async def _read(self, job: dict[str, Any], data: bytes) -> Picture:
        # A task of its own: where whoever asked is gone, half an answer would be the next one's.
        task = asyncio.create_task(self._done(framed(job, data)), name="read a picture")
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return await asyncio.shield(task)

    def _let_go(self, task: asyncio.Task[Picture]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else may be there to take it

    async def _done(self, message: bytes) -> Picture:
        async with self._turn:
            answer = await self._survived(message)
            if answer is None:
                _log.warning("a picture is refused: its reader did not survive it")
                raise ImageError(_BEYOND)
            return _picture(*answer)

    async def _survived(self, message: bytes) -> tuple[dict[str, Any], bytes] | None:
        """Return the answer to a message; None if no process survives it."""
        is_new = False
        while not is_new:
            is_new = self._process is None
            try:
                process = await self._running()
            except OSError as error:
                _log.error("the process for pictures could not be started", error=str(error))
                return None
            try:
                # Two clocks: the process ends itself after 2 s of work (SIGPROF), and after 15 s on
                # the wall it is killed, whatever it waits for.
                async with asyncio.timeout(self._bounds.wall_s):
                    return await _answer(process, message)
            except TimeoutError:
                await self._end()
                return None
            except (OSError, asyncio.IncompleteReadError):
                await self._end()
                # It ran out of time over this picture, and would again.
                if process.returncode == -signal.SIGPROF:
                    return None
            # Perhaps others have ended it, or used its memory up; in a new one it is alone.
        return None

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "server.images.worker",
                json.dumps(asdict(self._bounds)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # libraries complain there about pictures
                limit=_PIECE_BYTES,
            )
            self.num_starts += 1
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            # What has ended by itself, and was not waited for yet, keeps its own return code.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.communicate()  # its pipes close when they have been read


async def _answer(
    process: asyncio.subprocess.Process, message: bytes
) -> tuple[dict[str, Any], bytes]:
    """Hand a message over and wait for its answer.

    Raises:
        OSError, asyncio.IncompleteReadError: the process did not survive it.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(message)
    await process.stdin.drain()
    head_bytes, data_bytes = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    head = json.loads(await process.stdout.readexactly(head_bytes))
    return head, await process.stdout.readexactly(data_bytes)


def _picture(head: dict[str, Any], data: bytes) -> Picture:
    if "refused" in head:
        raise ImageError(head["refused"])
    height, width = head["height"], head["width"]
    pixels = np.frombuffer(data, dtype=np.uint8, count=height * width * 3)
    return Picture(pixels.reshape(height, width, 3), data[pixels.nbytes :])
