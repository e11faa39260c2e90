"""Those who watch a session are told what passes, each in its own form."""

import numpy as np
import structlog

from model.messages import (
    Cancel,
    Command,
    CommitAudio,
    EngineBack,
    Output,
    Pcm,
    Reopen,
    ResponseText,
)
from server.protocol.server_events import ErrorEvent, ServerEvent
from server.session.counts import Counts
from server.session.observers import Observers
from server.session.usage import UsageBook
from server.session.witness import Witness


class _Diary(Witness):
    wants_sound = True

    def __init__(self) -> None:
        self.lines: list[tuple[str, object, float]] = []

    def sent(self, event: ServerEvent, event_id: str, now_s: float) -> None:
        self.lines.append((event_id, event, now_s))

    def told(self, command: Command, now_s: float) -> None:
        self.lines.append(("told", command, now_s))

    def made(self, output: Output, now_s: float) -> None:
        self.lines.append(("made", output, now_s))

    def heard(self, pcm: Pcm, now_s: float) -> None:
        self.lines.append(("heard", len(pcm), now_s))

    def ended(self, why: str, now_s: float) -> None:
        self.lines.append(("ended", why, now_s))


def _observers(*witnesses: Witness) -> tuple[Observers, Counts]:
    counts = Counts()
    meter = UsageBook().meter("", "m")
    log = structlog.get_logger("test")
    observers = Observers(counts, meter, witnesses, log, lambda: 5.0, lambda: None, 16_000)
    return observers, counts


def test_witnesses_see_what_passes_in_its_order() -> None:
    """News of the engine are of no session, and are not passed on."""
    diary = _Diary()
    observers, _ = _observers(diary)
    text, cancel = ResponseText("s", 1, "hi"), Cancel("s", 1)
    error = ErrorEvent("server_error", "x", "y", None, None)
    observers.made(EngineBack())
    observers.made(text)
    observers.told(cancel)
    observers.heard(np.zeros(3, dtype=np.float32), 4.0)
    observers.sent(error, "event_1")
    observers.ended("client")
    assert diary.lines == [
        ("made", text, 5.0),
        ("told", cancel, 5.0),
        ("heard", 3, 4.0),
        ("event_1", error, 5.0),
        ("ended", "client", 5.0),
    ]


def test_sound_is_kept_only_for_those_who_want_it() -> None:
    """A witness of texts alone costs no copies of sound."""
    assert not _observers()[0].want_sound
    assert not _observers(Witness())[0].want_sound
    assert _observers(Witness(), _Diary())[0].want_sound


def test_errors_and_early_replies_are_counted() -> None:
    """By their kind; an ordinary commit is no early reply."""
    observers, counts = _observers()
    observers.sent(ErrorEvent("server_error", "x", "y", None, None), "event_1")
    observers.speculated(CommitAudio("s", "item_1"))
    observers.speculated(CommitAudio("s", "item_2", is_tentative=True))
    observers.speculated(Reopen("s", "item_2"))
    assert counts.errors == {"server_error": 1}
    assert (counts.speculations, counts.speculations_withdrawn) == (1, 1)


def test_a_session_without_a_slot_is_not_counted_as_ended() -> None:
    """Witnesses are told of its end all the same."""
    diary = _Diary()
    observers, counts = _observers(diary)
    observers.ended("no_room")
    assert counts.sessions_ended == {}
    observers.begun("sess_1")
    observers.closed("client")
    assert counts.sessions_ended == {"client": 1}
    assert diary.lines == [("ended", "no_room", 5.0)]
