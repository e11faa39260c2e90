"""Let a client edit the conversation: add, look up, truncate and delete items."""

from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import assert_never

from server.errors import ClientError
from server.protocol.events import InputAudio, Reaction
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.item_parse import parse_item
from server.protocol.items.items import (
    AudioPart,
    Message,
    truncated,
    with_audio_ms,
    with_heard_ms,
    with_recording,
    with_transcript,
)
from server.protocol.items.recordings import Recordings
from server.protocol.memory.feed import Feed
from server.protocol.reply.playout import Playout
from server.protocol.reply.responses import Responses
from server.protocol.server_events import (
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
)
from server.protocol.sound import Played
from server.protocol.user.listening import Listening
from server.protocol.wire.client_events import ItemCreate, ItemDelete, ItemRetrieve, ItemTruncate

# Clients count played time by their own clocks and frames; this much over the end is the end.
_TRUNCATE_SLACK_MS = 200


class Editing:
    """Carry out a client's edits, here and in the engine's memory.

    Args:
        conversation: that is edited.
        recordings: keep the items' sound.
        responses: may be making the item that is edited.
        listening: waits for the words of items that come as audio.
        feed: leads to the engine.
        playout: follows what the transport plays; None if clients play what they are sent.
        ids: makes ids.
        engine_rate_hz: of items' audio.
    """

    def __init__(
        self,
        conversation: Conversation,
        recordings: Recordings,
        responses: Responses,
        listening: Listening,
        feed: Feed,
        playout: Playout | None,
        ids: Ids,
        engine_rate_hz: int,
    ) -> None:
        self._conversation = conversation
        self._recordings = recordings
        self._responses = responses
        self._listening = listening
        self._feed = feed
        self._playout = playout
        self._ids = ids
        self._rate_hz = engine_rate_hz

    def hush(self) -> list[Reaction]:
        """Play no more, and shorten what was being played to what was."""
        waiting = [] if self._playout is None else self._playout.waiting
        return [reaction for item_id in waiting for reaction in self._hushed(item_id)]

    def _hushed(self, item_id: str) -> list[Reaction]:
        assert self._playout is not None
        heard_ms = self._playout.heard_ms(item_id)
        assert heard_ms is not None, "it is being played"
        reactions: list[Reaction] = [*self._playout.cut(item_id)]
        if item_id not in self._conversation or self._responses.is_making(item_id):
            return reactions
        return [*reactions, ItemTruncated(item_id, 0, heard_ms), *self._unheard(item_id, heard_ms)]

    def played(self, event: Played) -> list[Reaction]:
        """Take note of how far the transport is.

        A response that is cancelled or fails has said what was played by then, and what had been
        made of it before is played on: what of that is heard was said after all.
        """
        assert self._playout is not None, "only what plays reports"
        is_followed = event.item_id in self._playout.waiting
        reactions: list[Reaction] = [*self._playout.played(event)]
        if not is_followed or self._responses.is_making(event.item_id):
            return reactions
        if event.item_id not in self._conversation:
            return reactions
        item = self._conversation[event.item_id]
        part = item.output_audio if isinstance(item, Message) else None
        if not isinstance(item, Message) or part is None or part.heard_ms is None:
            return reactions
        heard_ms = min(event.num_samples * 1000 // self._rate_hz, part.audio_ms)
        if heard_ms > part.heard_ms:
            longer = with_heard_ms(item, heard_ms)
            self._conversation.replace(longer)
            if longer.words != item.words:
                self._feed.outdate()
        return reactions

    def _cut_playout(self, item_id: str) -> list[Reaction]:
        """Play no more of an item that a client takes back."""
        if self._playout is None or item_id not in self._playout.waiting:
            return []
        return [*self._playout.cut(item_id)]

    def receive(
        self,
        event: ItemCreate | ItemRetrieve | ItemTruncate | ItemDelete,
        now_s: float,
        audio: InputAudio | None,
    ) -> list[Reaction]:
        """Carry out one edit; arguments as of `SessionMachine.receive`."""
        match event:
            case ItemCreate():
                return self._create(event, audio)
            case ItemRetrieve():
                return self._retrieve(event)
            case ItemTruncate():
                return self._truncate(event, now_s)
            case ItemDelete():
                return self._delete(event, now_s)
            case _:
                assert_never(event)

    def _create(self, event: ItemCreate, audio: InputAudio | None) -> list[Reaction]:
        item = parse_item(event.item, "item", self._ids, self._conversation.called_name)
        self._conversation.check_id(item.id, taken=self._listening.announced_id)
        self._feed.check(item, audio)
        is_heard = False
        if audio is not None and len(audio.pcm) and isinstance(item, Message):
            item = with_audio_ms(item, self._lengths_ms(audio))
            if not audio.has_speech and not item.is_known:
                item = with_transcript(item, "")
            self._feed.record(item.id, audio.pcm)
            is_heard = self._feed.is_heard(item)
        previous_id = self._conversation.insert(item, event.previous_item_id)
        reactions: list[Reaction] = [ItemAdded(previous_id, item), ItemDone(previous_id, item)]
        if is_heard and audio is not None:
            self._listening.item_audio(item.id, len(audio.pcm))
        if self._conversation.last_id != item.id:
            self._feed.outdate()
            return reactions
        if is_heard and audio is not None:
            return [*reactions, *self._feed.item_audio(audio.pcm, item.id)]
        return [*reactions, *self._feed.add(item)]

    def _retrieve(self, event: ItemRetrieve) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "retrieving", "retrieve")
        part = self._responses.part_of(item.id)
        if part is not None and isinstance(item, Message):
            # What is being made is shown as far as it was sent.
            item = replace(item, content=(part,))
        if isinstance(item, Message):
            item = with_recording(item, partial(self._recordings.base64, item.id))
        return [ItemRetrieved(item)]

    def _lengths_ms(self, audio: InputAudio) -> list[int]:
        """Return the length of each part, so that no rounding adds up."""
        ends_ms = [
            num * 1000 // self._rate_hz
            for num in accumulate(audio.part_samples or (len(audio.pcm),))
        ]
        return [end - start for start, end in pairwise((0, *ends_ms))]

    def _truncate(self, event: ItemTruncate, now_s: float) -> list[Reaction]:
        item = self._conversation.demand(event.item_id, "truncating", "truncate")
        # What is being made has more audio by now than its item shows.
        part = self._responses.part_of(item.id)
        if part is None and isinstance(item, Message):
            part = item.output_audio
        if not isinstance(part, AudioPart) or event.content_index > 0:
            raise ClientError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                param="item_id",
            )
        if event.audio_end_ms > part.audio_ms + _TRUNCATE_SLACK_MS:
            raise ClientError(
                f"Audio content of {part.audio_ms}ms is already shorter than "
                f"{event.audio_end_ms}ms",
                code="invalid_value",
                param="audio_end_ms",
            )
        is_making = self._responses.is_making(item.id)
        reactions = self._responses.cut("client_cancelled", now_s) if is_making else []
        reactions += self._cut_playout(item.id)
        self._responses.unheard(item.id)
        reactions.append(ItemTruncated(item.id, event.content_index, event.audio_end_ms))
        # What was cut short has words beyond its audio.
        item = self._conversation[item.id]
        is_incomplete = isinstance(item, Message) and item.status == "incomplete"
        if event.audio_end_ms < part.audio_ms or is_incomplete:
            reactions += self._unheard(item.id, min(event.audio_end_ms, part.audio_ms))
        return reactions

    def _unheard(self, item_id: str, heard_ms: int) -> list[Reaction]:
        """Shorten an item to what was heard, for clients and for the model."""
        item = self._conversation[item_id]
        assert isinstance(item, Message), "only messages are truncated"
        part = item.output_audio
        assert part is not None, "only items with output audio are truncated"
        self._conversation.replace(truncated(item, heard_ms))
        self._recordings.shorten(item_id, heard_ms)
        if part.heard_ms is None or heard_ms <= part.heard_ms:
            return [*self._feed.unsay(item_id, part.model_ms(heard_ms))]
        if part.words_before(heard_ms) != part.remembered:
            # More was heard than was thought when speech cut it short; going on is not going back.
            self._feed.outdate()
        return []

    def _delete(self, event: ItemDelete, now_s: float) -> list[Reaction]:
        self._conversation.demand(event.item_id, "deleting", "delete")
        is_making = self._responses.is_making(event.item_id)
        reactions = self._responses.cut("client_cancelled", now_s) if is_making else []
        reactions += self._cut_playout(event.item_id)
        self._responses.unheard(event.item_id)
        self._conversation.remove(event.item_id)
        self._recordings.forget(event.item_id)
        return [*reactions, ItemDeleted(event.item_id), *self._feed.unsay(event.item_id, 0)]
