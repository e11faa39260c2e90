"""Say what the protocol must know of its engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Describe the engine's sound, and how it converses.

    Attributes:
        sample_rate_hz: of all PCM, in and out.
        frame_ms: length of one audio token.
        is_duplex: whether it listens and speaks all the time, as in `EngineInfo`.
        sees: whether it takes pictures.
        recites: whether it can say any words that it is given.
    """

    sample_rate_hz: int
    frame_ms: int
    is_duplex: bool = False
    sees: bool = False
    recites: bool = False
