"""Let a client edit the conversation: add, look up, truncate and delete items."""

from typing import assert_never

from model.engine.messages import Pcm
from server.errors import ClientError
from server.protocol.conversation import Conversation
from server.protocol.events import (
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemDone,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    Reaction,
)
from server.protocol.feed import Feed
from server.protocol.ids import Ids
from server.protocol.item_parse import parse_item
from server.protocol.items import (
    AudioPart,
    truncated,
    with_audio_ms,
)
from server.protocol.listening import Listening
from server.protocol.responses import Responses

# Clients count played time by their own clocks and frames; this much over the end is the end.
_TRUNCATE_SLACK_MS = 200


class Editing:
    """Carry out a client's edits, here and in the engine's memory.

    Args:
        conversation: that is edited.
        responses: may be speaking the item that is edited.
        listening: waits for the words of items that come as audio.
        feed: leads to the engine.
        ids: makes ids.
        engine_rate_hz: of items' audio.
    """

    def __init__(
        self,
        conversation: Conversation,
        responses: Responses,
        listening: Listening,
        feed: Feed,
        ids: Ids,
        engine_rate_hz: int,
    ) -> None:
        self._conversation = conversation
        self._responses = responses
        self._listening = listening
        self._feed = feed
        self._ids = ids
        self._rate_hz = engine_rate_hz

    def receive(
        self,
        event: ItemCreate | ItemRetrieve | ItemTruncate | ItemDelete,
        now_s: float,
        audio: Pcm | None,
    ) -> list[Reaction]:
        """Carry out one edit; arguments as of `SessionMachine.receive`."""
        match event:
            case ItemCreate():
                return self._create(event, audio)
            case ItemRetrieve():
                item = self._conversation.demand(event.item_id, "retrieving", "retrieve")
                return [ItemRetrieved(item)]
            case ItemTruncate():
                return self._truncate(event, now_s)
            case ItemDelete():
                return self._delete(event, now_s)
            case _:
                assert_never(event)

    def _create(self, event: ItemCreate, audio: Pcm | None) -> list[Reaction]:
        item = parse_item(event.item, "item", self._ids, self._conversation.called_name)
        self._conversation.check_room(item.id)
        if audio is not None:
            item = with_audio_ms(item, len(audio) * 1000 // self._rate_hz)
        previous_id = self._conversation.insert(item, event.previous_item_id)
        reactions: list[Reaction] = [ItemAdded(previous_id, item), ItemDone(previous_id, item)]
        if self._conversation.last_id != item.id:
            self._feed.outdate()
            return reactions
        reactions += self._feed.text(item)
        if audio is not None and len(audio):
            self._listening.item_audio(item.id, len(audio))
            reactions += self._feed.item_audio(audio, item.id)
        return reactions

    def _truncate(self, event: ItemTruncate, now_s: float) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "truncating", "truncate")
        spoken = self._responses.part_of(item.id)
        audio = spoken or item.output_audio
        if not isinstance(audio, AudioPart) or event.content_index > 0:
            raise ClientError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                param="item_id",
            )
        if event.audio_end_ms > audio.audio_ms + _TRUNCATE_SLACK_MS:
            raise ClientError(
                f"Audio content of {audio.audio_ms}ms is already shorter than "
                f"{event.audio_end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        reactions = self._responses.cut("client_cancelled", now_s) if spoken else []
        reactions.append(ItemTruncated(item.id, event.content_index, event.audio_end_ms))
        if event.audio_end_ms < audio.audio_ms:
            shorter = truncated(self._conversation[item.id], event.audio_end_ms)
            self._conversation.replace(shorter)
            reactions += self._feed.unsay(item.id, event.audio_end_ms)
        return reactions

    def _delete(self, event: ItemDelete, now_s: float) -> list[Reaction]:
        self._conversation.demand(event.item_id, "deleting", "delete")
        is_spoken = self._responses.part_of(event.item_id) is not None
        reactions = self._responses.cut("client_cancelled", now_s) if is_spoken else []
        self._conversation.remove(event.item_id)
        return [*reactions, ItemDeleted(event.item_id), *self._feed.unsay(event.item_id, 0)]
