"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import ConfigError
from model.precision import Linears, Precision
from model.sampling import GREEDY, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Say how much the engine takes on, and how far it runs ahead.

    Attributes:
        max_sessions: sessions that may be open at once.
        max_batch: most sessions that one tick serves.
        ahead_ms: audio of a reply that may be made before its time to be played.
        horizon_ms: how much later than the most urgent deadline a session's may be to share a tick
            with it. A reply with audio in hand does not slow down one that has none yet.
        answer_horizon_ms: the same while somebody waits for the first audio of a reply. Only what
            would be late otherwise shares those ticks; it must be as long as a full tick takes.
        max_queued_commands: commands that may wait for the engine's thread.
        num_threads: threads that one operation may use; the starter's are too small to share.
        reply_sampling: how the words of a reply or call are chosen; transcripts are always greedy.
        audio_sampling: how its codes are chosen.
        seed: of the noise, when sampling is not greedy.
        linears: how the language model's linears are kept, as in
            `model.assemble.weights.load_starter`.
        kv: how keys and values are kept, as in `model.cache.store.MemoryConfig`.
        kv_page_steps: steps of a page of them.
        kv_pages: pages for all sessions; None for as many as they can ever take. With fewer, the
            sessions that were idle for longest wait in host memory when pages run out.
        cached_prompts: beginnings of conversations whose memory is kept for the next session that
            begins so.
    """

    max_sessions: int = 4
    max_batch: int = 64
    ahead_ms: int = 1000
    horizon_ms: int = 80
    answer_horizon_ms: int = 40
    max_queued_commands: int = 4096
    num_threads: int = 1
    reply_sampling: Sampling = GREEDY
    audio_sampling: Sampling = GREEDY
    seed: int = 0
    linears: Linears = "dense"
    kv: Precision = "full"
    kv_page_steps: int = 16
    kv_pages: int | None = None
    cached_prompts: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the field.
        """
        for name in ("max_sessions", "max_batch", "ahead_ms", "max_queued_commands", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}")
        for name in ("horizon_ms", "answer_horizon_ms", "cached_prompts"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: must not be negative, got {getattr(self, name)}")
