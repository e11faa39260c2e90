"""Serve many conversations from one duplex model, a frame of each at a time.

Every conversation that has a frame due shares one batched step; see
`model.duplex.user_stream` for when a frame is due. `local.py` gives this a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch

from model.duplex.program import (
    DuplexProgram,
    DuplexRules,
    DuplexTraits,
    Manner,
)
from model.duplex.prompt import Prompt
from model.duplex.runner import DuplexModel, DuplexRequest, DuplexResult, DuplexRunner
from model.duplex.work import Work
from model.engine.config import EngineConfig
from model.engine.sessions import Sessions
from model.engine.slots import SlotTable
from model.errors import EngineError
from model.messages import (
    AppendAudio,
    Close,
    Command,
    EngineInfo,
    Open,
    Output,
    Respond,
    ResponseAudio,
    SessionCommand,
    SessionFailed,
)
from model.metrics import EngineMetrics

_WARM_UP_FRAMES = 4
# A worked example of noise keys: the third session of an engine with seed 7 has the key (7 + 2) <<
# 24 = 9 * 2^24. When the model begins anew in it, the key becomes one more. So no two sessions draw
# the same noise until one of them has restarted 16 million times.
_RESTART_BITS = 24  # of a noise key: so often may a session begin anew


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DuplexParts:
    """What an engine is made of.

    Attributes:
        name: of the model.
        model: its networks.
        traits: what its conversations depend on.
        voices: names that sessions may ask for, the default first.
        prompt: makes what a session begins with, of its voice and its instructions. It raises a
            `ParleyError` for what cannot be.
        make_manner: makes what decides in the model's place, for each session; None for nothing.
        rules: of all conversations.
        note: for those who use the model.
    """

    name: str
    model: DuplexModel
    traits: DuplexTraits
    voices: tuple[str, ...]
    prompt: Callable[[str, str], Prompt]
    make_manner: Callable[[], Manner] | None = None
    rules: DuplexRules = field(default_factory=DuplexRules)
    note: str = ""


@dataclass(slots=True, eq=False)
class _Slot:
    """A session and its row in every state."""

    index: int
    number: int  # counts the sessions in the order in which they were opened
    program: DuplexProgram
    prompt_key: Hashable
    noise_key: int

    @property
    def session_id(self) -> str:
        """Name the session."""
        return self.program.session_id

    def begin_anew(self) -> None:
        """Draw other noise from now on than the session had from its first step."""
        self.noise_key += 1


class DuplexEngine:
    """Hold the sessions and advance them. Implements `model.engine.core.EngineCore`.

    Args:
        parts: what it is made of.
        config: capacity.
        clock: returns seconds, never going back.
    """

    def __init__(
        self, parts: DuplexParts, config: EngineConfig, *, clock: Callable[[], float]
    ) -> None:
        self.metrics = EngineMetrics()
        self._parts, self._config, self._clock = parts, config, clock
        self._frame_s = parts.traits.frame_ms / 1000
        self._info = EngineInfo(
            parts.name,
            parts.traits.frame_samples * 1000 // parts.traits.frame_ms,
            parts.traits.frame_ms,
            parts.voices,
            config.max_sessions,
            is_duplex=True,
            note=parts.note,
        )
        self._runner = DuplexRunner(parts.model, config, self.metrics)
        self._slots: SlotTable[_Slot] = SlotTable(config.max_sessions)
        self._sessions = Sessions(self._slots, self.metrics, self._runner.wipe)
        self._num_opened = 0

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._info

    @property
    def max_queued_commands(self) -> int:
        """Bound the commands that wait for the engine's thread."""
        return self._config.max_queued_commands

    @property
    def num_kept_prompts(self) -> int:
        """Count the prompts whose state is kept for the next session."""
        return self._runner.num_kept_prompts

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Do nothing: all that happens is made by commands and by time."""

    def close(self) -> None:
        """Do nothing: nothing works for the engine elsewhere."""

    def next_due_s(self) -> float | None:
        """Say when the next tick has something to do, on the clock; None if never as things are."""
        times = [slot.program.due_s() for slot in self._slots]
        return min((due_s for due_s in times if due_s is not None), default=None)

    def apply(self, command: Command) -> list[Output]:
        """Carry out a command, as far as no model is needed for it.

        Returns:
            What follows from it at once; for a command that cannot be carried out, the session's
            failure.
        """
        return self._sessions.apply(command, self._open, self._carry_out)

    def tick(self) -> list[Output]:
        """Serve the sessions that have a frame due: one batched step of the model.

        Returns:
            What the sessions are to be told, in order; empty if nothing was due.
        """
        now_s = self._clock()
        chosen = self._choose(now_s)
        if not chosen:
            return []
        start = perf_counter()
        outputs: list[Output] = []
        # Room is made first, so nothing can fail halfway. Then each session says what its step is
        # fed. Then the model does the step for all of them together.
        with torch.inference_mode():
            able = self._with_room(chosen, outputs)
            requests = self._plan(able, now_s, outputs)
            self.metrics.count_rows(
                "prompt" if request.work.is_prompt else "live" for _, request in requests
            )
            done = self._sessions.together(requests, _slot_of, self._step, outputs)
            for (slot, request), result in done:
                outputs += self._observe(slot, request.work, result)
        self.metrics.count_tick(perf_counter() - start, len(requests))
        return outputs

    def warm_up(self) -> None:
        """Hold a short conversation with nobody, so that the first caller finds everything ready.

        Only before sessions are opened, and on the engine's thread, which it prepares.
        """
        assert not len(self._slots)
        torch.set_num_threads(self._config.num_threads)
        session_id = "warm-up"
        self._sessions.is_trial = True
        for output in self.apply(Open(session_id, self._parts.voices[0])):
            assert isinstance(output, SessionFailed), "nothing else follows at once"
            raise EngineError(output.message)
        while any(slot.program.is_prompting for slot in self._slots):
            self.tick()
        pcm = np.zeros(_WARM_UP_FRAMES * self._parts.traits.frame_samples, dtype=np.float32)
        self.apply(AppendAudio(session_id, pcm))
        self.apply(Respond(session_id, 0, "warm-up"))
        for _ in range(_WARM_UP_FRAMES):
            self.tick()
        self.apply(Close(session_id))
        self._sessions.is_trial = False
        self.metrics.clear()

    def fail_all(self, message: str) -> Sequence[Output]:
        """Give up all sessions and start over with fresh state, since the old may be broken."""
        failed = self._sessions.fail_all(message)
        self._runner.reset()
        self._runner.forget_prompts()
        return failed

    # Commands.

    def _open(self, command: Open) -> list[Output]:
        session_id, parts = command.session_id, self._parts
        if command.voice not in parts.voices:
            known = ", ".join(parts.voices)
            raise EngineError(f"unknown voice {command.voice!r}, expected one of {known}")
        prompt = parts.prompt(command.voice, command.instructions)
        manner = parts.make_manner() if parts.make_manner else None
        program = DuplexProgram(
            session_id, parts.traits, parts.rules, prompt, manner, self._clock()
        )
        number = self._num_opened
        key = (command.voice, command.instructions)
        noise_key = (self._config.seed + number) << _RESTART_BITS
        self._num_opened += 1
        self._begin(
            self._sessions.take(
                session_id, lambda index: _Slot(index, number, program, key, noise_key)
            )
        )
        return []

    def _carry_out(self, slot: _Slot, command: SessionCommand) -> list[Output]:
        program = slot.program
        outputs = program.accept(command, self._clock())
        # The program knows how far back it is to go, and only the runner can go there. What the
        # user said in the steps that are taken back comes from there as well.
        if program.rewind_to is not None:
            program.rewound(self._runner.rewind(slot.index, program.rewind_to))
        return outputs

    def _begin(self, slot: _Slot) -> None:
        program = slot.program
        if not program.is_prompting:
            self._runner.begin(slot.index)
            return
        num_calls, is_whole = self._runner.begin_prompted(
            slot.index, program.prompt, slot.prompt_key
        )
        if is_whole:
            program.prompted(num_calls)
        else:
            program.recorded(num_calls)

    # One tick.

    def _choose(self, now_s: float) -> list[_Slot]:
        """Choose whom to serve: live conversations first, those that wait longest first."""
        # Nobody waits for a frame of a session that still reads its prompt. So it comes after those
        # that talk, and gets the rest of the batch.
        due = [
            (slot.program.is_prompting, due_s, slot.index, slot)
            for slot in self._slots
            if (due_s := slot.program.due_s()) is not None and due_s <= now_s
        ]
        due.sort(key=lambda entry: entry[:3])
        chosen = due[: self._config.max_batch]
        # Neighbouring slots are fastest.
        return sorted((slot for *_, slot in chosen), key=lambda slot: slot.index)

    def _with_room(self, chosen: Sequence[_Slot], outputs: list[Output]) -> list[_Slot]:
        """Return those of whom all can be remembered; a newer session gives way for good."""
        # Whoever came first keeps talking: a conversation that has lasted a while is worth more
        # than one that has just begun.
        oldest_first = sorted(chosen, key=lambda slot: slot.number)
        able = set(self._runner.make_room([slot.index for slot in oldest_first]))
        if len(able) < len(chosen):
            lost = next(slot for slot in oldest_first if slot.index not in able)
            outputs.append(
                self._sessions.fail(lost, "there is no memory left for the conversation")
            )
        return [slot for slot in chosen if slot.index in able]

    def _plan(
        self, chosen: Sequence[_Slot], now_s: float, outputs: list[Output]
    ) -> list[tuple[_Slot, DuplexRequest]]:
        requests = []
        for slot in chosen:
            program = slot.program
            try:
                if program.wants_restart:
                    self._runner.begin(slot.index)
                    slot.begin_anew()
                    program.restarted()
                work = program.plan(now_s)
            except Exception:  # noqa: BLE001 - whatever broke is this session's own
                outputs.append(self._sessions.fail_broken(slot))
                continue
            self.metrics.frames_late += work.late_s > self._frame_s
            requests.append((slot, DuplexRequest(slot.index, work, slot.noise_key)))
        return requests

    def _step(self, requests: Sequence[tuple[_Slot, DuplexRequest]]) -> list[DuplexResult]:
        return self._runner.step([request for _, request in requests])

    def _observe(self, slot: _Slot, work: Work, result: DuplexResult) -> list[Output]:
        if not result.is_finite:
            return [self._sessions.fail(slot, "the model's output is not finite")]
        program = slot.program
        try:
            outputs = program.observe(work, int(result.tokens[0]), result.pcm)
            if work.is_prompt and not program.is_prompting:
                self._runner.keep(slot.index, slot.prompt_key)
        except Exception:  # noqa: BLE001 - whatever broke is this session's own
            return [self._sessions.fail_broken(slot)]
        self.metrics.frames_spoken += sum(isinstance(o, ResponseAudio) for o in outputs)
        return outputs


def _slot_of(item: tuple[_Slot, object]) -> _Slot:
    return item[0]
