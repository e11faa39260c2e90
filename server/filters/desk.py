"""Run the checks of all sessions, in owned and bounded tasks, each within its budget."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from server.config.filters import (
    ChatCheck,
    CheckSettings,
    FilterSettings,
    ModerationsCheck,
    OffensiveCheck,
    PatternCheck,
    PersonalCheck,
    WordCheck,
)
from server.errors import ClientError
from server.filters.checks import NOTHING, Check, Finding, PatternList, PersonalData, WordList
from server.filters.classifier import Offensive
from server.filters.counts import FilterCounts, count_in
from server.filters.remote import Chat, CheckError, Moderations
from server.protocol.filters.verdicts import CheckWords, Direction, FilterPlan, Verdict
from server.protocol.wire.client_events import ItemCreate, ResponseCreate
from server.protocol.wire.words import carried_words, with_words

_log = structlog.get_logger("filters")
_MAX_TASKS = 8  # of one session at a time; more wait
_MASK = "*"
# Typed text may be long. It is checked in pieces, so other sessions do not wait for it. Each piece
# begins with the end of the one before. The worst that we found to judge, one short number after
# the other, took 17 ms a piece on a busy core.
_PIECE_CHARS = 2_000
_BEFORE_CHARS = 600

_Typed = TypeVar("_Typed", ItemCreate, ResponseCreate)
# Whose words → the name of it in the settings.
_OF: dict[Direction, str] = {
    "heard": "input",
    "spoken": "output",
    "written": "output",
    "called": "calls",
}


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    check: Check
    of: frozenset[str]
    budget_s: float
    is_held: bool


class FilterDesk:
    """Hold the checks that all sessions share.

    Args:
        settings: which checks there are.
        clock: seconds that do not jump.

    Attributes:
        counts: of what the checks do.

    Raises:
        ConfigError: a pattern is not valid.
    """

    def __init__(
        self, settings: FilterSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = FilterCounts()
        # Checks have no state: one set of them is enough for all sessions, however many there are.
        self._sentence = settings.sentence.strip()
        self._clock = clock
        self._steps = [
            _Step(
                f"{index}:{given.kind}",
                _made(given),
                frozenset(given.of),
                given.budget_ms / 1000,
                given.when_late == "hold",
            )
            for index, given in enumerate(settings.checks)
        ]

    @property
    def plan(self) -> FilterPlan:
        """Return what is checked at all."""
        of = frozenset().union(*(step.of for step in self._steps))
        return FilterPlan("input" in of, "output" in of, "calls" in of, self._sentence)

    def for_session(self, session_id: str, deliver: Callable[[Verdict], None]) -> "SessionFilters":
        """Return what answers one session's questions.

        Args:
            session_id: of the session.
            deliver: takes verdicts, on the event loop; must not raise.
        """
        return SessionFilters(self, session_id, deliver)

    async def judged(self, command: CheckWords, session_id: str) -> Verdict:
        """Return whether words may pass; one check that refuses them is enough."""
        # For example, "write to a@b.org now" is judged by a list of words and for addresses. Both
        # work at the same time, so it takes as long as the slower one, 100 ms at most each. The
        # list finds nothing. The other finds letters 9 to 16 and is set to mask them, so that
        # "write to ******* now" may pass. Had the list found a word, no mask would help.
        steps = [step for step in self._steps if _OF[command.direction] in step.of]
        found = await asyncio.gather(*(self._found(step, command, session_id) for step in steps))
        if any(is_hit(each, command.direction, command.start) for each in found):
            return Verdict(command.key, None)
        masks = [mask for finding in found for mask in finding.masks]
        return Verdict(command.key, masked(command.text, masks)[command.start :])

    async def _found(self, step: _Step, command: CheckWords, session_id: str) -> Finding:
        began_s = self._clock()
        try:
            async with asyncio.timeout(step.budget_s):
                finding = await step.check.judge(command.text)
        except TimeoutError:
            count_in(self.counts.late, step.name)
            _log.warning("check late", session_id=session_id, check=step.name)
            return Finding(is_refused=step.is_held)
        except CheckError as error:
            count_in(self.counts.broken, step.name)
            _log.warning("check broke", session_id=session_id, check=step.name, reason=str(error))
            return Finding(is_refused=step.is_held)
        except Exception as error:  # noqa: BLE001 - any error, as `_Step.is_held` has it
            count_in(self.counts.broken, step.name)
            _log.error("check broke", session_id=session_id, check=step.name, exc_info=error)
            return Finding(is_refused=step.is_held)
        finally:
            self.counts.count_time(self._clock() - began_s)
        if finding != NOTHING:
            count_in(self.counts.hits, step.name)
            # Words of users are not logged.
            where = command.direction
            _log.info("filtered", session_id=session_id, check=step.name, direction=where)
        return finding

    async def close(self) -> None:
        """Close the connections of checks."""
        for step in self._steps:
            await step.check.close()


class SessionFilters:
    """Answer one session's questions, so many at a time.

    Args:
        desk: that all sessions share.
        session_id: of the session.
        deliver: takes verdicts.
    """

    def __init__(
        self, desk: FilterDesk, session_id: str, deliver: Callable[[Verdict], None]
    ) -> None:
        self._desk = desk
        self._session_id = session_id
        self._deliver = deliver
        self._room = asyncio.Semaphore(_MAX_TASKS)
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, command: CheckWords) -> None:
        """Begin to check words."""
        task = asyncio.create_task(self._check(command), name=f"check {command.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, command: CheckWords) -> None:
        async with self._room:
            verdict = await self._desk.judged(command, self._session_id)
        self._deliver(verdict)

    async def typed(self, event: _Typed) -> _Typed:
        """Return an event as it may be taken: with the words that the user typed, or masks.

        Raises:
            ClientError: they are refused.
        """
        if not self._desk.plan.hears:
            return event
        words = {each.path: each.text for each in carried_words(event) if each.text.strip()}
        passed = {path: await self._typed(text, path) for path, text in words.items()}
        return event if passed == words else with_words(event, passed)

    async def _typed(self, text: str, path: str) -> str:
        passed = [*text]
        for at in range(0, len(text), _PIECE_CHARS):
            start = max(0, at - _BEFORE_CHARS)
            piece = text[start : at + _PIECE_CHARS]
            async with self._room:
                verdict = await self._desk.judged(CheckWords(0, "heard", piece), self._session_id)
            if verdict.words is None:
                raise ClientError(
                    f"The words in '{path}' are refused by a filter of this server.",
                    code="content_filter",
                    param=path,
                )
            # Pieces overlap, and a character is masked if one of its pieces masks it.
            for place, (before, after) in enumerate(zip(piece, verdict.words, strict=True), start):
                passed[place] = after if after != before else passed[place]
            await asyncio.sleep(0)
        return "".join(passed)

    async def close(self) -> None:
        """Give up everything that goes on, because the session has ended."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_hit(finding: Finding, direction: Direction, start: int) -> bool:
    """Say whether words are refused: in sound and in calls nothing can be masked.

    Args:
        finding: of a check.
        direction: whose words they are.
        start: where those begin that have not passed yet.
    """
    has_new = any(end > start for _, end in finding.masks)
    return finding.is_refused or (direction in ("spoken", "called") and has_new)


def masked(text: str, masks: list[tuple[int, int]]) -> str:
    """Return a text of the same length, with each masked character replaced; spaces stay."""
    hidden = {index for start, end in masks for index in range(start, end)}
    return "".join(
        _MASK if index in hidden and not char.isspace() else char for index, char in enumerate(text)
    )


def _made(given: CheckSettings) -> Check:
    match given:
        case WordCheck():
            return WordList(given.words)
        case PatternCheck():
            return PatternList(given.patterns)
        case PersonalCheck():
            is_masked = given.action == "mask"
            return PersonalData(given.find, given.region, is_masked=is_masked)
        case OffensiveCheck():
            return Offensive(given.threshold)
        case ModerationsCheck():
            return Moderations(given)
        case ChatCheck():
            return Chat(given)
