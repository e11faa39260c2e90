"""Count what is used, by API key and model: for metrics, and for a ledger on disk."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

import structlog

from model.messages import Usage
from server.protocol.wire.checks import JsonObject
from server.session.ledger import Ledger, LedgerError

# The cost of a response is written to the disk after this time, together with others that ended
# meanwhile.
_SOON_S = 0.2
# Lines that may wait while the disk takes none. When there are more, they are added up by key and
# model. The use of each single session is then unknown, but no use is lost.
MAX_WAITING = 4_096
TOKEN_FIELDS = tuple(field.name for field in fields(Usage))
"""Kinds of tokens of a response, as `Usage` has them."""

_DIGITS = 3

_log = structlog.get_logger("usage")


@dataclass(slots=True)
class Used:
    """Add up what was used.

    Attributes:
        sessions: that began.
        seconds: that they lasted.
        audio_in_seconds: of sound that users sent.
        audio_out_seconds: of sound that was made for them.
        responses: that ended, whatever way.
        input_text_tokens: this and what follows are the sums of their `Usage`.
    """

    sessions: int = 0
    seconds: float = 0.0
    audio_in_seconds: float = 0.0
    audio_out_seconds: float = 0.0
    responses: int = 0
    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    input_cached_text_tokens: int = 0
    input_cached_audio_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_cached_image_tokens: int = 0

    def add(self, other: "Used") -> None:
        """Add what else was used."""
        for name in _FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add_response(self, usage: Usage | None) -> None:
        """Add a response that ended; one that has no usage has cost nothing."""
        self.responses += 1
        for name in TOKEN_FIELDS if usage is not None else ():
            setattr(self, name, getattr(self, name) + getattr(usage, name))

    def to_json(self) -> JsonObject:
        """Write what is not zero; seconds in thousandths."""
        values = ((name, getattr(self, name)) for name in _FIELDS)
        return {name: round(value, _DIGITS) for name, value in values if value}


_FIELDS = tuple(field.name for field in fields(Used))


@dataclass(frozen=True, slots=True)
class Payer:
    """Say whose use it is.

    Attributes:
        key: name of the API key, empty without one.
        model: its own name.
    """

    key: str
    model: str


@dataclass(slots=True)
class _Line:
    """A line that waits to be written."""

    what: str
    payer: Payer
    used: Used
    session_id: str | None = None
    close: str = ""

    def to_json(self) -> JsonObject:
        head: JsonObject = {"what": self.what, "key": self.payer.key or None}
        head["model"] = self.payer.model
        if self.session_id is not None:
            head["session"] = self.session_id
        if self.close:
            head["close"] = self.close
        return {**head, **self.used.to_json()}


class Meter:
    """Count what one session uses, from `begin` to `end`; made by `UsageBook.meter`."""

    def __init__(self, book: "UsageBook", payer: Payer, clock: Callable[[], float]) -> None:
        self.payer = payer
        self.session_id = ""
        self.is_urgent = False
        self._book = book
        self._clock = clock
        self._settled_s = 0.0
        self._used = Used()

    def begin(self, session_id: str) -> None:
        """Count the session itself, and its time from now on."""
        self.session_id, self._settled_s = session_id, self._clock()
        self._used.sessions = 1
        self._book.began(self)

    def heard(self, seconds: float) -> None:
        """Count sound of the user."""
        self._used.audio_in_seconds += seconds

    def spoke(self, seconds: float) -> None:
        """Count sound that was made for the user."""
        self._used.audio_out_seconds += seconds

    def responded(self, usage: Usage | None) -> None:
        """Count a response whose end and cost the client has been told."""
        self._used.add_response(usage)
        self.is_urgent = True
        self._book.hurry()

    def end(self, close: str) -> None:
        """Count no further; `close` says how the session ended."""
        self._book.ended(self, close)

    def used(self) -> Used:
        """Return what was used since the last `take`."""
        so_far = Used()
        so_far.add(self._used)
        so_far.seconds += max(0.0, self._clock() - self._settled_s)
        return so_far

    def take(self) -> Used:
        """Return what was used since the last time, and begin anew."""
        taken, self._used, self._settled_s = self.used(), Used(), self._clock()
        self.is_urgent = False
        return taken


class UsageBook:
    """Add up the use of all sessions, and write it down.

    What is used is held in memory until it is written, which is every `flush_s`, and `_SOON_S`
    after a response has ended. A process that is killed loses no more than that.

    Args:
        ledger: where it is written; None for nowhere.
        flush_s: how often.
        clock: seconds that do not jump.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        flush_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._flush_s = flush_s
        self._clock = clock
        self._totals: dict[Payer, Used] = {}
        self._open: set[Meter] = set()
        self._waiting: list[_Line] = []
        self._is_urgent = asyncio.Event()
        self._is_closing = False
        self._writing: asyncio.Task[None] | None = None
        self._is_failing = False
        self.num_failures = 0

    def meter(self, key: str, model: str) -> Meter:
        """Make what counts a session's use, once it begins."""
        return Meter(self, Payer(key, model), self._clock)

    @property
    def totals(self) -> Mapping[Payer, Used]:
        """Return all that was used since the start; on any thread."""
        totals: dict[Payer, Used] = {}
        # Copies at once, since sessions come and go meanwhile.
        for payer, used in [*self._totals.items()]:
            totals.setdefault(payer, Used()).add(used)
        for meter in [*self._open]:
            totals.setdefault(meter.payer, Used()).add(meter.used())
        return totals

    @property
    def num_waiting(self) -> int:
        """Count the lines that are not on the disk yet."""
        return len(self._waiting)

    # From meters.

    def began(self, meter: Meter) -> None:
        """Take note of a session that begins."""
        self._open.add(meter)
        self._put("began", meter)

    def hurry(self) -> None:
        """Write soon."""
        self._is_urgent.set()

    def ended(self, meter: Meter, close: str) -> None:
        """Take note of a session that has ended."""
        self._open.discard(meter)
        self._put("ended", meter, close)

    def _put(self, what: str, meter: Meter, close: str = "") -> None:
        used = meter.take()
        self._totals.setdefault(meter.payer, Used()).add(used)
        if self._ledger is not None:
            self._waiting.append(_Line(what, meter.payer, used, meter.session_id, close))
            if len(self._waiting) > MAX_WAITING:
                self._waiting = _added_up(self._waiting)

    # To the disk.

    def start(self) -> None:
        """Begin to write, where there is a ledger; `close` ends it."""
        if self._ledger is not None:
            work = self._write_on(self._ledger)
            self._writing = asyncio.create_task(work, name="ledger of use")

    async def close(self) -> None:
        """Write what is left, when all sessions have ended."""
        self._is_closing = True
        self._is_urgent.set()
        if self._writing is not None:
            await self._writing

    async def _write_on(self, ledger: Ledger) -> None:
        try:
            while not self._is_closing:
                is_urgent = await self._is_urgent_soon()
                for meter in [*self._open]:
                    if meter.is_urgent or not is_urgent:
                        self._put("used", meter)
                await self._write(ledger)
            await self._write(ledger)  # what ended while that was written
            if self._waiting:
                _log.error("use is lost", lines=len(self._waiting))
        finally:
            await asyncio.to_thread(ledger.close)

    async def _is_urgent_soon(self) -> bool:
        """Wait until it is time to write; True if only for what is urgent."""
        try:
            async with asyncio.timeout(self._flush_s):
                await self._is_urgent.wait()
        except TimeoutError:
            return False
        if not self._is_closing:
            # Responses that end meanwhile are written with it.
            await asyncio.sleep(_SOON_S)
        self._is_urgent.clear()
        return True

    async def _write(self, ledger: Ledger) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            # A disk may take seconds for it: never in the event loop, and one batch at a time.
            await asyncio.to_thread(ledger.write, [line.to_json() for line in batch])
            self._is_failing = False
        except LedgerError as error:
            self.num_failures += 1
            if not self._is_failing:  # said once, and not with every try
                _log.error("use cannot be written down: it is kept in memory", error=str(error))
            self._is_failing = True
            self._waiting = batch + self._waiting
            if len(self._waiting) > MAX_WAITING:
                self._waiting = _added_up(self._waiting)


def _added_up(lines: Iterable[_Line]) -> list[_Line]:
    """Return a line for each key and model."""
    sums: dict[Payer, Used] = {}
    for line in lines:
        sums.setdefault(line.payer, Used()).add(line.used)
    return [_Line("sum", payer, used) for payer, used in sums.items()]
