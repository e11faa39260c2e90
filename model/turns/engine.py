"""Serve many sessions from one model, tick by tick.

`model/engine/local.py` gives this a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch

from model.arrays import Ints
from model.codec.mel import MelCodec
from model.engine.config import EngineConfig
from model.engine.notes import Notes
from model.engine.sessions import Sessions
from model.engine.slots import SlotTable
from model.errors import EngineError
from model.messages import (
    AppendAudio,
    Close,
    Command,
    CommitAudio,
    EngineInfo,
    Open,
    Output,
    Pcm,
    Respond,
    ResponseAudio,
    SessionCommand,
    StepNoted,
)
from model.metrics import EngineMetrics
from model.schemas.service import SchemaService
from model.schemas.spelling import Speller, spelled
from model.transformer.lm import LM
from model.turns.call import CallService
from model.turns.phase import Phase
from model.turns.program import TurnProgram
from model.turns.reply import SpeechTiming
from model.turns.runner import Request, Result, Runner
from model.turns.scheduler import Scheduler, urgency
from model.turns.sight import Sight
from model.turns.slot import Playout, Slot, Urgency
from model.turns.steps import Decode, TurnLimits
from model.vocabulary import TurnVocabulary

# Replies' words and transcripts are written in fewer steps at a time; histories in more.
_BEHIND_STEPS = 16
# Of a user who is heard this late (2 s), the audio did not come from a live microphone.
_FLOOD_FRAMES = 25
_WARM_UP_FRAMES = 4
_WARM_UP_TICKS = 40  # enough to write some words and speak some frames


class TickEngine:
    """Hold the sessions and advance them.

    Args:
        lm: language model, in evaluation mode.
        codec: tokenizer and vocoder, in evaluation mode.
        vocabulary: of the tokenizer.
        config: capacity and pacing.
        clock: returns seconds, never going back.
        name: of the model.
        limits: of one conversation.
        writer: writes the arguments of calls; None for a process of its own, when there are any.
    """

    def __init__(
        self,
        lm: LM,
        codec: MelCodec,
        vocabulary: TurnVocabulary,
        config: EngineConfig,
        *,
        clock: Callable[[], float],
        name: str = "starter",
        limits: TurnLimits | None = None,
        writer: CallService | None = None,
    ) -> None:
        self.metrics = EngineMetrics()
        self.config = config
        frame_ms = codec.frame_samples * 1000 // codec.sample_rate_hz
        self._sight = _sight(lm)
        self.info = EngineInfo(
            name,
            codec.sample_rate_hz,
            frame_ms,
            tuple(vocabulary.voices),
            config.max_sessions,
            image_side=0 if self._sight is None else self._sight.image_side,
        )
        self._speller = Speller(vocabulary)
        self._limits = limits or TurnLimits(max_prefix_steps=lm.config.prefix_steps)
        self._clock = clock
        self._writer: CallService = writer or SchemaService(spelled(vocabulary))
        self._delays = lm.config.delays
        self._timing = SpeechTiming(codec.frame_samples, frame_ms, codec.lookahead_samples)
        self._runner = Runner(lm, codec, vocabulary, config, self.metrics)
        self._scheduler = Scheduler(config, frame_ms / 1000)
        self._slots: SlotTable[Slot] = SlotTable(config.max_sessions)
        self._sessions = Sessions(self._slots, self.metrics, self._runner.wipe)
        self._num_opened = 0

    @property
    def max_queued_commands(self) -> int:
        """Bound the commands that wait for the engine's thread."""
        return self.config.max_queued_commands

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when `next_due_s` may say something else, from any thread."""
        self._writer.on_done = wake

    def close(self) -> None:
        """End what works for the engine elsewhere."""
        self._writer.close()

    def next_due_s(self) -> float | None:
        """Say when the next tick has something to do, on the clock; None if never as things are."""
        self._note_answers()
        return self._scheduler.next_due_s(self._slots)

    def apply(self, command: Command) -> list[Output]:
        """Carry out a command, as far as no model is needed for it.

        Returns:
            What follows from it at once; for a command that cannot be carried out, the session's
            failure.
        """
        return self._sessions.apply(command, self._open, self._carry_out)

    def tick(self) -> list[Output]:
        """Serve the sessions that are due: one batched step of the model.

        Returns:
            What the sessions are to be told, in order; empty if nothing was due.
        """
        self._note_answers()
        chosen = self._scheduler.choose(self._slots, self._clock())
        if not chosen:
            return []
        start = perf_counter()
        with torch.inference_mode():
            outputs: list[Output] = []
            heard_since_s = [s.waiting_since_s for s in chosen if s.work is Urgency.FRAME]
            requests = self._plan(chosen, outputs)
            self.metrics.count_rows(slot.program.phase.name.lower() for slot, _ in requests)
            done = self._sessions.together(requests, _slot_of, self._step, outputs)
            self._observe(done, outputs)
            self._count_late(heard_since_s)
            served = [slot for slot in chosen if self._sessions.is_open(slot)]
            outputs += self._deliver(served, was_served=True)
        self.metrics.count_tick(perf_counter() - start, len(requests))
        return outputs

    def warm_up(self) -> None:
        """Hold a short conversation with nobody, so that the first caller finds everything ready.

        Only before sessions are opened, and on the engine's thread, which it prepares.
        """
        assert not len(self._slots)
        torch.set_num_threads(self.config.num_threads)
        session_id = "warm-up"
        self._sessions.is_trial = True
        pcm = np.zeros(_WARM_UP_FRAMES * self._timing.frame_samples, dtype=np.float32)
        for command in (
            Open(session_id, self.info.voices[0]),
            AppendAudio(session_id, pcm),
            CommitAudio(session_id, "user"),
            Respond(session_id, 0, "assistant"),
        ):
            self.apply(command)
        for _ in range(_WARM_UP_TICKS):
            self.tick()
        self.apply(Close(session_id))
        self._sessions.is_trial = False
        self.metrics.clear()

    def fail_all(self, message: str) -> Sequence[Output]:
        """Give up all sessions and start over with fresh state, since the old may be broken."""
        failed = self._sessions.fail_all(message)
        self._runner.reset()
        return failed

    # Commands.

    def _open(self, command: Open) -> list[Output]:
        seed = self.config.seed + self._num_opened if command.seed is None else command.seed
        noise = torch.Generator().manual_seed(seed)
        program = TurnProgram(
            command,
            speller=self._speller,
            writer=self._writer,
            timing=self._timing,
            delays=self._delays,
            noise=noise,
            limits=self._limits,
            sight=self._sight,
        )
        self._num_opened += 1
        slot = self._sessions.take(command.session_id, lambda index: Slot(index, program, noise))
        if command.is_noted:
            slot.notes = Notes(command.session_id, seed)
        return [*self._noted(slot), *self._deliver([slot])]

    def _carry_out(self, slot: Slot, command: SessionCommand) -> list[Output]:
        noted = self._noted(slot)
        slot.program.accept(command)
        return [*noted, *self._deliver([slot])]

    def _noted(self, slot: Slot) -> list[Output]:
        """Note a command, where somebody wants to know."""
        return [] if slot.notes is None else [slot.notes.command(self._clock())]

    # One tick.

    def _plan(self, chosen: Sequence[Slot], outputs: list[Output]) -> list[tuple[Slot, Request]]:
        """Encode what users said and collect everyone's next steps."""
        hearing: list[tuple[Slot, tuple[Pcm, bool]]] = []
        for slot in chosen:
            try:
                if slot.program.wants_frame:
                    hearing.append((slot, slot.program.take_frame()))
            except Exception:  # noqa: BLE001 - whatever broke is this session's own
                outputs.append(self._sessions.fail_broken(slot))
        heard = {
            slot.index: codes
            for (slot, _), codes in self._sessions.together(
                hearing, _slot_of, self._encode, outputs
            )
        }
        self.metrics.frames_heard += len(heard)
        requests = []
        for slot in filter(self._sessions.is_open, chosen):
            try:
                self._recall(slot)
                steps = slot.program.plan(heard.get(slot.index))
                # The history is what counts: where the model's memory cannot go back so far, it was
                # emptied by `seek`, and the steps are planned again from the first one on.
                if steps is not None and not self._runner.seek(slot.index, steps.start):
                    slot.program.rebuild()
                    self._recall(slot)
                    steps = slot.program.plan()
            except Exception:  # noqa: BLE001 - whatever broke is this session's own
                outputs.append(self._sessions.fail_broken(slot))
                continue
            if steps is not None:
                requests.append((slot, Request(slot.index, steps, slot.noise)))
        return requests

    def _recall(self, slot: Slot) -> None:
        """Spare a conversation that begins the steps that the model remembers from another."""
        prompt = slot.program.prompt
        # The notes of a session must hold all that its tokens depend on, so a noted session recalls
        # no prompt that another one has left.
        if prompt is not None and slot.notes is None:
            slot.program.recall(self._runner.recall(slot.index, prompt))

    def _encode(self, hearing: Sequence[tuple[Slot, tuple[Pcm, bool]]]) -> list[Ints]:
        frames, is_first = zip(*(heard for _, heard in hearing), strict=True)
        return list(self._runner.encode([slot.index for slot, _ in hearing], frames, is_first))

    def _step(self, requests: Sequence[tuple[Slot, Request]]) -> list[Result]:
        for slot, request in requests:
            # The slot stands there already, unless the step is repeated because it broke for a
            # session.
            if not self._runner.seek(slot.index, request.steps.start):
                raise EngineError("the model has lost the conversation while it was served")
        return self._runner.step([request for _, request in requests])

    def _observe(
        self, done: Sequence[tuple[tuple[Slot, Request], Result]], outputs: list[Output]
    ) -> None:
        """Tell every program what the model made of its steps."""
        for (slot, request), result in done:
            if not result.is_finite:
                outputs.append(self._sessions.fail(slot, "the model's output is not finite"))
                continue
            if slot.notes is not None:
                outputs.append(_step_noted(slot, request, result, self._clock(), len(done)))
            try:
                slot.program.observe(
                    request.steps, result.pieces, result.scores, result.codes, result.sure
                )
            except Exception:  # noqa: BLE001 - whatever broke is this session's own
                outputs.append(self._sessions.fail_broken(slot))

    def _deliver(self, slots: Sequence[Slot], *, was_served: bool = False) -> list[Output]:
        """Decode audio and return what has happened in `slots`, each slot's events in order."""
        waiting = {slot.index: slot.program.take_events() for slot in slots}
        made: dict[int, list[Output]] = {slot.index: [] for slot in slots}
        failed: list[Output] = []
        # Say that slot 1 has [text, Decode, word, Decode] and slot 2 has [Decode]. Round one tells
        # the text and decodes a frame of both in one batch; round two tells the word and decodes
        # slot 1's second frame. Nothing of a slot overtakes anything else of it.
        while any(waiting.values()):
            # One round: everything up to each slot's next frame, then these frames together.
            decodes: list[tuple[Slot, Decode]] = []
            for slot in slots:
                events = waiting[slot.index]
                while events:
                    event = events.pop(0)
                    if isinstance(event, Decode):
                        decodes.append((slot, event))
                        break
                    made[slot.index].append(event)
            for slot, audio in self._decode(decodes, failed):
                made[slot.index].append(audio)
            for slot in slots:
                if not self._sessions.is_open(slot):
                    waiting[slot.index].clear()
        for slot in slots:
            if self._sessions.is_open(slot):
                self._note_work(slot, was_served=was_served)
        return [*(output for slot in slots for output in made[slot.index]), *failed]

    def _decode(
        self, decodes: Sequence[tuple[Slot, Decode]], failed: list[Output]
    ) -> list[tuple[Slot, ResponseAudio]]:
        done = self._sessions.together(decodes, _slot_of, self._pcm, failed)
        now_s = self._clock()
        audio = []
        for (slot, decode), row in done:
            samples = np.ascontiguousarray(row[decode.start : decode.stop])
            self.metrics.frames_spoken += 1
            if len(samples):
                seconds = len(samples) / self.info.sample_rate_hz
                self.metrics.frames_late += slot.playout.add(seconds, now_s)
                session_id = slot.program.session_id
                audio.append((slot, ResponseAudio(session_id, decode.turn, samples)))
        return audio

    def _pcm(self, decodes: Sequence[tuple[Slot, Decode]]) -> list[Pcm]:
        return list(
            self._runner.decode(
                [slot.index for slot, _ in decodes],
                [decode.codes for _, decode in decodes],
                [decode.is_first for _, decode in decodes],
            )
        )

    def _count_late(self, heard_since_s: Sequence[float]) -> None:
        """Count frames that were heard after their users' next ones had been spoken."""
        by_s = self._clock() - self._timing.frame_ms / 1000
        self.metrics.frames_heard_late += sum(since_s < by_s for since_s in heard_since_s)

    def _note_answers(self) -> None:
        """Take note of sessions whose calls have what they waited for."""
        for slot in self._slots:
            if slot.work is None and slot.program.has_work:
                self._note_work(slot, was_served=False)

    def _note_work(self, slot: Slot, *, was_served: bool) -> None:
        """Keep what the scheduler looks at in step with what the slot's program does."""
        program = slot.program
        if program.phase is not Phase.SPEAKING:
            slot.playout = Playout()
        slot.is_behind = program.num_waiting_steps > _BEHIND_STEPS
        work = None
        if program.has_work:
            work = urgency(
                program.phase,
                slot.playout,
                is_awaited=program.is_answer_awaited,
                is_flooded=program.num_waiting_frames > _FLOOD_FRAMES,
                is_far_behind=program.num_waiting_steps > self._limits.max_prefill_steps,
            )
        # An answer is waited for as a whole; everything else waits anew once it was served.
        is_anew = was_served and work is not Urgency.ANSWER
        if work is not slot.work or is_anew:
            slot.work, slot.waiting_since_s = work, self._clock()


def _step_noted(slot: Slot, request: Request, result: Result, at_s: float, rows: int) -> StepNoted:
    """Note what a session was served, and what came of it."""
    steps, pieces, codes = request.steps, result.pieces, result.codes
    user = steps.block.user
    return StepNoted(
        slot.session_id,
        at_s,
        steps.start,
        tuple(map(int, steps.block.text)),
        tuple(map(int, user[(user >= 0).all(axis=1)].reshape(-1))),
        () if pieces is None else tuple(map(int, pieces)),
        () if codes is None else tuple(map(int, codes)),
        rows,
    )


def _sight(lm: LM) -> Sight | None:
    config = lm.config
    return Sight(config.picture_size, config.patch_size) if config.picture_size else None


def _slot_of(item: tuple[Slot, object]) -> Slot:
    return item[0]
