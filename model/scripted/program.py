"""Hold one conversation by the script."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from model.errors import EngineError, GrammarError, OverloadedError, ScriptError
from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallDone,
    CallStarted,
    Cancel,
    CheckTurn,
    ClearAudio,
    CommitAudio,
    EndOfTurn,
    EngineInfo,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Recite,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    Truncate,
    TurnChecked,
    Usage,
)
from model.scripted.answer import Answer, Check, choose
from model.scripted.checker import Checker
from model.scripted.hearing import HeardEnd, Hearing, Understood
from model.scripted.memory import Called, Memory, Note, Returned, Said, Tokens
from model.scripted.reply import Reply
from model.scripted.script import Script
from model.scripted.sight import look
from model.scripted.voice import VOICES

SessionCommand: TypeAlias = (
    AppendAudio
    | ClearAudio
    | CommitAudio
    | CheckTurn
    | Reopen
    | AppendText
    | AppendCall
    | AppendCallOutput
    | Respond
    | Recite
    | Truncate
)


@dataclass(slots=True)
class Progress:
    """How far a session has come in the script.

    Attributes:
        heard: indices of the entries of `hear` that are used up.
        uses: how often each reply was given.
    """

    heard: set[int] = field(default_factory=set)
    uses: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Tentative:
    """What the conversation was before a turn was tentatively committed."""

    item_id: str
    num_items: int
    uses: Counter[int]
    paid: Tokens


@dataclass(slots=True)
class _Checks:
    """What is asked before an answer is given."""

    answer: Answer
    asked: list[tuple[Check, Future[str | None]]]

    @property
    def is_done(self) -> bool:
        """Tell whether all of it is known."""
        return all(misfit.done() for _, misfit in self.asked)

    @property
    def refusal(self) -> str | None:
        """Say why the answer cannot be given; None if it can."""
        for check, asked in self.asked:
            try:
                misfit = asked.result()
            except (GrammarError, OverloadedError) as error:
                misfit = str(error)
            if misfit is not None:
                return check.refused(misfit)
        return None


class Program:
    """Run one session. Times are seconds on the engine's clock.

    Args:
        session: who talks, in which voice, under which instructions.
        script: to follow.
        progress: how far the session has come; kept up to date.
        info: of the engine.
        ahead_s: audio that may be made before its time to be played.
        checker: of calls' arguments.

    Attributes:
        session_id: whose conversation it is.
        progress: how far the session has come.
        memory: what of it is remembered.

    Raises:
        EngineError: from the constructor and from `accept`, for what cannot be done.
    """

    __slots__ = (
        "_ahead_s",
        "_call",
        "_checker",
        "_checks",
        "_hearing",
        "_info",
        "_instructions",
        "_paid",
        "_pending",
        "_reply",
        "_script",
        "_tentative",
        "_voice",
        "memory",
        "progress",
        "session_id",
    )

    def __init__(
        self,
        session: Open,
        script: Script,
        progress: Progress,
        info: EngineInfo,
        ahead_s: float,
        checker: Checker,
    ) -> None:
        self.session_id, self._instructions = session.session_id, session.instructions
        self._voice = _known_voice(session.voice)
        self._script, self.progress = script, progress
        self._info, self._ahead_s = info, ahead_s
        self._checker = checker
        self._checks: _Checks | None = None  # that the reply in progress waits for
        self._hearing = Hearing(
            script.hear,
            progress.heard,
            frame_samples=info.frame_samples,
            frame_ms=info.frame_ms,
        )
        self.memory = Memory()
        self._pending: deque[SessionCommand] = deque()
        self._reply: Reply | None = None
        self._call: tuple[str, str] = "", ""  # the call in progress: name, arguments so far
        self._paid = Tokens()  # that responses have been charged for
        self._tentative: _Tentative | None = None

    @property
    def due_s(self) -> float | None:
        """Say when something is to be made; None if nothing is, or it waits for somebody."""
        if self._reply is None or self.is_waiting or self._reply.is_waiting:
            return None
        return self._reply.due_s

    @property
    def is_waiting(self) -> bool:
        """Tell whether the reply cannot begin before its calls were checked elsewhere."""
        return self._checks is not None and not self._checks.is_done

    def accept(self, command: SessionCommand | Cancel, now_s: float) -> list[Output]:
        """Take a command, now or after the reply in progress; returns what follows at once."""
        match command:
            case Cancel():
                return [*self._cancel(command.turn), *self._advance(now_s)]
            case Reopen():
                # Nothing but responses can have been asked for since the tentative commit.
                self._reply = self._checks = None
                # A cancelled commit takes its answers along: whoever asked for them will ask again
                # when the turn is over.
                self._pending = deque(c for c in self._pending if not isinstance(c, Respond))
            case Recite() if self._is_making(command.turn):
                # It must not wait behind what waits for the end of this reply.
                self._recite(command, now_s)
                return []
            case Respond() if command.voice is not None:
                _known_voice(command.voice)
            case _:
                pass
        # A command waits only for a reply in progress, and only if it is about replies. What the
        # user says is heard meanwhile.
        self._pending.append(command)
        return self._advance(now_s)

    def tick(self, now_s: float) -> list[Output]:
        """Make what is due by now."""
        if self.is_waiting:
            return []
        outputs = self._pass_checks(now_s)
        # Late ticks make up for what was missed: every step that was due since is made, each at the
        # time at which it was due.
        while self.due_s is not None and self.due_s <= now_s:
            reply = self._reply
            assert reply is not None, "what is due is a reply"
            made = reply.make()
            self._remember(reply, made)
            outputs += made
            if reply.is_over:
                self._finish()
                outputs += self._advance(now_s)
        return outputs

    def _advance(self, now_s: float) -> list[Output]:
        """Carry out commands up to one that has to wait for the end of the reply."""
        outputs: list[Output] = []
        while self._pending:
            if self._reply is not None and isinstance(self._pending[0], Respond | Truncate):
                break
            outputs += self._take(self._pending.popleft(), now_s)
        return outputs

    def _take(self, command: SessionCommand, now_s: float) -> list[Output]:
        items = self.memory.items
        match command:
            case AppendAudio():
                return self._hear(command)
            case ClearAudio():
                self._hearing.clear()
            case CommitAudio():
                return [self._commit(command)]
            case CheckTurn():
                is_finished = self._hearing.is_finished
                return [TurnChecked(self.session_id, command.key, is_finished)]
            case Reopen():
                self._reopen(command)
            case AppendText():
                self._append(command)
            case AppendCall():
                items.append(Called(command.name, command.arguments))
            case AppendCallOutput():
                items.append(Returned(command.name, command.output))
            case Respond():
                return self._respond(command, now_s)
            case Recite():
                self._recite(command, now_s)
            case Truncate():
                self._truncate(command)
            case _:
                assert_never(command)
        return []

    def _recite(self, command: Recite, now_s: float) -> None:
        """Give words to the reply that recites; there may be another one by now."""
        if self._reply is not None and self._is_making(command.turn):
            self._reply.recite(command.text, is_last=command.is_last, now_s=now_s)

    def _is_making(self, turn: int) -> bool:
        return self._reply is not None and self._reply.request.turn == turn

    def _truncate(self, command: Truncate) -> None:
        self.memory.truncate(command.item_id, command.heard_ms, self._info.frame_ms)
        self._paid = self._known

    def _append(self, command: AppendText) -> None:
        match command.role:
            case "user":
                images = [look(image) for image in command.images]
                self.memory.add_user(command.item_id, command.text, images)
            case "system":
                self.memory.items.append(Note(command.text))
            case "assistant":
                self.memory.items.append(Said(command.item_id, command.text.split()))
            case _:
                assert_never(command.role)

    # The user's turn.

    def _hear(self, command: AppendAudio) -> list[Output]:
        return [
            EndOfTurn(self.session_id, news.audio_ms)
            if isinstance(news, HeardEnd)
            else InputTranscriptDelta(self.session_id, news)
            for news in self._hearing.hear(command.pcm)
        ]

    def _commit(self, command: CommitAudio) -> InputTranscript:
        if command.is_tentative:
            self._tentative = _Tentative(
                command.item_id, len(self.memory.items), self.progress.uses.copy(), self._paid
            )
        heard = self._hearing.commit(is_tentative=command.is_tentative)
        images = [look(image) for image in command.images]
        understood = heard or Understood("", 0)
        if heard is not None or images:
            self.memory.add_user(command.item_id, understood.text, images, understood.num_frames)
        return InputTranscript(
            self.session_id, command.item_id, understood.text, logprobs=understood.logprobs
        )

    def _reopen(self, command: Reopen) -> None:
        before = self._tentative
        if before is None or before.item_id != command.item_id:
            raise EngineError(f"no turn {command.item_id} was tentatively committed last")
        self._tentative = None
        self._hearing.reopen()
        del self.memory.items[before.num_items :]
        self.progress.uses = before.uses
        self._paid = before.paid

    # The assistant's turn.

    def _respond(self, request: Respond, now_s: float) -> list[Output]:
        instructions = self._instructions
        if request.instructions is not None:
            instructions = request.instructions
        try:
            answer = self._answer(request, instructions)
        except ScriptError as error:
            return [ResponseFailed(self.session_id, request.turn, str(error))]
        # Schemas are checked in another process, which takes time. The response counts as started
        # meanwhile, and its first words wait for the answer.
        asked = [
            (check, self._checker.misfit(self.session_id, check.parameters, check.arguments))
            for check in answer.checks
        ]
        self._checks = _Checks(answer, asked) if asked else None
        usage = self._usage
        self._reply = Reply(
            request,
            answer,
            voice=request.voice or self._voice,
            usage=usage,
            info=self._info,
            ahead_s=self._ahead_s,
            now_s=now_s,
        )
        return [ResponseStarted(self.session_id, request.turn, usage), *self.tick(now_s)]

    def _answer(self, request: Respond, instructions: str) -> Answer:
        if request.recites:
            return Answer(None, (), (), None, None, self._script.pace)
        return choose(self._script, self.memory, request, instructions, self.progress.uses)

    def _pass_checks(self, now_s: float) -> list[Output]:
        """Give up a reply whose calls are not what their functions take."""
        checks, self._checks = self._checks, None
        refusal = None if checks is None else checks.refusal
        if checks is None or refusal is None:
            return []
        assert self._reply is not None
        turn, self._reply = self._reply.request.turn, None
        # The reply was not given, so it does not count against `at_most`.
        if checks.answer.rule is not None:
            self.progress.uses[checks.answer.rule] -= 1
        return [ResponseFailed(self.session_id, turn, refusal), *self._advance(now_s)]

    def _cancel(self, turn: int) -> list[Output]:
        reply = self._reply
        if reply is not None and reply.request.turn == turn:
            self._finish()
            return [reply.end("cancelled")]
        for command in self._pending:
            if isinstance(command, Respond) and command.turn == turn:
                self._pending.remove(command)
                return [ResponseDone(self.session_id, turn, "cancelled", Usage())]
        return []

    def _finish(self) -> None:
        self._reply = self._checks = None
        self._paid = self.memory.count_tokens()

    @property
    def _known(self) -> Tokens:
        """Return what was paid for of the tokens that are remembered."""
        # After a truncation less is remembered than was paid for. What is gone cannot be cached.
        return self._paid.at_most(self.memory.count_tokens())

    @property
    def _usage(self) -> Usage:
        """Count what a response is based on."""
        tokens, known = self.memory.count_tokens(), self._known
        return Usage(
            input_text_tokens=tokens.text,
            input_audio_tokens=tokens.audio,
            input_image_tokens=tokens.image,
            input_cached_text_tokens=known.text,
            input_cached_audio_tokens=known.audio,
            input_cached_image_tokens=known.image,
        )

    def _remember(self, reply: Reply, outputs: list[Output]) -> None:
        """Remember what was made of a reply."""
        for output in outputs:
            match output:
                case ResponseText():
                    self._said(reply).words.append(output.text.strip())
                case ResponseWord():
                    self._said(reply).starts_ms.append(output.start_ms)
                case ResponseAudio():
                    self._said(reply).num_frames += 1
                case CallStarted():
                    self._call = output.name, ""
                case CallArguments():
                    self._call = self._call[0], self._call[1] + output.text
                case CallDone():
                    self.memory.items.append(Called(*self._call))
                case _:
                    pass

    def _said(self, reply: Reply) -> Said:
        """Return the item that a reply becomes; it is there from its first word on."""
        item_id = reply.request.item_id
        for item in reversed(self.memory.items):
            if isinstance(item, Said) and item.item_id == item_id:
                return item
        item = Said(item_id)
        self.memory.items.append(item)
        return item


def _known_voice(voice: str) -> str:
    if voice not in VOICES:
        raise EngineError(f"no voice {voice!r}, only {', '.join(VOICES)}")
    return voice
