"""What a transport decodes is heard in order, beside the event loop, and not after the end."""

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from server.protocol.events import Heard
from server.protocol.settings.config import ServerVad, SessionConfig
from server.session.ear_queue import EarQueue
from server.session.ears import Ears
from server.session.work_thread import WorkThread
from tests.server.sounds import silence, voice

RATE_HZ = 16_000
PATIENCE_S = 20.0


class SlowEars(Ears):
    """Ears that hear when they are told to."""

    def __init__(self) -> None:
        self.heard: list[list[float]] = []
        self.beside: list[list[float]] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def played(self, far: np.ndarray) -> None:
        """Note it."""
        self.beside.append(far.tolist())

    def hear(self, data: bytes) -> None:
        """Hear bytes as samples."""
        self.hear_pcm(np.array([*data], np.float32))

    def hear_pcm(self, pcm: np.ndarray) -> None:
        """Wait, and note it; −1 is too much for them."""
        self.begun.release()
        assert self.may_go_on.acquire(timeout=PATIENCE_S)
        if -1 in pcm:
            raise ValueError("too loud")
        self.threads.add(threading.get_ident())
        self.heard.append(pcm.tolist())


class Listener:
    """A queue before slow ears, and what it says."""

    def __init__(self, thread: WorkThread | None) -> None:
        self.ears = SlowEars()
        self.times_s: list[float] = []
        self.errors: list[Exception] = []
        self.changed = asyncio.Event()
        self.queue = EarQueue(self.ears, 10, thread, self._heard, self._failed)

    def put(self, *samples: float, now_s: float = 0.0, far: float | None = None) -> None:
        """Let something arrive."""
        beside = None if far is None else np.full(len(samples), far, np.float32)
        self.queue.put(np.array(samples, np.float32), len(samples) / 10, beside, now_s)

    async def until_heard(self, num: int) -> None:
        """Wait for so many words of the queue."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.times_s) + len(self.errors) < num:
                self.changed.clear()
                await self.changed.wait()

    def _heard(self, now_s: float) -> None:
        self.times_s.append(now_s)
        self.changed.set()

    def _failed(self, error: Exception) -> None:
        self.errors.append(error)
        self.changed.set()


@pytest.fixture
async def thread() -> AsyncIterator[WorkThread]:
    """Run one, and end it."""
    thread = WorkThread("hearing")
    thread.start()
    yield thread
    await thread.stop()


async def begun(listener: Listener) -> None:
    """Wait until the ears have begun with a piece."""
    assert await asyncio.to_thread(listener.ears.begun.acquire, timeout=PATIENCE_S)


async def test_what_arrives_meanwhile_is_the_next_piece(thread: WorkThread) -> None:
    """In order, with what was played beside it, and told with the time of its end."""
    listener = Listener(thread)
    listener.put(1, now_s=1.0, far=5)
    await begun(listener)
    listener.put(2, now_s=2.0, far=6)
    listener.put(3, now_s=3.0, far=7)
    assert listener.queue.num_waiting == 2
    listener.ears.may_go_on.release(2)
    await listener.until_heard(2)
    assert listener.ears.heard == [[1], [2, 3]]
    assert listener.ears.beside == [[5], [6, 7]]
    assert listener.times_s == [1.0, 3.0]
    assert len(listener.ears.threads) == 1
    assert threading.get_ident() not in listener.ears.threads


async def test_a_long_wait_is_heard_in_pieces(thread: WorkThread) -> None:
    """Up to a second of one session at a time: ten samples here."""
    listener = Listener(thread)
    listener.ears.may_go_on.release(9)
    listener.put(0)
    await begun(listener)
    for _ in range(3):
        listener.put(*[1] * 6)
    await listener.until_heard(4)
    assert [len(each) for each in listener.ears.heard] == [1, 6, 6, 6]


async def test_who_wants_the_ears_has_them_alone(thread: WorkThread) -> None:
    """After what has arrived before, and before what arrives then."""
    listener = Listener(thread)
    listener.put(1)
    await begun(listener)
    listener.put(2)
    wanted = asyncio.Event()

    async def borrow() -> None:
        wanted.set()
        async with listener.queue.lent():
            assert listener.ears.heard == [[1], [2]]
            listener.put(4)
            await asyncio.sleep(0)
            listener.ears.heard.append([0])

    borrowing = asyncio.create_task(borrow())
    await wanted.wait()
    listener.put(3)
    listener.ears.may_go_on.release(9)
    await asyncio.wait_for(borrowing, PATIENCE_S)
    await listener.until_heard(3)
    assert listener.ears.heard == [[1], [2], [0], [3, 4]]


async def test_who_stops_wanting_them_stops_nobody(thread: WorkThread) -> None:
    """A client that leaves while its event waits."""
    listener = Listener(thread)
    listener.put(1)
    await begun(listener)

    async def borrow() -> None:
        async with listener.queue.lent():
            pytest.fail("it was cancelled")

    borrowing = asyncio.create_task(borrow())
    await asyncio.sleep(0)
    listener.put(2)
    borrowing.cancel()
    await asyncio.wait([borrowing])
    listener.ears.may_go_on.release(9)
    await listener.until_heard(2)
    assert listener.ears.heard == [[1], [2]]


async def test_nothing_is_said_after_the_end(thread: WorkThread) -> None:
    """Of what is being heard then, and of what arrives."""
    ended, other = Listener(thread), Listener(thread)
    ended.put(1)
    await begun(ended)
    ended.put(2)
    ended.queue.close()
    ended.put(3)
    ended.ears.may_go_on.release(9)
    other.ears.may_go_on.release()
    other.put(1)
    await other.until_heard(1)
    assert ended.ears.heard == [[1]]
    assert not ended.times_s


async def test_ears_that_fail_are_one_sessions(thread: WorkThread) -> None:
    """Its own session is told, and the others hear on."""
    bad, good = Listener(thread), Listener(thread)
    bad.ears.may_go_on.release()
    good.ears.may_go_on.release()
    bad.put(-1)
    good.put(1)
    await bad.until_heard(1)
    await good.until_heard(1)
    assert [str(error) for error in bad.errors] == ["too loud"]
    assert good.times_s == [0.0]


async def test_without_a_thread_it_is_heard_at_once() -> None:
    """But what arrives while somebody has the ears."""
    listener = Listener(None)
    listener.ears.may_go_on.release(9)
    listener.put(1)
    assert listener.ears.heard == [[1]]
    async with listener.queue.lent():
        listener.put(2)
        listener.put(3)
        assert listener.ears.heard == [[1]]
    assert listener.ears.heard == [[1], [2, 3]]
    listener.put(-1)
    assert [str(error) for error in listener.errors] == ["too loud"]


async def test_the_same_is_heard_in_both(thread: WorkThread) -> None:
    """The same turns at the same places, by the thread and by the loop, decoded or not."""
    config = SessionConfig("s", "m", "v", 0, turn_detection=ServerVad(threshold=0.3))
    sound = np.concatenate((silence(0.5), voice(1.0), silence(1.0))).astype(np.float32)
    step = config.input_format.rate_hz // 50
    heard: list[list[Heard]] = []
    for each in (thread, None):
        for is_decoded in (True, False):
            ears = Ears(SileroModel(), config.input_format.rate_hz, VadSettings(), config)
            said: list[Heard] = []

            def listen(_: float, ears: Ears = ears, said: list[Heard] = said) -> None:
                while (event := ears.next(is_finished=False, would_interrupt=False)) is not None:
                    said.append(event)

            errors: list[Exception] = []
            queue = EarQueue(ears, config.input_format.rate_hz, each, listen, errors.append)
            for start in range(0, len(sound), step):
                piece = sound[start : start + step]
                data = (piece * 32_767).astype("<i2").tobytes()
                queue.put(piece if is_decoded else data, len(piece) / 24_000, None, 0.0)
            async with asyncio.timeout(PATIENCE_S), queue.lent():
                heard.append([event for event in said if not hasattr(event, "pcm")])
            assert not errors
    assert heard[0] == heard[1] == heard[2] == heard[3]
    assert len(heard[0]) >= 2


async def test_decoded_and_appended_sound_take_turns(thread: WorkThread) -> None:
    """What comes as samples and what comes as bytes are no one piece, and keep their order."""
    listener = Listener(thread)
    listener.put(1)
    assert await asyncio.to_thread(listener.ears.begun.acquire, timeout=PATIENCE_S)
    listener.put(2)
    listener.queue.put(bytes([3]), 0.1, None, 0.0)
    listener.queue.put(bytes([4]), 0.1, None, 0.0)
    listener.put(5)
    assert listener.queue.num_waiting == 4
    listener.ears.may_go_on.release(4)
    await listener.until_heard(4)
    assert listener.ears.heard == [[1], [2], [3, 4], [5]]
    assert listener.queue.num_waiting == 0
