"""Run the checks of all sessions, in owned and bounded tasks, each within its budget."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from server.config import (
    ChatCheck,
    CheckSettings,
    FilterSettings,
    ModerationsCheck,
    PatternCheck,
    PersonalCheck,
    WordCheck,
)
from server.filters.checks import NOTHING, Check, Finding, PatternList, PersonalData, WordList
from server.filters.remote import Chat, CheckError, Moderations
from server.protocol.filters.verdicts import CheckWords, Direction, FilterPlan, Verdict

_log = structlog.get_logger("filters")
_MAX_TASKS = 8  # of one session at a time; more wait
_MASK = "*"


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    check: Check
    hears: bool
    says: bool
    budget_s: float
    is_held: bool


class FilterDesk:
    """Hold the checks that all sessions share.

    Args:
        settings: which checks there are.

    Raises:
        ConfigError: a pattern is none.
    """

    def __init__(self, settings: FilterSettings) -> None:
        self._steps = [
            _Step(
                f"{index}:{given.kind}",
                _made(given),
                "input" in given.of,
                "output" in given.of,
                given.budget_ms / 1000,
                given.when_late == "hold",
            )
            for index, given in enumerate(settings.checks)
        ]

    @property
    def plan(self) -> FilterPlan:
        """Return what is checked at all."""
        hears = any(step.hears for step in self._steps)
        return FilterPlan(hears, any(step.says for step in self._steps))

    def for_session(self, session_id: str, deliver: Callable[[Verdict], None]) -> "SessionFilters":
        """Return what answers one session's questions.

        Args:
            session_id: of the session.
            deliver: takes verdicts, on the event loop; must not raise.
        """
        return SessionFilters(self, session_id, deliver)

    async def judged(self, command: CheckWords, session_id: str) -> Verdict:
        """Return whether words may pass: what any check refuses is refused."""
        is_heard = command.direction == "heard"
        steps = [step for step in self._steps if (step.hears if is_heard else step.says)]
        found = await asyncio.gather(*(self._found(step, command, session_id) for step in steps))
        if any(is_hit(each, command.direction, command.start) for each in found):
            return Verdict(command.key, None)
        masks = [mask for finding in found for mask in finding.masks]
        return Verdict(command.key, masked(command.text, masks)[command.start :])

    async def _found(self, step: _Step, command: CheckWords, session_id: str) -> Finding:
        try:
            async with asyncio.timeout(step.budget_s):
                finding = await step.check.judge(command.text)
        except TimeoutError:
            finding, reason = Finding(is_refused=step.is_held), "late"
        except CheckError as error:
            finding, reason = Finding(is_refused=step.is_held), str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the words pass or are held
            _log.error("check broke", session_id=session_id, check=step.name, exc_info=error)
            return Finding(is_refused=step.is_held)
        else:
            if finding != NOTHING:
                # What was said is nobody's business here.
                where = command.direction
                _log.info("filtered", session_id=session_id, check=step.name, direction=where)
            return finding
        _log.warning("check failed", session_id=session_id, check=step.name, reason=reason)
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

    async def close(self) -> None:
        """Give up everything that goes on, because the session has ended."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_hit(finding: Finding, direction: Direction, start: int) -> bool:
    """Say whether words are refused: sound that says it cannot be masked.

    Args:
        finding: of a check.
        direction: whose words they are.
        start: where those begin that have not passed yet.
    """
    has_new = any(end > start for _, end in finding.masks)
    return finding.is_refused or (direction == "spoken" and has_new)


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
        case ModerationsCheck():
            return Moderations(given)
        case ChatCheck():
            return Chat(given)
