"""Repeat what an engine was told, and compare what it makes, token by token.

A log says which command was carried out between which steps (`CommandNoted`, `StepNoted`). Here a
core is driven by that order and not by time: it gets a command where the log has it, and a tick
where the log has a step. So barge-in comes within the same word, and a reply that was begun in a
pause is taken back at the same step. Nothing is left to chance but the arithmetic.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from model.engine.core import EngineCore
from model.engine.log import AudioMade, Logged, loggable
from model.messages import (
    AppendAudio,
    AppendText,
    Close,
    Command,
    CommandNoted,
    CommitAudio,
    Note,
    Open,
    Output,
    Reopen,
    Respond,
    SessionFailed,
    StepNoted,
    Taken,
)

# A core may wait for another process that checks the arguments of a call.
_PATIENCE_S = 30.0
_MAX_TICKS = 64  # so many ticks without a step: a core that is due and does nothing


class ReplayClock:
    """A clock that shows the time it was set to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass(frozen=True, slots=True)
class Difference:
    """Say where a replay was not what the log has.

    Attributes:
        session_id: of the engine; one with a slash is a response beside a conversation.
        turn: counts exchanges from 1, each of them a turn of the user and what follows it; 0
            before the first.
        item_id: of the item that was made or asked for last in it; empty before there is one.
        step: counts the session's steps since it was opened, from 0.
        what: is not the same.
        expected: what the log has.
        got: what came instead.
    """

    session_id: str
    turn: int
    item_id: str
    step: int
    what: str
    expected: str
    got: str

    def __str__(self) -> str:
        """Write it in one line."""
        of = f" (item {self.item_id})" if self.item_id else ""
        return (
            f"turn {self.turn}{of}, step {self.step}: {self.what}: expected {self.expected}, "
            f"got {self.got}"
        )


@dataclass(slots=True)
class Replayed:
    """Count what was the same.

    Attributes:
        sessions: of the engine that were done again, each from an `Open` to its end.
        turns: of users in them.
        commands: that were carried out.
        steps: that were made.
        tokens: text pieces and audio codes in them, heard, fed, chosen and made.
        outputs: that were compared.
        sounds: pieces of sound that were made again, bit for bit.
        rounded: the others, of which only the length is the same: sessions that share a step are
            rounded differently than one that has it alone.
        skipped: sessions whose beginning the log does not have.
        difference: the first; None if all is the same.
    """

    sessions: int = 0
    turns: int = 0
    commands: int = 0
    steps: int = 0
    tokens: int = 0
    outputs: int = 0
    sounds: int = 0
    rounded: int = 0
    skipped: int = 0
    difference: Difference | None = None


@dataclass(slots=True)
class _Stretch:
    """One session of the engine, from an `Open` to its end."""

    session_id: str
    commands: list[Command] = field(default_factory=list)
    notes: list[tuple[Note, list[Logged]]] = field(default_factory=list)  # with what followed


class _DiffersError(Exception):
    def __init__(self, what: str, expected: object, got: object) -> None:
        self.what, self.expected, self.got = what, str(expected), str(got)


class Replay:
    """Do what a log has, session after session.

    Args:
        core: warmed up, without sessions; its clock is `clock`.
        clock: of the core.
    """

    def __init__(self, core: EngineCore, clock: ReplayClock) -> None:
        self._core = core
        self._clock = clock
        self._woken = threading.Event()
        core.on_wake(self._woken.set)

    def run(
        self, entries: Sequence[Logged], on_turn: Callable[[int, Replayed], None] | None = None
    ) -> Replayed:
        """Do it all, up to the first difference.

        Args:
            entries: of the log.
            on_turn: is told of every exchange that was the same, by its number.
        """
        done = Replayed()
        for stretch in _stretches(entries):
            if not stretch.notes or not _begins(stretch):
                done.skipped += 1
                continue
            done.sessions += 1
            _Session(stretch, self._core, self._clock, self._woken, done, on_turn).run()
            if done.difference is not None:
                break
        return done


