"""Shorten replies to what was heard of them, for clients and for the model."""

from server.protocol.events import Reaction
from server.protocol.items.items import Message, truncated, with_heard_ms
from server.protocol.memory.feed import Feed
from server.protocol.reply.playout import Playout
from server.protocol.reply.running import Running
from server.protocol.server_events import ItemTruncated
from server.protocol.sound import Played
from server.protocol.state import SessionState

# Three ways in which it becomes known what was heard of a reply:
#
#     the client says it       conversation.item.truncate, to the millisecond of its own clock
#     the transport says it    Played, to the sample: calls by WebRTC
#     nobody says it           it was cut, and at most the time since its first audio was heard
#
# The first two shorten the item; the last one only bounds what the model remembers, because a
# client may still say that it heard less.
#
# Source: Realtime API reference, client events, conversation.item.truncate; Realtime guide,
# "Realtime conversations", interruption over WebRTC and over WebSocket.


class Shortening:
    """Let replies have said what was heard of them, and no more.

    Args:
        state: of the session.
        running: responses that may be making an item.
        feed: leads to the engine.
        playout: follows what the transport plays; None if clients play what they are sent.
    """

    def __init__(
        self, state: SessionState, running: Running, feed: Feed, playout: Playout | None
    ) -> None:
        self._state = state
        self._running = running
        self._feed = feed
        self._playout = playout

    def hush(self) -> list[Reaction]:
        """Play no more, and shorten what was being played to what was."""
        waiting = [] if self._playout is None else self._playout.waiting
        return [reaction for item_id in waiting for reaction in self._hushed(item_id)]

    def _hushed(self, item_id: str) -> list[Reaction]:
        assert self._playout is not None
        heard_ms = self._playout.heard_ms(item_id)
        assert heard_ms is not None, "it is being played"
        reactions: list[Reaction] = [*self._playout.cut(item_id)]
        if item_id not in self._state.conversation or self._running.is_making(item_id):
            return reactions
        return [*reactions, ItemTruncated(item_id, 0, heard_ms), *self.shorten(item_id, heard_ms)]

    def played(self, event: Played) -> list[Reaction]:
        """Take note of how far the transport is.

        A response that was cancelled or failed counts as said up to where it had been played. Its
        sound that was made before is still played. What is heard of that counts as said, too.
        """
        assert self._playout is not None, "only what plays reports"
        is_followed = event.item_id in self._playout.waiting
        reactions: list[Reaction] = [*self._playout.played(event)]
        if not is_followed or self._running.is_making(event.item_id):
            return reactions
        if event.item_id not in self._state.conversation:
            return reactions
        item = self._state.conversation[event.item_id]
        part = item.output_audio if isinstance(item, Message) else None
        if not isinstance(item, Message) or part is None or part.heard_ms is None:
            return reactions
        heard_ms = min(event.num_samples * 1000 // self._state.rate_hz, part.audio_ms)
        if heard_ms > part.heard_ms:
            longer = with_heard_ms(item, heard_ms)
            self._state.conversation.replace(longer)
            if longer.words != item.words:
                self._feed.outdate()
        return reactions

    def cut_playout(self, item_id: str) -> list[Reaction]:
        """Play no more of an item that a client takes back."""
        if self._playout is None or item_id not in self._playout.waiting:
            return []
        return [*self._playout.cut(item_id)]

    def shorten(self, item_id: str, heard_ms: int) -> list[Reaction]:
        """Shorten an item with output audio to what was heard, for clients and for the model."""
        item = self._state.conversation[item_id]
        assert isinstance(item, Message), "only messages are truncated"
        part = item.output_audio
        assert part is not None, "only items with output audio are truncated"
        self._state.conversation.replace(truncated(item, heard_ms))
        self._state.recordings.shorten(item_id, heard_ms)
        if part.heard_ms is None or heard_ms <= part.heard_ms:
            return [*self._feed.unsay(item_id, part.model_ms(heard_ms))]
        if part.words_before(heard_ms) != part.remembered:
            # More was heard than was thought when speech cut it short; going on is not going back.
            self._feed.outdate()
        return []
