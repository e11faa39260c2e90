"""Keep listings of servers for a while, for all sessions whose listing would be the same."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from server.protocol.items.mcp import ListedTool

_MAX_LISTINGS = 256


class ListingCache:
    """Hold listings by what they depend on: the server, and with whose token it was asked.

    Args:
        lifetime_s: how long one is used again; 0 for never.
        clock: seconds that do not jump.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._listings: OrderedDict[Hashable, tuple[float, tuple[ListedTool, ...]]] = OrderedDict()

    def get(self, key: Hashable) -> tuple[ListedTool, ...] | None:
        """Return a listing that is not too old, None if there is none."""
        found = self._listings.get(key)
        if found is None:
            return None
        listed_s, tools = found
        if self._clock() - listed_s >= self._lifetime_s:
            del self._listings[key]
            return None
        return tools

    def put(self, key: Hashable, tools: tuple[ListedTool, ...]) -> None:
        """Keep a listing; of too many, the oldest goes."""
        if not self._lifetime_s:
            return
        # The key includes the headers and so the token. So no user is shown the listing of another
        # one.
        self._listings[key] = self._clock(), tools
        self._listings.move_to_end(key)
        if len(self._listings) > _MAX_LISTINGS:
            self._listings.popitem(last=False)
