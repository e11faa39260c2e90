"""Serve one model from several engines; each session has one of them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from model.messages import (
    Command,
    Engine,
    EngineBack,
    EngineGone,
    EngineInfo,
    EngineLost,
    News,
    Output,
)
from server.errors import OverloadedError
from server.session.link import EngineLink, LinkState

# From the best to the worst: a pool is in the best state that one of its engines is in.
_STATES = (
    LinkState.READY,
    LinkState.SILENT,
    LinkState.RESTARTING,
    LinkState.STARTING,
    LinkState.STOPPED,
    LinkState.FAILED,
)

# A worked example: two engines, A and B, with four places each. A has sessions a1 to a3, B has b1
# and b2.
#
#     a new session     goes to B: two places are free there, and one in A
#     A dies            a1 was at work in it: it waits for A, which is started again
#                       a2 goes to B and is told there anew; its client hears a pause
#                       a3 finds no place in B: it waits for A as well
#     A is back         a1 and a3 are told to it. a2 stays in B
#     a new session     goes to A
#
# With one engine nothing of this happens: everybody waits for it.


class EnginePool:
    """Lead each session to an engine, and to another one if that is lost.

    A session sees one engine only. If its engine is lost and another one has room, the session gets
    `EngineLost` and at once `EngineBack`, and tells its conversation anew. A session that may have
    caused the loss waits for its own engine, so it cannot bring down another one.

    Args:
        engines: of the same model, with the same voices; not started.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.links = tuple(EngineLink(engine) for engine in engines)
        assert self.links, "a model has an engine"
        self._seats: dict[str, EngineLink] = {}  # by session
        self.num_moves = 0

    @property
    def info(self) -> EngineInfo:
        """Describe the engines; each of them has so many places."""
        return self.links[0].info

    @property
    def max_sessions(self) -> int:
        """Count the places of all engines."""
        return sum(link.info.max_sessions for link in self.links)

    @property
    def state(self) -> LinkState:
        """Return the best state that one of the engines is in."""
        return min((link.state for link in self.links), key=_STATES.index)

    @property
    def is_running(self) -> bool:
        """Say whether sessions can be served."""
        return any(link.is_running for link in self.links)

    @property
    def num_sessions(self) -> int:
        """Count the sessions that listen."""
        return sum(link.num_sessions for link in self.links)

    @property
    def num_coming(self) -> int:
        """Count the sessions that listen, and those that are about to."""
        return sum(link.num_coming for link in self.links)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a connection until its session joins, which ends this.

        Raises:
            OverloadedError: there is none.
        """
        link = self._freest()
        if link is None:
            raise OverloadedError(f"all {self.max_sessions} sessions are taken")
        with link.place():
            yield

    async def start(self) -> None:
        """Start all engines at the same time; it may take a while.

        Raises:
            ParleyError: one cannot be started; the others may run, until they are stopped.
        """
        starts = (link.start() for link in self.links)
        for failure in await asyncio.gather(*starts, return_exceptions=True):
            if failure is not None:
                raise failure

    async def stop(self) -> None:
        """Take no more sessions, and wait until all engines have ended."""
        await asyncio.gather(*(link.stop() for link in self.links))

    def join(self, session_id: str, take: Callable[[Output | News], None]) -> None:
        """Seat a session in the engine with the most free places; see `EngineLink.join`."""
        self._sit(session_id, self._freest() or self.links[0], take)

    def leave(self, session_id: str) -> None:
        """Give the session's slots back; what its engine still says of it is dropped."""
        self._seats.pop(session_id).leave(session_id)

    def submit(self, command: Command) -> None:
        """Hand a command to the session's engine; see `Engine.submit`."""
        seat = self._seats.get(command.session_id.partition("/")[0])
        if seat is not None:  # else it has left
            seat.submit(command)

    def _freest(self) -> EngineLink | None:
        """Return the running engine with the most free places; None if there is no place."""
        link = max(self.links, key=lambda link: (link.is_running, link.num_free))
        return link if link.is_running and link.num_free > 0 else None

    def _sit(
        self, session_id: str, link: EngineLink, take: Callable[[Output | News], None]
    ) -> None:
        def taken(output: Output | News) -> None:
            match output:
                case EngineLost():
                    take(output)
                    if output.suspect != session_id:
                        self._move(session_id, take)
                case EngineGone():
                    # A place may have come free elsewhere since.
                    if not self._move(session_id, take):
                        take(output)
                case _:
                    take(output)

        self._seats[session_id] = link
        link.join(session_id, taken)

    def _move(self, session_id: str, take: Callable[[Output | News], None]) -> bool:
        """Seat a session elsewhere, if there is room, and tell it that it has an engine again."""
        link = self._freest()
        if link is None:
            return False
        self.leave(session_id)
        self._sit(session_id, link, take)
        self.num_moves += 1
        take(EngineBack())
        return True
