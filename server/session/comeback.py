"""Let clients come back to their sessions after their network was lost.

An extension of ours: a client asks for it (`?resume=true`), and is told a secret. When its
connection breaks, its session goes on without it for a while. A new connection with the session's
id and the secret takes its place, is sent what the client has not got, and goes on.

    client                                    server
    ?resume=true                              session.created, session.resumable (secret)
    ...                                       ...  event_7, event_8, event_9
    (got up to event_7, the network is gone)  the session goes on: event_10, event_11
    ?session_id=…&last_event_id=event_7       session.resumed, event_8 to event_11, and on
"""

import asyncio
import contextlib
import hmac
import secrets
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.session.session import Session

# How much sent text is kept for a client that did not get it. The network itself holds some hundred
# kilobytes that were sent and never arrived; two minutes of a reply are 8 MiB.
MAX_EVENTS = 1_024
MAX_CHARS = 8 << 20

_SECRET_BYTES = 32


class Comeback:
    """Hold what one session's client needs to come back.

    Args:
        grace_s: how long the session waits for it.
        park_after_s: how long it keeps its slot meanwhile, while nothing is being made.
        max_events: that are kept, `MAX_EVENTS` at most.

    Attributes:
        secret: that the client has to show.
        num_taken: events of the client that were handled.
        is_away: whether it has no connection.
        is_parked: whether it has no slot.
    """

    def __init__(self, grace_s: float, park_after_s: float, max_events: int) -> None:
        self.grace_s = grace_s
        self.park_after_s = park_after_s
        self.secret = secrets.token_urlsafe(_SECRET_BYTES)
        self.num_taken = 0
        self.is_away = False
        self.is_parked = False
        self._sent: deque[tuple[str, str]] = deque()  # event_id, text; the newest
        self._max_events = min(max_events, MAX_EVENTS)
        self._num_chars = 0
        self.returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(self, event_id: str, text: str) -> None:
        """Keep an event that is sent, in place of the oldest."""
        self._sent.append((event_id, text))
        self._num_chars += len(text)
        while len(self._sent) > self._max_events or self._num_chars > MAX_CHARS:
            self._num_chars -= len(self._sent.popleft()[1])

    def missed(self, last_event_id: str) -> list[str] | None:
        """Return what was sent after an event, None if not all of it is kept."""
        texts: list[str] = []
        for event_id, text in reversed(self._sent):
            if event_id == last_event_id:
                return texts[::-1]
            texts.append(text)
        return None

    def has_returned(self) -> None:
        """Say that the client is back; it may happen again."""
        self.is_away = False
        waited, self.returned = self.returned, asyncio.get_running_loop().create_future()
        if not waited.done():
            waited.set_result(None)


class Comebacks:
    """Know the sessions that clients may come back to."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[str, Session]] = {}  # id → secret, session

    @contextlib.contextmanager
    def knowing(self, session: "Session") -> Iterator[None]:
        """Know a session while it runs, if its client may come back."""
        comeback, session_id = session.comeback, session.id
        if comeback is None:
            yield
            return
        self._sessions[session_id] = comeback.secret, session
        try:
            yield
        finally:
            del self._sessions[session_id]

    def find(self, session_id: str, secret: str) -> "Session | None":
        """Return a session; None if there is none, or the secret is not its own."""
        known, session = self._sessions.get(session_id, ("", None))
        # Compared as bytes, since a header may hold other characters than ASCII. An unknown session
        # is compared as well, so the time does not tell which sessions exist.
        is_right = hmac.compare_digest(known.encode(), secret.encode())
        return session if is_right and known else None

    @property
    def num_away(self) -> int:
        """Count the sessions whose clients have no connection."""
        return sum(session.is_away for _, session in self._sessions.values())

    @property
    def num_parked(self) -> int:
        """Count the sessions that have given their slot back."""
        return sum(
            session.comeback is not None and session.comeback.is_parked
            for _, session in self._sessions.values()
        )

    def end_those_away(self) -> None:
        """End the sessions whose clients have no connection: the server stops."""
        for _, session in [*self._sessions.values()]:
            session.give_up()
