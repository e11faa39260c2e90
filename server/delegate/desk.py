"""Carry out what sessions want of the text model, each question in a task that its session owns."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import structlog

from model.errors import GrammarError, OverloadedError
from model.schemas.service import SchemaService
from server.config.delegate import DelegateSettings
from server.delegate.client import DelegateFailure, ask
from server.delegate.counts import DelegateCounts
from server.protocol.delegate.outcomes import (
    AnswerCall,
    AnswerDone,
    AnswerFailed,
    AskModel,
    DelegateCommand,
    DelegateOutcome,
    DropAsk,
)

_log = structlog.get_logger("delegate")


class DelegateDesk:
    """Hold what all sessions share.

    Args:
        settings: where the text model is, and within which limits it is asked.
        schemas: checks the arguments of calls.
        counts: of all questions.
    """

    def __init__(
        self, settings: DelegateSettings, schemas: SchemaService, counts: DelegateCounts
    ) -> None:
        if settings.url is not None:
            # Without a text model, the package need not be loaded.
            import server.mcp.guard  # noqa: F401, PLC0415
        self.settings = settings
        self.schemas = schemas
        self.counts = counts

    def for_session(
        self, session_id: str, deliver: Callable[[DelegateOutcome], None]
    ) -> "SessionDelegate":
        """Return what carries out one session's wishes.

        Args:
            session_id: of the session.
            deliver: takes outcomes, on the event loop; must not raise.
        """
        return SessionDelegate(self, session_id, deliver)


class SessionDelegate:
    """Carry out one session's wishes, so many at a time; the others wait.

    Args:
        desk: that all sessions share.
        session_id: of the session.
        deliver: takes outcomes.
    """

    def __init__(
        self, desk: DelegateDesk, session_id: str, deliver: Callable[[DelegateOutcome], None]
    ) -> None:
        self._desk = desk
        self._session_id = session_id
        self._deliver = deliver
        self._room = asyncio.Semaphore(desk.settings.max_asks)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[asyncio.Task[None]] = set()

    def put(self, command: DelegateCommand) -> None:
        """Begin or give up what the protocol wants."""
        match command:
            case AskModel():
                task = asyncio.create_task(self._carry_out(command), name=f"ask {command.ask_id}")
                self._tasks[command.ask_id] = task
                # Owned: a task that nobody holds may be collected while it runs (asyncio,
                # `create_task`).
                task.add_done_callback(partial(self._forget, command.ask_id))
            case DropAsk():
                task_or_none = self._tasks.pop(command.ask_id, None)
                if task_or_none is not None:
                    self._give_up(task_or_none)

    def _forget(self, ask_id: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(ask_id, None)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    async def _carry_out(self, question: AskModel) -> None:
        async with self._room:
            begun_s = time.monotonic()
            how, done = "dropped", None
            try:
                done = await self._answered(question)
                how = "answered"
            except DelegateFailure as failure:
                how = "failed"
                self._note_failure(question, str(failure))
            except Exception as failure:  # noqa: BLE001 - whatever it is, the question ends
                how = "failed"
                _log.error("delegate broke", session_id=self._session_id, exc_info=failure)
                self._deliver(AnswerFailed(question.ask_id, "The text model cannot be asked."))
            finally:
                self._count(how, time.monotonic() - begun_s, done)

    def _note_failure(self, question: AskModel, reason: str) -> None:
        _log.warning("delegate failed", session_id=self._session_id, reason=reason)
        self._deliver(AnswerFailed(question.ask_id, reason))

    async def _answered(self, question: AskModel) -> AnswerDone:
        """Pass an answer on as it comes, and return its end.

        Raises:
            DelegateFailure: there is none, or a call of it cannot be made.
        """
        calls, done = await ask(question, self._desk.settings, self._deliver)
        for call in calls:
            await self._check(question, call)
        # If one call of an answer cannot be made, none of them is.
        for call in calls:
            self._deliver(call)
        self._deliver(done)
        return done

    async def _check(self, question: AskModel, call: AnswerCall) -> None:
        """Check a call against its schema, as the engine's own calls fit theirs.

        Raises:
            DelegateFailure: it does not fit.
        """
        tool = next((tool for tool in question.tools if tool.name == call.name), None)
        if tool is None or question.tool_choice == "none":
            raise DelegateFailure("The text model called a function that it was not offered.")
        try:
            asked = self._desk.schemas.misfit(self._session_id, tool.parameters, call.arguments)
            misfit = await asyncio.wrap_future(asked)
        except (GrammarError, OverloadedError):
            raise DelegateFailure(f"The arguments of '{tool.name}' cannot be checked.") from None
        if misfit is not None:
            raise DelegateFailure(f"The text model called '{tool.name}' with wrong arguments.")

    def _count(self, how: str, seconds: float, done: AnswerDone | None) -> None:
        counts = self._desk.counts
        counts.requests[how] = counts.requests.get(how, 0) + 1
        counts.seconds += seconds
        if done is not None:
            counts.tokens["input"] = counts.tokens.get("input", 0) + done.input_tokens
            counts.tokens["output"] = counts.tokens.get("output", 0) + done.output_tokens
        _log.info(
            "delegate asked",
            session_id=self._session_id,
            outcome=how,
            total_ms=round(seconds * 1000, 1),
            input_tokens=done.input_tokens if done else 0,
            output_tokens=done.output_tokens if done else 0,
        )

    async def close(self) -> None:
        """Give up everything that goes on, because the session has ended."""
        for task in [*self._tasks.values()]:
            self._give_up(task)
        await asyncio.gather(*self._given_up, return_exceptions=True)
