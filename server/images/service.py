"""Have pictures read by a process that is limited, and started when it is first needed."""

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import structlog

from model.metrics import counter
from server.config.images import IMAGE_DEFAULTS
from server.errors import ImageError
from server.images.picture import Picture, VideoCodec
from server.images.worker import LENGTHS, Bounds, framed
from server.names import ROOT

_BEYOND = "it takes more time or memory to read than a picture may take"
_PIECE_BYTES = 1 << 18

_log = structlog.get_logger("images")


@dataclass(slots=True)
class ImageCounts:
    """Hold what is counted of pictures since the service was made."""

    image_files: Annotated[int, counter("Picture files that were read.")] = 0
    image_frames: Annotated[int, counter("Pictures of cameras that were read.")] = 0
    image_refusals: Annotated[int, counter("Files and frames that could not be read.")] = 0
    image_processes: Annotated[
        int,
        counter("Processes that were started to read pictures, the next one where one had ended."),
    ] = 0


class ImageService:
    """Read pictures, one at a time; who waits is served in turn.

    A picture that its process did not survive is refused, and the next one finds a new process.

    Args:
        max_bytes: of an image file.
        max_pixels: of a picture before it is made smaller.
        bounds: of the reading.

    Attributes:
        counts: what came of the pictures.
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
        self.counts = ImageCounts()

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
            self.counts.image_refusals += 1
            raise ImageError(
                f"the file has about {len(encoded) * 3 // 4} bytes, and at most {self._max_bytes} "
                "are read"
            )
        data = encoded.encode("ascii", "replace")
        picture = await self._counted(
            {"side": side, "max_bytes": self._max_bytes, "max_pixels": self._max_pixels}, data
        )
        self.counts.image_files += 1
        return picture

    async def frame(self, codec: VideoCodec, data: bytes, side: int) -> Picture:
        """Read a key frame of video; see `server.images.reading.read_frame`.

        Raises:
            ImageError: it is broken, or too large.
        """
        picture = await self._counted(self._frame_job(codec, side), data)
        self.counts.image_frames += 1
        return picture

    async def prepare(self) -> None:
        """Start the process and let it load what frames need: the first picture comes sooner."""
        with contextlib.suppress(ImageError):
            await self._read(self._frame_job("vp8", 1), b"")

    async def close(self) -> None:
        """End the process, and what it was doing; it is started again if it is needed."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end()

    def _frame_job(self, codec: VideoCodec, side: int) -> dict[str, Any]:
        return {"codec": codec, "side": side, "max_pixels": self._max_pixels}

    async def _counted(self, job: dict[str, Any], data: bytes) -> Picture:
        try:
            return await self._read(job, data)
        except ImageError:
            self.counts.image_refusals += 1
            raise

    async def _read(self, job: dict[str, Any], data: bytes) -> Picture:
        # A task of its own: where whoever asked is gone, half an answer would be the next one's.
        task = asyncio.create_task(self._done(framed(job, data)), name="read a picture")
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return await asyncio.shield(task)

    def _let_go(self, task: asyncio.Task[Picture]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not report it as never retrieved

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
                # Its pipes are closed, so it ends by itself. It is waited for, not killed: `kill`
                # may take its return code from the system first, and asyncio then has 255.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._bounds.wall_s):
                        await process.wait()
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
            self.counts.image_processes += 1
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
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
