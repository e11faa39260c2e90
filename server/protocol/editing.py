"""Let a client edit the conversation: add, look up, truncate and delete items."""

from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import assert_never

from server.errors import ClientError
from server.protocol.calls.calls import Calls
from server.protocol.calls.listing import Listing
from server.protocol.events import InputAudio, Reaction
from server.protocol.items.item_parse import Pictures, parse_item
from server.protocol.items.items import (
    AudioPart,
    Message,
    with_audio_ms,
    with_pictures_shown,
    with_recording,
    with_transcript,
)
from server.protocol.memory.dropping import dropped
from server.protocol.memory.feed import Feed
from server.protocol.reply.responses import Responses
from server.protocol.reply.shortening import Shortening
from server.protocol.server_events import (
    ItemAdded,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
)
from server.protocol.state import SessionState
from server.protocol.user.listening import Listening
from server.protocol.wire.client_events import ItemCreate, ItemDelete, ItemRetrieve, ItemTruncate

# Source: Realtime API reference, client events, conversation.item.create, .retrieve, .truncate,
# .delete; the texts of the refusals are the hosted service's.
#
# Clients count played time by their own clocks and frames; this much over the end is the end.
_TRUNCATE_SLACK_MS = 200
# Clients of many libraries take frames up to 1 MiB; base64 makes 4 characters of 3 bytes.
_MAX_SHOWN_BYTES = (1 << 20) * 3 // 4 - 16_384


class Editing:
    """Carry out a client's edits, here and in the engine's memory.

    Args:
        state: of the session, whose conversation is edited.
        responses: may be making the item that is edited.
        listening: waits for the words of items that come as audio.
        feed: leads to the engine.
        shortening: shortens what was not heard to its end.
        calls: end by what clients add and delete.
        listing: ends by what clients delete.
    """

    def __init__(
        self,
        state: SessionState,
        responses: Responses,
        listening: Listening,
        feed: Feed,
        shortening: Shortening,
        calls: Calls,
        listing: Listing,
    ) -> None:
        self._state = state
        self._conversation = state.conversation
        self._recordings = state.recordings
        self._responses = responses
        self._listening = listening
        self._feed = feed
        self._shortening = shortening
        self._calls = calls
        self._listing = listing

    def receive(
        self,
        event: ItemCreate | ItemRetrieve | ItemTruncate | ItemDelete,
        now_s: float,
        audio: InputAudio | None,
        pictures: Pictures,
    ) -> list[Reaction]:
        """Carry out one edit; arguments as of `SessionMachine.receive`."""
        match event:
            case ItemCreate():
                return self._create(event, audio, pictures)
            case ItemRetrieve():
                return self._retrieve(event)
            case ItemTruncate():
                return self._truncate(event, now_s)
            case ItemDelete():
                return self._delete(event, now_s)
            case _:
                assert_never(event)

    def _create(
        self, event: ItemCreate, audio: InputAudio | None, pictures: Pictures
    ) -> list[Reaction]:
        if event.item.get("type") == "mcp_approval_response":
            return self._calls.answer(event, self._listening.announced_id)
        called_name = self._conversation.called_name
        item = parse_item(event.item, "item", self._state.ids, called_name, pictures)
        self._conversation.check_id(item.id, taken=self._listening.announced_id)
        self._calls.check_output(item)
        self._conversation.check_pictures(item)
        self._feed.check(item, audio)
        is_heard = False
        if audio is not None and len(audio.pcm) and isinstance(item, Message):
            item = with_audio_ms(item, self._lengths_ms(audio))
            if not audio.has_speech and not item.is_known:
                item = with_transcript(item, "")
            self._recordings.begin(item.id)
            self._recordings.add(item.id, audio.pcm)
            is_heard = self._feed.is_heard(item)
        previous_id = self._conversation.insert(item, event.previous_item_id)
        reactions: list[Reaction] = [
            ItemAdded(previous_id, item),
            ItemDone(previous_id, item),
            *self._calls.output_added(item),
        ]
        if is_heard and audio is not None:
            self._listening.item_audio(item.id, len(audio.pcm))
        # An engine takes new items at its end only. For one in the middle its memory is outdated,
        # and it is told the conversation anew before the next thing that depends on it.
        if self._conversation.last_id != item.id:
            self._feed.outdate()
            return reactions
        if is_heard and audio is not None and isinstance(item, Message):
            return [*reactions, *self._feed.item_audio(audio.pcm, item)]
        return [*reactions, *self._feed.add(item)]

    def _retrieve(self, event: ItemRetrieve) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "retrieving", "retrieve")
        part = self._responses.running.part_of(item.id)
        if part is not None and isinstance(item, Message):
            # What is being made is shown as far as it was sent.
            item = replace(item, content=(part,))
        if isinstance(item, Message):
            item = with_recording(item, partial(self._recordings.base64, item.id))
            item = with_pictures_shown(item, _MAX_SHOWN_BYTES)
        return [ItemRetrieved(item)]

    def _lengths_ms(self, audio: InputAudio) -> list[int]:
        """Return the length of each part, so that no rounding adds up."""
        ends_ms = [
            num * 1000 // self._state.rate_hz
            for num in accumulate(audio.part_samples or (len(audio.pcm),))
        ]
        return [end - start for start, end in pairwise((0, *ends_ms))]

    def _truncate(self, event: ItemTruncate, now_s: float) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "truncating", "truncate")
        # What is being made has more audio by now than its item shows.
        part = self._responses.running.part_of(item.id)
        if part is None and isinstance(item, Message):
            part = item.output_audio
        if not isinstance(part, AudioPart) or event.content_index > 0:
            raise ClientError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                param="item_id",
            )
        # A worked example: the item has 2,000 ms. 1,200 is a cut; 2,150 is its end, by a client
        # whose clock runs a little fast; 2,300 is a mistake, and refused with the item's length.
        if event.audio_end_ms > part.audio_ms + _TRUNCATE_SLACK_MS:
            raise ClientError(
                f"Audio content of {part.audio_ms}ms is already shorter than "
                f"{event.audio_end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        is_making = self._responses.running.is_making(item.id)
        reactions = self._responses.cut("client_cancelled", now_s) if is_making else []
        reactions += self._shortening.cut_playout(item.id)
        self._responses.running.unheard(item.id)
        reactions.append(ItemTruncated(item.id, event.content_index, event.audio_end_ms))
        # What was cut short has words beyond its audio.
        item = self._conversation[item.id]
        is_incomplete = isinstance(item, Message) and item.status == "incomplete"
        if event.audio_end_ms < part.audio_ms or is_incomplete:
            reactions += self._shortening.shorten(item.id, min(event.audio_end_ms, part.audio_ms))
        return reactions

    def _delete(self, event: ItemDelete, now_s: float) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "deleting", "delete")
        is_making = self._responses.running.is_making(event.item_id)
        reactions = self._responses.cut("client_cancelled", now_s) if is_making else []
        reactions += self._shortening.cut_playout(event.item_id)
        self._responses.running.unheard(event.item_id)
        reactions += [*self._calls.deleted(item), *self._listing.deleted(item.id)]
        reactions.append(dropped(self._state, event.item_id))
        return [*reactions, *self._feed.unsay(event.item_id, 0)]