class _Session:
    """Do one session again."""

    def __init__(
        self,
        stretch: _Stretch,
        core: EngineCore,
        clock: ReplayClock,
        woken: threading.Event,
        done: Replayed,
        on_turn: Callable[[int, Replayed], None] | None,
    ) -> None:
        self._stretch, self._core, self._clock = stretch, core, clock
        self._woken, self._done, self._on_turn = woken, done, on_turn
        self._turn = self._step = 0
        self._is_turn_open = False  # the user's
        self._item_id = ""
        self._ahead: list[Output] = []  # of a tick that made more than one step

    def run(self) -> None:
        session_id = self._stretch.session_id
        try:
            last = len(self._stretch.notes) - 1
            for index, (note, expected) in enumerate(self._stretch.notes):
                self._follow(note, expected, is_last=index == last)
            if self._turn and self._on_turn is not None:
                self._on_turn(self._turn, self._done)
        except _DiffersError as error:
            self._done.difference = Difference(
                session_id,
                self._turn,
                self._item_id,
                self._step,
                error.what,
                error.expected,
                error.got,
            )
        finally:
            self._core.apply(Close(session_id))

    def _follow(self, note: Note, expected: list[Logged], *, is_last: bool) -> None:
        # Only a script depends on the exact time. A model is asked for its step whenever one is
        # due.
        self._clock.now_s = max(self._clock.now_s, note.at_s)
        outputs = self._told(note) if isinstance(note, CommandNoted) else self._served(note)
        got = [loggable(output) for output in outputs if _is_compared(output)]
        for index, output in enumerate(expected):
            if index >= len(got):
                raise _DiffersError("an output is missing", _shown(output), "nothing")
            self._compare(output, got[index])
        # The log may end between a note and what followed from it.
        if len(got) > len(expected) and not is_last:
            raise _DiffersError("an output is new", "nothing", _shown(got[len(expected)]))
        self._done.outputs += len(expected)

    def _told(self, note: CommandNoted) -> list[Output]:
        if note.number >= len(self._stretch.commands):
            raise _DiffersError("a command is missing", f"number {note.number}", "nothing")
        command = self._stretch.commands[note.number]
        self._follow_turn(command)
        if isinstance(command, Open):
            command = replace(command, seed=note.seed)
        outputs = [*self._core.apply(command)]
        self._done.commands += 1
        return outputs

    def _served(self, note: StepNoted) -> list[Output]:
        outputs = self._ticked()
        notes = [output for output in outputs if isinstance(output, StepNoted)]
        for got in notes[:1]:
            for name in ("start", "fed", "heard", "pieces", "codes"):
                expected, made = getattr(note, name), getattr(got, name)
                if expected != made:
                    what = _WHAT[name]
                    if note.rows > 1:
                        # For example, two pieces may be equally likely to six digits. Sums are
                        # rounded differently alone than in a batch of four.
                        what += f" (then shared by {note.rows} sessions, whose rounding may tip it)"
                    raise _DiffersError(what, _short(expected, made), _short(made, expected))
        self._done.steps += 1
        self._done.tokens += sum(map(len, (note.fed, note.heard, note.pieces, note.codes)))
        self._step += 1
        return outputs

    def _ticked(self) -> list[Output]:
        """Serve the session once; returns what came of one step."""
        outputs = self._ahead or self._tick()
        steps = [i for i, output in enumerate(outputs) if isinstance(output, StepNoted)]
        end = steps[1] if len(steps) > 1 else len(outputs)
        self._ahead = outputs[end:]
        return outputs[:end]

    def _tick(self) -> list[Output]:
        outputs: list[Output] = []
        for _ in range(_MAX_TICKS):
            due_s = self._core.next_due_s()
            if due_s is None:
                # The arguments of a call are being checked elsewhere.
                self._woken.clear()
                due_s = self._core.next_due_s()
                if due_s is None and not self._woken.wait(_PATIENCE_S):
                    break
                continue
            self._clock.now_s = max(self._clock.now_s, due_s)
            outputs += self._core.tick()
            if any(isinstance(output, StepNoted | SessionFailed) for output in outputs):
                return outputs
        raise _DiffersError("a step is missing", "a step", "nothing to do")

    def _follow_turn(self, command: Command) -> None:
        """Know in which exchange this is, to name it."""
        match command:
            case AppendAudio():
                self._open_turn()
            case CommitAudio() | AppendText(role="user"):
                self._open_turn()
                self._is_turn_open = False
                self._item_id = command.item_id
            case Reopen():
                self._is_turn_open = True
                self._item_id = command.item_id
            case Respond():
                self._item_id = command.item_id
            case _:
                pass

    def _open_turn(self) -> None:
        if self._is_turn_open:
            return
        if self._turn and self._on_turn is not None:
            self._on_turn(self._turn, self._done)
        self._is_turn_open = True
        self._turn += 1
        self._done.turns += 1
        self._item_id = ""

    def _compare(self, expected: Logged, got: Logged) -> None:
        if isinstance(expected, AudioMade) and isinstance(got, AudioMade):
            is_same = expected.digest == got.digest
            self._done.sounds += is_same
            self._done.rounded += not is_same
            got = replace(got, digest=expected.digest)
        if expected == got:
            return
        if type(expected) is not type(got):
            raise _DiffersError("an output", _shown(expected), _shown(got))
        for each in fields(expected):
            if (a := getattr(expected, each.name)) != (b := getattr(got, each.name)):
                what = "the sound" if isinstance(expected, AudioMade) else type(expected).__name__
                raise _DiffersError(f"{what}, {each.name}", a, b)


