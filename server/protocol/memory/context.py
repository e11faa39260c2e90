"""Keep what the model is asked to remember within a number of tokens: drop the oldest items."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from server.protocol.events import Reaction
from server.protocol.items.items import (
    AudioPart,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)
from server.protocol.items.mcp import (
    McpApprovalRequest,
    McpApprovalResponse,
    McpCall,
    McpListTools,
)
from server.protocol.memory.feed import TurnFeed
from server.protocol.server_events import ItemDeleted
from server.protocol.state import SessionState

_CHARS_OF_TOKEN = 4  # of written language; a guess, until the engine has counted

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

    @property
    def is_refused(self) -> bool:
        """Say whether there are too many, and none may be dropped."""
        return self._state.config.truncation == "disabled" and self._count() > self._limits[0]

    def make_room(self) -> list[Reaction]:
        """Drop the oldest items, if there are too many tokens, the user's open turn included.

        What goes on stays: an item that is being made, a call that has not returned anything yet;
        and so do lists of tools, which the model is not told as items, and what is to be answered.
        """
        most, retained = self._limits
        num_tokens = self._count()
        if num_tokens <= most or self._state.config.truncation == "disabled":
            return []
        reactions: list[Reaction] = []
        for item in self._droppable():
            if num_tokens <= retained:
                break
            num_tokens -= self._tokens_of(item)
            self._tokens.pop(item.id, None)
            self._state.conversation.remove(item.id)
            self._state.recordings.forget(item.id)
            reactions.append(ItemDeleted(item.id))
        if not reactions:
            return []
        self._feed.outdate()
        return [*reactions, *self._feed.told_anew()]

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
            # What the user has said or typed last is to be answered.
            last = max((index for index, item in enumerate(items) if _is_asked(item)), default=0)
            items = items[:last]
        returned = {each.call_id for each in self._items if isinstance(each, FunctionCallOutput)}
        answered = {
            each.approval_request_id
            for each in self._items
            if isinstance(each, McpApprovalResponse)
        }
        return [item for item in items if not _goes_on(item, returned | answered)]


def _is_asked(item: Item) -> bool:
    return isinstance(item, Message) and item.role == "user"


def _goes_on(item: Item, ended: set[str]) -> bool:
    match item:
        case Message():
            return item.status == "in_progress"
        case FunctionCall():
            return item.call_id not in ended
        case McpApprovalRequest():
            return item.id not in ended
        case McpCall():
            return item.is_open
        case _:
            return False


def _shared(num_tokens: int, guesses: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Yield each item's share of tokens, in proportion to what was guessed; none is lost."""
    left, of = num_tokens, sum(guesses.values())
    for item_id, guess in guesses.items():
        share = left * guess // of if of else left
        yield item_id, share
        left, of = left - share, of - guess
