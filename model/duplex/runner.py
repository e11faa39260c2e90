"""Run a duplex model and its codec for a batch of conversations, without sessions or time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from model.arrays import Ints
from model.cache.parking import Parking
from model.cache.state import areas_of
from model.cache.store import MemoryConfig
from model.codec.mimi import Mimi
from model.duplex.accelerate import drive_on, page_steps_on, reading_on, stepper
from model.duplex.audio import AudioDuplex, AudioFrame
from model.duplex.driver import Duplex, DuplexConfig, DuplexMemory
from model.duplex.prompt import Prompt
from model.duplex.work import Work
from model.engine.config import EngineConfig
from model.errors import ConfigError, OutOfPagesError
from model.messages import Pcm
from model.metrics import EngineMetrics
from model.transformer.condition import Condition
from model.transformer.lm import LM


@dataclass(frozen=True, slots=True, eq=False)
class DuplexModel:
    """Networks that make a duplex model, and how they are driven.

    Attributes:
        lm: in evaluation mode.
        mimi: in evaluation mode, on the same device.
        drive: delays and sampling.
        reach: steps that can be taken back.
        condition: what the model is told about every conversation; None for nothing.
        without: what guidance leads away from; None without guidance.
    """

    lm: LM
    mimi: Mimi
    drive: DuplexConfig
    reach: int = 0
    condition: Condition | None = None
    without: Condition | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DuplexRequest:
    """Ask for the next step of one conversation.

    Attributes:
        slot: where it is.
        work: what the step is fed.
        key: of its random choices, which depend on that and on the steps it has had.
    """

    slot: int
    work: Work
    key: int


@dataclass(frozen=True, slots=True, eq=False)
class DuplexResult:
    """What a step gave.

    Attributes:
        tokens: int64 [1 + K], text and codes of the frame that became whole; -2 if none did.
        pcm: float32 [frame_samples]; None unless it was wanted.
        is_finite: whether the numbers behind it mean anything.
    """

    tokens: Ints
    pcm: Pcm | None
    is_finite: bool


class DuplexRunner:
    """Hold the networks, the state of all slots, and the beginnings that were seen lately.

    Where memory runs out, conversations wait in host memory: see `model.cache.parking`.

    Args:
        model: the networks.
        config: conversations, their memory, and how many beginnings are kept.
        metrics: where time is counted.

    Raises:
        ConfigError: from the constructor, if there are too few pages for even one conversation.
    """

    def __init__(self, model: DuplexModel, config: EngineConfig, metrics: EngineMetrics) -> None:
        self._model, self._config, self._metrics = model, config, metrics
        weight = model.lm.norm.weight
        self._device = weight.device
        lm = model.lm.config
        self._prompts: OrderedDict[Hashable, DuplexMemory] = OrderedDict()
        sides = 1 if model.drive.guidance == 1.0 else 2
        # A conversation with guidance is held twice, so it takes twice the pages.
        least = sides * areas_of(lm, page_steps_on(self._device, config.kv_page_steps)).num_pages
        if config.kv_pages is not None and config.kv_pages < least:
            raise ConfigError(
                f"kv_pages: one conversation takes up to {least}, got {config.kv_pages}"
            )
        self.reset()

    def reset(self) -> None:
        """Start over with fresh state in every slot; beginnings that were kept stay good."""
        model, config = self._model, self._config
        memory = MemoryConfig(
            precision=config.kv,
            page_steps=page_steps_on(self._device, config.kv_page_steps),
            num_pages=config.kv_pages,
            reading=reading_on(self._device),
        )
        num_slots = config.max_sessions
        drive = drive_on(self._device, model.drive)
        num_attended = 0 if model.condition is None else model.condition.num_attended
        self._duplex = Duplex(model.lm, drive, num_slots, model.reach, memory, num_attended)
        self._driven = AudioDuplex(self._duplex, model.mimi)
        self._step = stepper(self._driven)
        self._parking: Parking[DuplexMemory] = Parking(self._duplex, self._metrics)
        self._beginnings: dict[int, DuplexMemory] = {}  # of those that have had no step yet

    @torch.inference_mode()
    def wipe(self, slot: int) -> None:
        """Leave nothing of a conversation in its slot."""
        self._parking.forget(slot)
        self._beginnings.pop(slot, None)
        self._driven.reset(slot)

    @torch.inference_mode()
    def begin(self, slot: int) -> None:
        """Begin a conversation without a prompt, in a slot that may hold another one."""
        self.wipe(slot)
        if self._model.condition is not None:
            self._duplex.set_condition(slot, self._model.condition, self._model.without)

    @torch.inference_mode()
    def begin_prompted(self, slot: int, prompt: Prompt, key: Hashable) -> tuple[int, bool]:
        """Begin a conversation as another one with the same prompt has begun, if it is kept.

        Args:
            slot: where.
            prompt: what it begins with.
            key: names the prompt.

        Returns:
            The steps that it has had, and whether the whole prompt is among them; if not, the
            frames of the prompt are to follow.

        Raises:
            OutOfPagesError: there is no memory for it, and nobody who can give way.
        """
        self.begin(slot)
        kept = self._prompts.get(key)
        if kept is not None:
            self._prompts.move_to_end(key)
            # It is brought as one that was parked is: when there is to be a step.
            self._beginnings[slot] = kept
            self._metrics.prompt_hits += 1
            return kept.calls, True
        self._metrics.prompt_misses += 1
        voice = prompt.voice
        if voice is not None and voice.embedded is not None and voice.ring is not None:
            embedded, ring = voice.embedded.to(self._device), voice.ring.to(self._device)
            # The recorded inputs of a voice take pages at once. As long as there are none, somebody
            # who is idle gives way, and it is tried again from a clean slot.
            while True:
                try:
                    self._duplex.begin_with(slot, embedded, ring)
                    break
                except OutOfPagesError:
                    if not self._parking.give_way([slot]):
                        raise
                    self.begin(slot)
        return self._duplex.num_calls(slot), False

    def keep(self, slot: int, key: Hashable) -> None:
        """Keep a conversation whose prompt is over now, for the next one with the same."""
        self._prompts[key] = self._duplex.snapshot(slot)
        self._prompts.move_to_end(key)
        while len(self._prompts) > self._config.cached_prompts:
            self._prompts.popitem(last=False)

    def forget_prompts(self) -> None:
        """Keep no beginnings."""
        self._prompts.clear()

    @property
    def num_kept_prompts(self) -> int:
        """Count the beginnings that are kept."""
        return len(self._prompts)

    @torch.inference_mode()
    def rewind(self, slot: int, num_calls: int) -> Ints | None:
        """Take a conversation back to its first steps; see `Duplex.rewind`."""
        if slot in self._parking:
            return None  # it has been silent for so long that nothing waits to be heard
        heard = self._duplex.rewind(slot, num_calls)
        return None if heard is None else heard.cpu().numpy()

    @torch.inference_mode()
    def make_room(self, slots: Sequence[int]) -> list[int]:
        """See to it that conversations can have a step together.

        Args:
            slots: theirs, those first that are to have it if not all can.

        Returns:
            The slots that can.
        """
        # First everybody who was parked is brought back, in the order of `slots`. Whoever finds no
        # room, and all after them, are left out: the caller decides what becomes of them. Then one
        # step of them all has to fit.
        able = list(slots)
        for i, slot in enumerate(able):
            while not self._bring(slot):
                if not self._parking.give_way(slots):
                    del able[i:]
                    break
        while not self._duplex.has_room(able):
            if not self._parking.give_way(slots):
                del able[-1]
        self._parking.touch(able)
        use = self._duplex.state.use
        self._metrics.pages_used, self._metrics.pages_total = use.pages_used, use.pages_total
        self._metrics.parked = len(self._parking)
        return able

    def _bring(self, slot: int) -> bool:
        """See to it that a conversation is in its slot; False if there is no memory for it."""
        try:
            if slot in self._beginnings:
                self._duplex.restore(slot, self._beginnings[slot])
                del self._beginnings[slot]
            self._parking.bring(slot)
        except OutOfPagesError:
            return False
        return True

    def step(self, requests: Sequence[DuplexRequest]) -> list[DuplexResult]:
        """Take conversations in distinct slots one step further, all together.

        Returns:
            One result a request, in their order.
        """
        start, driven = perf_counter(), self._driven
        made: AudioFrame = self._step(
            [r.slot for r in requests], [r.work for r in requests], [r.key for r in requests]
        )
        frame = made.frame
        tokens, finite = frame.tokens.cpu().numpy(), frame.is_finite.cpu().numpy()
        pcm = made.pcm.cpu().numpy()
        spent = perf_counter() - start
        metrics = self._metrics
        metrics.encode_seconds += driven.encode_seconds
        metrics.decode_seconds += driven.decode_seconds
        # A captured graph does all of it in one go; its time is then counted here, and the codec's
        # is zero.
        metrics.lm_seconds += spent - driven.encode_seconds - driven.decode_seconds
        driven.encode_seconds = driven.decode_seconds = 0.0
        metrics.frames_heard += sum(r.work.heard is not None for r in requests)
        return [
            DuplexResult(row, sound if r.work.is_wanted else None, bool(is_finite))
            for r, row, sound, is_finite in zip(requests, tokens, pcm, finite, strict=True)
        ]
