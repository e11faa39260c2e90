"""Settings of what is done to the sound of users: voice detection, echo, noise."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from server.config.strict import Strict


class VadSettings(Strict):
    """What clients cannot set of voice detection.

    Attributes:
        min_speech_ms: speech that it takes to begin a turn.
        interrupt_speech_ms: speech that it takes to interrupt a reply. Voice detection finds up to
            352 ms of it in a "mhm" of 300 ms; a word as short as that does not interrupt either.
            0 for no more than it takes to begin a turn.
        interrupt_silence_ms: silence after which what began like an interruption was none. Pauses
            between syllables are shorter.
        interrupt_quieter_db: speech that is so much quieter than the user was so far is somebody
            else's, and does not interrupt.
        speculate_after_ms: silence after which the reply is begun, unheard, before it is certain
            that the user has finished; it is thrown away if the user goes on. 0 for never. With
            semantic_vad it is begun once the turn sounds finished, unless this is 0.
        end_wait_ms: eagerness → silence after which a turn ends once it sounds finished.
        max_wait_ms: eagerness → silence after which a turn ends however it sounds.
    """

    # Two windows of 32 ms. A click or a key press is in one of them; the shortest word is in more.
    min_speech_ms: Annotated[int, Field(ge=0)] = 64
    # Twelve windows, one more than the 352 ms that a "mhm" can look like.
    interrupt_speech_ms: Annotated[int, Field(ge=0)] = 384
    # Six windows: the gap of a plosive inside a word is shorter, and a cough is followed by more.
    interrupt_silence_ms: Annotated[int, Field(ge=32)] = 192
    # A fourth of the amplitude. In the open, sound falls by 6 dB with each doubling of the
    # distance: 12 dB are somebody four times as far from the microphone.
    interrupt_quieter_db: Annotated[float, Field(gt=0)] = 12.0
    # Three windows. With the default 500 ms of silence (Realtime reference, `silence_duration_ms`)
    # the engine has 404 ms of head start.
    speculate_after_ms: Annotated[int, Field(ge=0)] = 96
    # How long the user has to go on although it sounded finished. Source of the levels: Realtime
    # guide, "Voice activity detection", eagerness.
    end_wait_ms: Mapping[str, int] = Field(
        default={"low": 600, "medium": 250, "auto": 250, "high": 100}
    )
    # As documented for the hosted service's eagerness.
    max_wait_ms: Mapping[str, int] = Field(
        default={"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
    )

    @model_validator(mode="after")
    def _all_levels(self) -> "VadSettings":
        levels = {"low", "medium", "auto", "high"}
        for name in ("end_wait_ms", "max_wait_ms"):
            given = set(getattr(self, name))
            if given != levels:
                raise ValueError(f"{name} needs exactly the keys {', '.join(sorted(levels))}")
        return self


class AudioSettings(Strict):
    """How the sound that clients send is cleaned before it is heard.

    Attributes:
        echo_cancellation: where a reply is taken out of what the microphone hears meanwhile:
            "always", in "calls" by WebRTC, where the server plays replies itself and knows when, or
            "never". See docs/interruptions.md.
    """

    echo_cancellation: Literal["always", "calls", "never"] = "always"
