"""Keep the memory of every session: in pages, or, where these run out, in host memory.

What has to be where is decided here: a beginning that is known is shared and not fed again; when
pages run out, sessions give way (`model.cache.parking`), and after them beginnings. Neither changes
what the model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from kernels.arithmetic import ceil_div
from model.cache.parking import Parking, with_room
from model.cache.state import SlotMemory, areas_of
from model.cache.store import MemoryConfig
from model.engine.config import EngineConfig
from model.errors import ConfigError, OutOfPagesError, RewindError
from model.metrics import EngineMetrics
from model.transformer.lm import LM
from model.turns.history import StepBlock
from model.turns.prompts import PromptCache

# A worked example: pages for two sessions, and three of them.
#
#     A and B have talked; the pool is empty. `_used` is [A, B], the longest idle first.
#     C is due: its step raises `OutOfPagesError`, and nothing has changed.
#     `make_room` parks A: its pages go to host memory, and are free. C's step is tried again.
#     A is due: `run` finds it parked. B gives way in its turn, A comes back, and its step is taken.
#
# The numbers are the same as if there had been room for all three, only later. If A, B and C are in
# one batch, nobody can give way, and the runner halves the batch until it fits.

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A beginning that a slot is being fed, to be remembered once it has seen `num_steps`."""

    key: bytes
    num_steps: int


class Pager:
    """Own the state of all sessions' slots, and of slots for beginnings.

    Args:
        lm: whose state it is.
        config: sessions, pages, beginnings.
        metrics: where it is counted.

    Attributes:
        state: of all slots; those of sessions come first.

    Raises:
        ConfigError: from the constructor, if there are too few pages for even one session.
    """

    def __init__(self, lm: LM, config: EngineConfig, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        areas = areas_of(lm.config, config.kv_page_steps)
        num_pages = config.kv_pages
        if num_pages is None:
            prompt_pages = ceil_div(areas.prefix, areas.page_steps)
            num_pages = config.max_sessions * areas.num_pages + config.cached_prompts * prompt_pages
        if num_pages < areas.num_pages:
            raise ConfigError(
                f"kv_pages: one session takes up to {areas.num_pages}, got {num_pages}"
            )
        memory = MemoryConfig(
            precision=config.kv,
            page_steps=config.kv_page_steps,
            num_pages=num_pages,
        )
        num_slots = config.max_sessions + config.cached_prompts
        self.state = lm.init_state(num_slots, memory)
        self._prompts = PromptCache(range(config.max_sessions, num_slots))
        self._fed: dict[int, _Prompt] = {}
        self._parking: Parking[SlotMemory] = Parking(self.state, metrics)
        self._note()

    def wipe(self, slot: int) -> None:
        """Leave nothing of a session in its slot."""
        self.state.reset(slot)
        self._fed.pop(slot, None)
        self._parking.forget(slot)
        self._note()

    def recall(self, slot: int, prompt: StepBlock) -> int:
        """Let a slot begin with what is known of its beginning.

        Args:
            slot: whose session has not begun; what it holds is forgotten if the beginning is known.
            prompt: the beginning.

        Returns:
            Steps that the slot remembers now: all of them or none.
        """
        # The steps themselves are the key: sessions begin alike if they were fed the same.
        parts = (prompt.text, prompt.kind, prompt.user, prompt.assistant)
        key = b"".join(part.tobytes() for part in parts)
        known = self._prompts.get(key)
        if known is not None and self._try_fork(known, slot):
            self._parking.forget(slot)
            self._parking.touch([slot])
            self._metrics.prompt_hits += 1
            self._note()
            return len(prompt)
        if slot not in self._fed:
            self._metrics.prompt_misses += 1
        self._fed[slot] = _Prompt(key, len(prompt))
        return 0

    def seek(self, slot: int, length: int) -> bool:
        """Bring the model's memory of `slot` back to its first `length` steps.

        Returns:
            False if it no longer can; the memory is then empty.
        """
        state = self.state
        self.make_room(partial(self._parking.bring, slot), [slot])
        if state.length(slot) == length:
            return True
        # What the rings cannot take back is fed again from the start, which costs time and changes
        # nothing: the history has every step.
        try:
            state.rewind(slot, length)
        except RewindError:
            state.reset(slot)
            return length == 0
        return True

    def run(self, slots: Sequence[int], step: Callable[[], _T]) -> _T:
        """Take a step of some slots, for which others give way if need be.

        Args:
            slots: that the step is of.
            step: takes it, or raises `OutOfPagesError` and leaves all as it was.

        Returns:
            What the step does.

        Raises:
            OutOfPagesError: there are not enough pages for all these slots together.
        """
        for slot in slots:
            self.make_room(partial(self._parking.bring, slot), slots)
        result = self.make_room(step, slots)
        self._parking.touch(slots)
        for slot in slots:
            self._remember_prompt(slot)
        self._note()
        return result

    def make_room(self, act: Callable[[], _T], keep: Collection[int]) -> _T:
        """Do what takes pages; as long as there are not enough, sessions not in `keep` give way.

        Raises:
            OutOfPagesError: everybody else has given way already.
        """
        return with_room(act, lambda: self._give_way(keep))

    def _give_way(self, keep: Collection[int]) -> bool:
        """Free some pages, and tell whether there was anything to free."""
        if self._parking.give_way(keep):
            return True
        dropped = self._prompts.drop()
        if dropped is None:
            return False
        self.state.reset(dropped)
        return True

    def _remember_prompt(self, slot: int) -> None:
        """Keep a beginning as soon as its session has been fed it."""
        prompt = self._fed.get(slot)
        if prompt is None or self.state.length(slot) < prompt.num_steps:
            return
        del self._fed[slot]
        if self._prompts.get(prompt.key) is not None:
            return
        known = self._prompts.put(prompt.key)
        if known is None:
            return
        # The slot may have gone on already; what is kept is the beginning and no more.
        if self._try_fork(slot, known):
            self.state.rewind(known, prompt.num_steps)
        else:
            self._prompts.remove(prompt.key)

    def _try_fork(self, source: int, target: int) -> bool:
        """Fork if there are pages; for a beginning nobody gives way."""
        try:
            self.state.fork(source, target)
        except OutOfPagesError:
            return False
        return True

    def _note(self) -> None:
        """Keep the gauges in step."""
        use = self.state.use
        self._metrics.pages_used, self._metrics.pages_total = use.pages_used, use.pages_total
        self._metrics.parked = len(self._parking)
