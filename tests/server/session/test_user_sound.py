"""A user's sound reaches the ears by three ways, and in its order."""

import base64

import numpy as np
import pytest
import structlog

from model.messages import Pcm
from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from server.errors import ClientError
from server.protocol.settings.config import SessionConfig
from server.session.counts import Counts
from server.session.ear_queue import EarQueue
from server.session.ears import Ears
from server.session.observers import Observers
from server.session.usage import Meter, UsageBook
from server.session.user_sound import UserSound
from server.session.witness import Witness

_RATE_HZ = 16_000
# The client's PCM16 has 24,000 samples a second.
_SECOND = bytes(2 * 24_000)


class _Listener(Witness):
    wants_sound = True

    def __init__(self) -> None:
        self.heard_s: list[tuple[int, float]] = []

    def heard(self, pcm: Pcm, now_s: float) -> None:
        self.heard_s.append((len(pcm), now_s))


class _World:
    def __init__(self, model: SileroModel) -> None:
        self.now_s = 100.0
        self.witness = _Listener()
        self.meter: Meter = UsageBook().meter("", "m")
        config = SessionConfig(id="sess_1", model="m", voice="alloy", expires_at=0)
        self.ears = Ears(model, _RATE_HZ, VadSettings(), config)
        log, clock = structlog.get_logger("test"), self.clock
        observers = Observers(
            Counts(), self.meter, [self.witness], log, clock, lambda: None, _RATE_HZ
        )
        self.errors: list[Exception] = []
        queue = EarQueue(self.ears, _RATE_HZ, None, self._heard, self.errors.append)
        self.sound = UserSound(queue, 60, observers, clock)

    def clock(self) -> float:
        return self.now_s

    def _heard(self, now_s: float) -> None:
        self.sound.heard(now_s)


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def test_short_sound_is_heard_at_once(vad_model: SileroModel) -> None:
    """It is metered, and witnesses have it."""
    world = _World(vad_model)
    world.sound.append(_SECOND)
    assert world.meter.used().audio_in_seconds == 1
    world.ears.finish()
    assert world.sound.waiting_s == 1
    assert world.sound.appended_ms == 1000
    assert [at_s for _, at_s in world.witness.heard_s] == [100.0]


async def test_long_sound_is_heard_by_pieces_and_the_rest_waits(vad_model: SileroModel) -> None:
    """What a transport decodes meanwhile is heard behind it."""
    world = _World(vad_model)
    heard: list[float] = []

    def listen() -> None:
        heard.append(world.sound.appended_ms / 1000)
        if len(heard) == 1:
            world.sound.arrived(np.zeros(_RATE_HZ, dtype=np.float32))
            assert round(world.sound.waiting_s) == 11

    async with world.sound.caught_up():
        await world.sound.append_long(25 * _SECOND, listen)
    assert [round(seconds) for seconds in heard] == [10, 21, 26]
    assert round(world.sound.waiting_s) == 26
    # The last sample was recorded at 100 s, so the pieces had arrived before.
    assert [at_s for _, at_s in world.witness.heard_s] == [85.0, 95.0, 100.0, 100.0]
    assert world.meter.used().audio_in_seconds == 26


async def test_too_much_is_refused_before_anything_is_heard(vad_model: SileroModel) -> None:
    """With what waits already; the message says how much of each."""
    world = _World(vad_model)
    world.sound.admit(59.0, _SECOND)
    with pytest.raises(ClientError, match=r"60 s of audio wait .* 1 s more .* limit of 60 s"):
        world.sound.admit(60.0, _SECOND)
    carried = [(base64.b64encode(_SECOND).decode(), "item.content[0].audio")]
    with pytest.raises(ClientError, match="wait to be heard"):
        await world.sound.carried(carried, 60.0)
    assert world.meter.used().audio_in_seconds == 0
    audio = await world.sound.carried(carried, 0.0)
    assert world.meter.used().audio_in_seconds == len(audio.pcm) / _RATE_HZ == 1


async def test_sound_that_breaks_frees_the_ears(
    vad_model: SileroModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sound is heard at once, and not held back for ever."""
    world = _World(vad_model)

    def broken(data: bytes) -> None:
        raise ZeroDivisionError(len(data))

    with monkeypatch.context() as patch:
        patch.setattr(world.ears, "hear", broken)
        with pytest.raises(ZeroDivisionError):
            async with world.sound.caught_up():
                await world.sound.append_long(_SECOND, lambda: None)
    world.sound.arrived(np.zeros(160, dtype=np.float32))
    assert world.ears.num_waiting == 160
    assert not world.errors
