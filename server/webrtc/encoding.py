"""Encode calls' sound in a thread beside the event loop."""

from collections.abc import Callable

from model.messages import Pcm
from server.session.work_thread import WorkThread
from server.webrtc.opus import OpusEncoder


class ThreadEncoder:
    """Use an encoder in a thread, and nowhere else.

    A frame takes it a fraction of a millisecond without Python's lock. On the event loop, that
    would be a quarter of what 40 calls have.

    Args:
        encoder: of one stream; it is this one's from now on.
        thread: that encodes one frame after the other.
        failed: called in the event loop with what the encoder has raised.
    """

    def __init__(
        self, encoder: OpusEncoder, thread: WorkThread, failed: Callable[[Exception], None]
    ) -> None:
        self.frame_samples = encoder.frame_samples
        self._encoder = encoder
        self._thread = thread
        self._failed = failed
        self._is_closed = False

    def encode(self, pcm: Pcm, then: Callable[[bytes], None]) -> None:
        """Encode a frame: float32 [frame_samples].

        Args:
            pcm: the frame.
            then: called with its packet, in the event loop, in the order of the frames; not at all
                once the encoder is closed.
        """
        payload = b""

        def encode() -> None:
            nonlocal payload
            payload = self._encoder.encode(pcm)

        def done(error: Exception | None) -> None:
            if error is None and not self._is_closed:
                then(payload)
            self._done(error)

        self._thread.put(encode, done)

    def expect_loss(self, percent: int) -> None:
        """Prepare the frames that follow for lost packets."""
        self._thread.put(lambda: self._encoder.expect_loss(percent), self._done)

    def close(self) -> None:
        """Free the encoder; it is not used again."""
        self._is_closed = True
        self._thread.put(self._encoder.close, self._done)

    def _done(self, error: Exception | None) -> None:
        if error is not None and not self._is_closed:
            self._failed(error)