_WHAT = {
    "start": "the place in the conversation",
    "fed": "the pieces that were fed",
    "heard": "the codes that were heard",
    "pieces": "the pieces that were chosen",
    "codes": "the codes that were made",
}


def _stretches(entries: Sequence[Logged]) -> Iterator[_Stretch]:
    """Divide a log into sessions of the engine, in the order in which they began."""
    # Commands and notes cross: the gateway has sent three commands when the first is noted. The
    # number in a note says which it is. Between the sessions of one id lies a `Close`, whose notes
    # may still come when the next `Open` has been sent; the note of that `Open` has number 0.
    sent: dict[str, list[_Stretch]] = {}
    noted: dict[str, int] = {}
    every: list[_Stretch] = []
    for entry in entries:
        session_id = entry.session_id
        stretches = sent.setdefault(session_id, [])
        if isinstance(entry, Open):
            stretches.append(_Stretch(session_id))
            every.append(stretches[-1])
        if isinstance(entry, Command):
            if stretches and not isinstance(entry, Close):
                stretches[-1].commands.append(entry)
            continue
        if isinstance(entry, CommandNoted) and entry.number == 0:
            noted[session_id] = _next_open(stretches, noted.get(session_id, -1))
        place = noted.get(session_id)
        if place is None or place >= len(stretches):
            continue
        notes = stretches[place].notes
        if isinstance(entry, CommandNoted | StepNoted):
            notes.append((entry, []))
        elif notes and _is_compared(entry):
            notes[-1][1].append(entry)
    yield from every


def _next_open(stretches: list[_Stretch], place: int) -> int:
    """Return which session of an id begins: the next one that was to be noted."""
    for index in range(place + 1, len(stretches)):
        first = stretches[index].commands[0]
        if isinstance(first, Open) and first.is_noted:
            return index
    return len(stretches)


def _begins(stretch: _Stretch) -> bool:
    first = stretch.notes[0][0]
    return isinstance(first, CommandNoted) and first.number == 0


def _is_compared(output: Output | AudioMade) -> bool:
    """Say whether an output follows from the log alone."""
    return not isinstance(output, Taken | CommandNoted | StepNoted)


def _shown(message: Logged) -> str:
    text = repr(message)
    return text if len(text) <= 160 else f"{text[:160]}…"


def _short(these: object, others: object) -> str:
    """Write numbers from the first that differs on."""
    if not isinstance(these, tuple) or not isinstance(others, tuple):
        return str(these)
    pairs = zip(these, others, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(these), len(others)))
    return f"{[*these[at : at + 6]]} at {at} of {len(these)}"
