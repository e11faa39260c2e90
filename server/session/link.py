"""Join the event loop and the engine's thread."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum

from model.messages import (
    Close,
    Command,
    Engine,
    EngineBack,
    EngineGone,
    EngineHeard,
    EngineInfo,
    EngineLost,
    EngineSilent,
    News,
    Open,
    Output,
)
from model.metrics import EngineMetrics
from server.errors import OverloadedError

NOT_READY = "The server is not ready. Try again later."
"""What clients are told while there is no engine."""


def at_capacity_text(max_sessions: int) -> str:
    """Return what clients are told for whom there is no session left."""
    return f"This server is at its capacity of {max_sessions} sessions. Try again later."


class LinkState(StrEnum):
    """Say whether there is an engine; the words are those of `/readyz`."""

    STARTING = "starting"
    READY = "ready"
    SILENT = "silent"  # it says nothing, and may hang
    RESTARTING = "restarting"  # it was lost, and is coming back
    FAILED = "failed"  # it was lost, and is not coming back
    STOPPED = "stopped"


# What the words say of an engine that dies and comes back:
#
#     STARTING -> READY -> SILENT (nothing said for 1.5 s) -> READY
#                 READY -> RESTARTING (lost) -> READY (sessions are told again) ...
#                          RESTARTING -> FAILED (lost too often): the server ends


class EngineLink:
    """Pass commands to the engine and its outputs to the sessions they name.

    A session may open more of them in the engine, under ids that begin with its own and a slash;
    their outputs come to it as well.

    Nothing waits here: commands queue in the engine, which bounds them, and an output is handled
    by its session in the same turn of the loop in which it arrives. News of the engine go to all
    sessions; those that outlive it are back in it before anyone new is let in.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.state = LinkState.STARTING
        self.num_losses = 0
        self.num_restarts = 0
        self._takers: dict[str, Callable[[Output | News], None]] = {}
        self._asides: set[str] = set()  # ids with a slash that are open in the engine
        self._num_arriving = 0  # connections whose sessions have a place and have not joined yet

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._engine.info

    @property
    def metrics(self) -> EngineMetrics:
        """Return what the engine has counted."""
        return self._engine.metrics

    @property
    def is_running(self) -> bool:
        """Say whether sessions can be served."""
        return self.state is LinkState.READY

    @property
    def num_free(self) -> int:
        """Count the places that are left, for sessions and for responses beside them."""
        # For example, of four places two are a session's, one is a response's beside a conversation
        # and one a connection's whose handshake goes on: none is left.
        return self.info.max_sessions - self.num_coming - len(self._asides)

    @property
    def num_sessions(self) -> int:
        """Count the sessions that listen."""
        return len(self._takers)

    @property
    def num_coming(self) -> int:
        """Count the sessions that listen, and those that are about to."""
        return len(self._takers) + self._num_arriving

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a connection until its session joins, which ends this.

        Raises:
            OverloadedError: there is none: all are taken, by sessions or by responses beside them.
        """
        if self.num_free <= 0:
            raise OverloadedError(f"all {self.info.max_sessions} sessions are taken")
        self._num_arriving += 1
        try:
            yield
        finally:
            self._num_arriving -= 1

    async def start(self) -> None:
        """Start the engine; it may take a while to get ready."""
        loop = asyncio.get_running_loop()

        def deliver(output: Output | News) -> None:
            # The loop may be closed while the engine's last outputs arrive.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hand_over, output)

        # A model may take minutes to load; health checks are answered meanwhile.
        await asyncio.to_thread(self._engine.start, deliver)
        self.state = LinkState.READY

    async def stop(self) -> None:
        """Take no more sessions, and wait until the engine's thread or process has ended."""
        self.state = LinkState.STOPPED
        await asyncio.to_thread(self._engine.stop)

    def join(self, session_id: str, take: Callable[[Output | News], None]) -> None:
        """Send a session's outputs, and news of the engine, to `take`, which must not raise."""
        assert session_id not in self._takers, "a session joins once"
        self._takers[session_id] = take

    def leave(self, session_id: str) -> None:
        """Give the session's slots back; what the engine still says of it is dropped."""
        del self._takers[session_id]
        for aside in [each for each in self._asides if _owner(each) == session_id]:
            self.submit(Close(aside))
        self._engine.submit(Close(session_id))

    def submit(self, command: Command) -> None:
        """Hand a command to the engine; see `Engine.submit`."""
        self._engine.submit(command)
        if isinstance(command, Open) and command.session_id not in self._takers:
            self._asides.add(command.session_id)
        if isinstance(command, Close):
            self._asides.discard(command.session_id)

    def _hand_over(self, output: Output | News) -> None:
        if isinstance(output, News):
            self._tell(output)
            return
        take = self._takers.get(_owner(output.session_id))
        if take is not None:
            take(output)

    def _tell(self, news: News) -> None:
        """Pass on what concerns every session."""
        match news:
            case EngineLost():
                self.state = LinkState.RESTARTING
                self.num_losses += 1
            case EngineBack():
                self.state = LinkState.READY
                self.num_restarts += 1
                # What was asked for when nobody knew yet may have been opened in the new engine.
                for aside in [*self._asides]:
                    self.submit(Close(aside))
            case EngineGone():
                self.state = LinkState.FAILED
            case EngineSilent():
                self.state = LinkState.SILENT
            case EngineHeard():
                self.state = LinkState.READY
        if isinstance(news, EngineSilent | EngineHeard):
            return  # a session can do nothing about it
        for take in [*self._takers.values()]:
            take(news)


def _owner(session_id: str) -> str:
    return session_id.partition("/")[0]
