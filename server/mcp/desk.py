"""Carry out what sessions want of MCP servers, each request in a task that its session owns."""

import asyncio
import json
from collections.abc import Callable
from functools import partial

import structlog

from model.errors import OverloadedError
from model.schemas.service import SchemaService
from server.config.tools import McpSettings
from server.mcp.audit import AuditLog
from server.mcp.client import call_tool, list_tools, load
from server.mcp.errors import McpFailure
from server.mcp.listings import ListingCache
from server.mcp.servers import target_of
from server.protocol.items.mcp import ListedTool, McpError
from server.protocol.mcp.outcomes import (
    CallTool,
    Decision,
    DropTool,
    ListingFailed,
    ListTools,
    ToolCommand,
    ToolFailed,
    ToolOutcome,
    ToolReturned,
    ToolsListed,
)

_log = structlog.get_logger("mcp")


class ToolDesk:
    """Hold what all sessions share: settings, listings, the audit log.

    Args:
        settings: which servers may be asked, and within which limits.
        schemas: checks the tools' schemas, as it does functions'.
        audit: is told of decisions.
    """

    def __init__(self, settings: McpSettings, schemas: SchemaService, audit: AuditLog) -> None:
        if settings.servers or settings.allowed:
            # Otherwise none can be named, and none is ever asked.
            load()
        self._settings = settings
        self._schemas = schemas
        self._listings = ListingCache(settings.cache_s)
        self.audit = audit

    def for_session(
        self, session_id: str, deliver: Callable[[ToolOutcome], None], user: str = ""
    ) -> "SessionTools":
        """Return what carries out one session's wishes.

        Args:
            session_id: of the session.
            deliver: takes outcomes, on the event loop; must not raise.
            user: whose session it is, for the audit log; empty if nobody knows.
        """
        return SessionTools(self, session_id, deliver, self._settings.max_calls, user)

    async def listed(self, command: ListTools, owner: str) -> tuple[ListedTool, ...]:
        """Return a server's tools, of those whose arguments can be kept within their schemas.

        Raises:
            McpFailure: they cannot be listed.
        """
        target = target_of(command.server, self._settings)
        tools = self._listings.get(target)
        if tools is None:
            tools = await list_tools(target, self._settings)
            tools = await self._usable(tools, command.server.label, owner)
            self._listings.put(target, tools)
        return tools

    async def _usable(
        self, tools: tuple[ListedTool, ...], label: str, owner: str
    ) -> tuple[ListedTool, ...]:
        usable: list[ListedTool] = []
        for tool in tools:
            try:
                check = self._schemas.check(owner, json.dumps(tool.input_schema))
                # Compiled before a call, not at it: while the model speaks nobody can wait for
                # that.
                verdict = await asyncio.wrap_future(check)
            except OverloadedError:
                raise McpFailure.protocol(0, "Too many schemas wait to be compiled.") from None
            if verdict.refused is None:
                usable.append(tool)
                continue
            _log.warning("tool left out", server=label, tool=tool.name, reason=verdict.refused)
        return tuple(usable)

    async def called(self, command: CallTool) -> str:
        """Return what a tool returned.

        Raises:
            McpFailure: it could not be called, or failed.
        """
        target = target_of(command.server, self._settings)
        return await call_tool(target, command.name, command.arguments, self._settings)

    def close(self) -> None:
        """Close the audit log."""
        self.audit.close()


class SessionTools:
    """Carry out one session's wishes, so many at a time; the others wait.

    Args:
        desk: that all sessions share.
        session_id: of the session.
        deliver: takes outcomes.
        max_calls: at a time.
        user: whose session it is, for the audit log; empty if nobody knows.
    """

    def __init__(
        self,
        desk: ToolDesk,
        session_id: str,
        deliver: Callable[[ToolOutcome], None],
        max_calls: int,
        user: str = "",
    ) -> None:
        self._desk = desk
        self._session_id = session_id
        self._user = user
        self._deliver = deliver
        self._room = asyncio.Semaphore(max_calls)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[asyncio.Task[None]] = set()

    def put(self, command: ToolCommand) -> None:
        """Begin or give up what the protocol wants."""
        match command:
            case ListTools() | CallTool():
                task = asyncio.create_task(self._carry_out(command), name=f"tool {command.item_id}")
                self._tasks[command.item_id] = task
                # Owned: a task that nobody holds may be collected while it runs (asyncio,
                # `create_task`).
                task.add_done_callback(partial(self._forget, command.item_id))
            case DropTool():
                if command.item_id in self._tasks:
                    self._give_up(self._tasks.pop(command.item_id))
            case Decision():
                self._desk.audit.write(self._session_id, command, self._user)

    def _forget(self, item_id: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(item_id, None)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    async def _carry_out(self, command: ListTools | CallTool) -> None:
        # If a session asks for hundreds of calls, eight of them go on at a time. Calls of other
        # sessions do not wait for them.
        async with self._room:
            outcome = await self._outcome(command)
        self._deliver(outcome)

    async def _outcome(self, command: ListTools | CallTool) -> ToolOutcome:
        item_id, label = command.item_id, command.server.label
        try:
            if isinstance(command, ListTools):
                tools = await self._desk.listed(command, self._session_id)
                return ToolsListed(item_id, tools)
            return ToolReturned(item_id, await self._desk.called(command))
        except McpFailure as failure:
            error = failure.error
        except Exception as failure:  # noqa: BLE001 - whatever it is, the call ends
            _log.error("mcp broke", session_id=self._session_id, server=label, exc_info=failure)
            error = McpError("protocol_error", "The server could not be asked.")
        _log.info(
            "mcp failed",
            session_id=self._session_id,
            server=label,
            kind=error.kind,
            code=error.code,
            reason=error.message[:200],
        )
        if isinstance(command, ListTools):
            return ListingFailed(item_id, error)
        return ToolFailed(item_id, error)

    async def close(self) -> None:
        """Give up everything that goes on, because the session has ended."""
        for task in [*self._tasks.values()]:
            self._give_up(task)
        # A call may have reached its server already. Its result is unknown then, and the log says
        # that it was dropped.
        await asyncio.gather(*self._given_up, return_exceptions=True)
