"""Let a session's ears hear a microphone beside a loudspeaker, in no time."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.interruption_sounds import RATE_HZ, silence
from server.audio.far_end import FarEnd
from server.audio.silero import SileroModel
from server.config.sound import VadSettings
from server.protocol.events import (
    InputAudio,
    SpeechBegan,
    SpeechDismissed,
    SpeechEnded,
    SpeechSuspected,
)
from server.protocol.settings.config import ServerVad, SessionConfig
from server.session.ears import Ears

Wave = npt.NDArray[np.float32]

_CHUNK = RATE_HZ // 50  # 20 ms
_QUESTION_GAP_S = 1.0


@dataclass(frozen=True, slots=True)
class Hearing:
    """How a microphone is listened to.

    Attributes:
        cancels_echo: whether what is played is taken out.
        vad: rules of voice detection.
        noise_reduction: as a session has it.
    """

    cancels_echo: bool
    vad: VadSettings
    noise_reduction: dict[str, object] | None = None


@dataclass(slots=True)
class Heard:
    """What was heard, in milliseconds from the start of the recording.

    Attributes:
        pcm: cleaned: float32 [samples].
        suspected_ms: when a reply was held, in doubt.
        dismissed_ms: when it went on.
        interrupted_ms: when it was ended.
    """

    pcm: Wave
    suspected_ms: list[float] = field(default_factory=list)
    dismissed_ms: list[float] = field(default_factory=list)
    interrupted_ms: list[float] = field(default_factory=list)


def listen(
    model: SileroModel, hearing: Hearing, near: Wave, far: Wave, before: Wave | None = None
) -> Heard:
    """Hear a recording, all of it while a reply is played.

    Args:
        model: finds speech.
        hearing: how it is listened to.
        near: what the microphone records: float32 [samples] at 16 kHz.
        far: what the loudspeaker plays, sample by sample at the same time; echo in `near` is later.
        before: what the user said before the reply, which shows how loud they are.
    """
    config = SessionConfig(
        id="sess",
        model="m",
        voice="v",
        expires_at=0,
        turn_detection=ServerVad(),
        noise_reduction=hearing.noise_reduction,
    )
    ears = Ears(model, RATE_HZ, hearing.vad, config, cancels_echo=hearing.cancels_echo)
    played, now_s = FarEnd(RATE_HZ), 0.0
    if before is not None:
        ears.hear_pcm(np.concatenate((before, silence(_QUESTION_GAP_S))))
        # The question before the reply: from it the ears know how loud this user speaks.
        while ears.next(is_finished=True, would_interrupt=False) is not None:
            pass
    heard = Heard(np.zeros(0, dtype=np.float32))
    passed: list[Wave] = []
    for start in range(0, len(near), _CHUNK):
        chunk = near[start : start + _CHUNK]
        # In the order of real time: these 20 ms begin to be played, they pass, and what the
        # microphone recorded meanwhile arrives.
        played.play(far[start : start + _CHUNK], now_s)
        now_s += len(chunk) / RATE_HZ
        ears.played(played.take(len(chunk) / RATE_HZ, now_s))
        ears.hear_pcm(chunk)
        while (event := ears.next(is_finished=True, would_interrupt=True)) is not None:
            at_ms = now_s * 1000
            match event:
                case InputAudio():
                    passed.append(event.pcm)
                case SpeechSuspected():
                    heard.suspected_ms.append(at_ms)
                case SpeechDismissed():
                    heard.dismissed_ms.append(at_ms)
                case SpeechBegan():
                    heard.interrupted_ms.append(at_ms)
                case SpeechEnded() | _:
                    pass
    heard.pcm = np.concatenate(passed)
    return heard
