"""Keep what the model is asked to remember within a number of tokens: drop the oldest items."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from server.protocol.events import Reaction
from server.protocol.items.items import AudioPart, Item, Message
from server.protocol.items.mcp import McpListTools
from server.protocol.memory.dropping import dropped
from server.protocol.memory.feed import TurnFeed
from server.protocol.state import SessionState

_CHARS_OF_TOKEN = 4  # of written language; a guess, until the engine has counted
_NUM_COMING = 2  # items of a turn: what the user says, and the reply

# Engines tell how many tokens a response is based on, and not how they are shared among items. A
# worked example; a (user, 4 s), b (assistant, 2 s and 20 characters), c (user, 1 s):
#
#     response 1 is based on 58        a is 58: all there is
#     response 2 is based on 105       a is 58; 47 are new, and shared by what we guess: b has 25
#                                      frames and 5 pieces, c has 12 frames, so 33 and 14
#     limit 100, half is retained      a is dropped: 47 are left
#
# Where the engine counts fewer than before, since a reply was cut or it was told anew in words, the
# new number is shared among all items in the same way.
#
# Source: Realtime API reference, session, truncation; Realtime guide, "Managing costs",
# "Truncation".


class Context:
    """Count the tokens of a conversation's items, and drop the oldest when there are too many.

    Args:
        state: of the session.
        feed: leads to the engine's memory.
    """

    def __init__(self, state: SessionState, feed: TurnFeed) -> None:
        self._state = state
        self._feed = feed
        self._tokens: dict[str, int] = {}  # by item, as far as the engine has counted them

    def measured(self, num_tokens: int) -> None:
        """Take what the engine has counted of the conversation as it is now."""
        known = {item.id: self._tokens.get(item.id) for item in self._items}
        left = num_tokens - sum(tokens or 0 for tokens in known.values())
        new = [item for item in self._items if known[item.id] is None]
        if left < 0 or not new:
            left, new = num_tokens, [*self._items]
        self._tokens = {item_id: tokens for item_id, tokens in known.items() if tokens is not None}
        self._tokens |= _shared(left, {item.id: self._guess(item) for item in new})

    def is_refused(self, given: Sequence[Item] | None = None) -> bool:
        """Say whether there are too many, and none may be dropped.

        Args:
            given: what a response is based on in the place of the conversation.
        """
        if not self._is_disabled:
            return False
        if given is not None:
            return sum(map(self._tokens_of, given)) > self._limits[0]
        # A reply to a conversation that is full would cost it its oldest item.
        return self._count() > self._limits[0] or self._state.conversation.is_full

    def make_room(self) -> list[Reaction]:
        """Drop the oldest items, if there are too many of them, or too many tokens.

        The user's open turn is counted. What goes on stays: an item that is being made, a call that
        has not returned anything yet; and so do lists of tools, which the model is not told as
        items, and what is to be answered.
        """
        if self._is_disabled:
            return []
        reactions = [*self._fewer_items(), *self._fewer_tokens()]
        return [*reactions, *self._feed.told_anew()] if reactions else []

    def fitting(self, given: tuple[Item, ...]) -> tuple[Item, ...]:
        """Return what a response may be based on, of what it was given: without the oldest."""
        most, retained = self._limits
        num_tokens = sum(map(self._tokens_of, given))
        if num_tokens <= most or self._is_disabled:
            return given
        num_dropped = 0
        for item in given[: _asked_at(given)]:
            if num_tokens <= retained:
                break
            num_tokens -= self._tokens_of(item)
            num_dropped += 1
        return given[num_dropped:]

    def _fewer_items(self) -> list[Reaction]:
        conversation = self._state.conversation
        reactions: list[Reaction] = []
        while (item := conversation.surplus(_NUM_COMING)) is not None:
            is_list = isinstance(item, McpListTools)
            if not is_list and item not in self._droppable():
                break
            if conversation.is_told(item.id) and not is_list:
                self._feed.outdate()
            reactions.append(self._dropped(item))
        return reactions

    def _fewer_tokens(self) -> list[Reaction]:
        most, retained = self._limits
        num_tokens = self._count()
        if num_tokens <= most:
            return []
        reactions: list[Reaction] = []
        for item in self._droppable():
            if num_tokens <= retained:
                break
            num_tokens -= self._tokens_of(item)
            self._feed.outdate()
            reactions.append(self._dropped(item))
        return reactions

    def _dropped(self, item: Item) -> Reaction:
        self._tokens.pop(item.id, None)
        return dropped(self._state, item.id)

    @property
    def _is_disabled(self) -> bool:
        return self._state.config.truncation == "disabled"

    @property
    def _limits(self) -> tuple[int, int]:
        """Return the most tokens that there may be, and how many are retained of too many."""
        truncation, most = self._state.config.truncation, self._state.max_context_tokens
        if not isinstance(truncation, Mapping):
            return most, most
        limits = truncation.get("token_limits") or {}
        most = min(most, limits.get("post_instructions", most))
        return most, int(most * Fraction(truncation["retention_ratio"]))

    @property
    def _items(self) -> list[Item]:
        return [item for item in self._state.conversation if not isinstance(item, McpListTools)]

    def _count(self) -> int:
        open_ms = self._feed.num_open_samples * 1000 // self._state.rate_hz
        return self._frames(open_ms) + sum(map(self._tokens_of, self._items))

    def _tokens_of(self, item: Item) -> int:
        known = self._tokens.get(item.id)
        return self._guess(item) if known is None else known

    def _guess(self, item: Item) -> int:
        parts = item.content if isinstance(item, Message) else ()
        audio_ms = sum(part.audio_ms for part in parts if isinstance(part, AudioPart))
        return self._frames(audio_ms) + -(-item.num_chars // _CHARS_OF_TOKEN)

    def _frames(self, audio_ms: int) -> int:
        return audio_ms // self._state.info.frame_ms

    def _droppable(self) -> list[Item]:
        """Return what may be dropped, the oldest first."""
        items = self._items
        if not self._feed.num_open_samples:
            items = items[: _asked_at(items)]
        going_on = self._state.conversation.going_on
        return [item for item in items if item.id not in going_on]


def _asked_at(items: Sequence[Item]) -> int:
    """Return where the user's last words stand, which are to be answered; 0 without any."""
    return max(
        (
            index
            for index, item in enumerate(items)
            if isinstance(item, Message) and item.role == "user"
        ),
        default=0,
    )


def _shared(num_tokens: int, guesses: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Yield each item's share of tokens, in proportion to what was guessed; none is lost."""
    left, of = num_tokens, sum(guesses.values())
    for item_id, guess in guesses.items():
        share = left * guess // of if of else left
        yield item_id, share
        left, of = left - share, of - guess
