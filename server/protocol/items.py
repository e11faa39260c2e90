"""Hold the conversation: items in order, by id, as clients see them.

Only messages exist so far; function and MCP items are refused by name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from server.errors import ClientError
from server.protocol.checks import (
    JsonObject,
    array_at,
    choice_at,
    invalid_choice,
    object_at,
    required,
    string_at,
    unsupported,
)

Role: TypeAlias = Literal["user", "assistant", "system"]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]

MAX_ID_LENGTH = 32
_OTHER_ITEM_TYPES = (
    "function_call",
    "function_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
)


@dataclass(frozen=True, slots=True)
class TextPart:
    """Hold text; `input_text` from users and systems, `output_text` from the assistant."""

    type: Literal["input_text", "output_text"]
    text: str


@dataclass(frozen=True, slots=True)
class Word:
    """Say where in the item's audio a word begins."""

    text: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Hold what is known of audio: its words and its length.

    Attributes:
        transcript: None until it is known.
        audio_ms: length of the audio that exists; 0 for history replayed as a transcript.
        words: the assistant's words with their places, as far as the engine said.
    """

    type: Literal["input_audio", "output_audio"]
    transcript: str | None
    audio_ms: int = 0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message of the conversation."""

    id: str
    role: Role
    status: Status
    content: tuple[TextPart | AudioPart, ...]

    @property
    def words(self) -> str:
        """Return what was said or written, for the model's memory."""
        parts = (p.text if isinstance(p, TextPart) else p.transcript for p in self.content)
        return " ".join(text for text in parts if text)

    @property
    def output_audio(self) -> AudioPart | None:
        """Return the assistant's audio part, if this item has one."""
        for part in self.content:
            if isinstance(part, AudioPart) and part.type == "output_audio":
                return part
        return None


def truncated(item: Message, heard_ms: int) -> Message:
    """Return the item as it was heard: shorter audio, and only the words that had begun.

    Where the engine did not say when words begin, no partial transcript is invented.
    """
    audio = item.output_audio
    assert audio is not None, "only items with output audio are truncated"
    words = tuple(word for word in audio.words if word.start_ms < heard_ms)
    heard = AudioPart("output_audio", " ".join(word.text for word in words), heard_ms, words)
    return replace(item, content=tuple(heard if part is audio else part for part in item.content))


def with_audio_ms(item: Message, audio_ms: int) -> Message:
    """Return a user item with the length of its audio."""
    return _with_input_audio(item, lambda part: replace(part, audio_ms=audio_ms))


def with_transcript(item: Message, transcript: str) -> Message:
    """Return a user item with the words heard in its audio."""
    return _with_input_audio(item, lambda part: replace(part, transcript=transcript))


def _with_input_audio(item: Message, change: Callable[[AudioPart], AudioPart]) -> Message:
    content = tuple(
        change(part) if isinstance(part, AudioPart) and part.type == "input_audio" else part
        for part in item.content
    )
    return replace(item, content=content)


class Conversation:
    """Keep the items in order and by id."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._order: list[str] = []
        self._items: dict[str, Message] = {}

    def __iter__(self) -> Iterator[Message]:
        """Yield the items in conversation order."""
        return (self._items[item_id] for item_id in self._order)

    def __contains__(self, item_id: object) -> bool:
        """Say whether there is such an item."""
        return item_id in self._items

    def __getitem__(self, item_id: str) -> Message:
        """Return an item that exists."""
        return self._items[item_id]

    @property
    def last_id(self) -> str | None:
        """Return the id of the last item, None if there is none."""
        return self._order[-1] if self._order else None

    def previous_id(self, item_id: str) -> str | None:
        """Return the id before an item, None for the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def append(self, item: Message) -> str | None:
        """Add an item at the end and return the id of the one before it."""
        previous = self.last_id
        self._order.append(item.id)
        self._items[item.id] = item
        return previous

    def check_room(self, item_id: str) -> None:
        """Refuse an id that is taken, and any item when the conversation is full."""
        if item_id in self._items:
            raise ClientError(
                "Error adding item: an item with this ID already exists.",
                code="item_create_duplicate_item_id",
                param="item.id",
            )
        if len(self._order) >= self._max_items:
            raise ClientError(
                f"Error adding item: the conversation already has {self._max_items} items. "
                "Delete some first.",
                code="conversation_item_limit_reached",
            )

    def insert(self, item: Message, previous_item_id: str | None) -> str | None:
        """Add an item at the end (None), the front ("root") or after another.

        Returns:
            The id of the item before it.
        """
        if previous_item_id is None:
            return self.append(item)
        index = 0
        if previous_item_id != "root":
            if previous_item_id not in self._items:
                raise ClientError(
                    f"Error adding item: the previous item with id '{previous_item_id}' "
                    "does not exist.",
                    code="item_create_invalid_previous_item_id",
                    param="previous_item_id",
                )
            index = self._order.index(previous_item_id) + 1
        self._order.insert(index, item.id)
        self._items[item.id] = item
        return self.previous_id(item.id)

    def replace(self, item: Message) -> None:
        """Put a newer version of an item in its place."""
        assert item.id in self._items, f"no item {item.id} to replace"
        self._items[item.id] = item

    def remove(self, item_id: str) -> None:
        """Take an item out."""
        self._order.remove(item_id)
        del self._items[item_id]

    def demand(self, item_id: str, doing: str, verb: str) -> Message:
        """Return an item, or refuse in the API's words: "Error deleting item: …"."""
        if item_id not in self._items:
            raise ClientError(
                f"Error {doing} item: the item with id '{item_id}' does not exist.",
                code=f"item_{verb}_invalid_item_id",
                param="item_id",
            )
        return self._items[item_id]


def parse_item(raw: JsonObject, fresh_id: str) -> Message:
    """Check an item as a client sent it.

    Args:
        raw: the `item` object.
        fresh_id: the id to use if the client gave none.
    """
    kind = string_at(required(raw, "type", "item"), "item.type")
    if kind in _OTHER_ITEM_TYPES:
        reason = f"Items of type '{kind}' are not available on this server yet."
        raise unsupported("item.type", reason)
    if kind != "message":
        raise invalid_choice(kind, "item.type", ("message", *_OTHER_ITEM_TYPES))
    given_id = raw.get("id")
    item_id = (
        fresh_id if given_id is None else string_at(given_id, "item.id", max_length=MAX_ID_LENGTH)
    )
    role = cast(
        "Role",
        choice_at(required(raw, "role", "item"), "item.role", ("user", "assistant", "system")),
    )
    content = array_at(required(raw, "content", "item"), "item.content")
    parts = tuple(_parse_part(part, role, f"item.content[{i}]") for i, part in enumerate(content))
    return Message(item_id, role, "completed", parts)


# Which content a role may have; the names on the right are what the item then holds. The beta
# names `text` and `audio` are taken too, because old histories are replayed with them.
_PART_TYPES: dict[Role, dict[str, str]] = {
    "user": {"input_text": "input_text", "input_audio": "input_audio"},
    "system": {"input_text": "input_text"},
    "assistant": {
        "output_text": "output_text",
        "output_audio": "output_audio",
        "text": "output_text",
        "audio": "output_audio",
    },
}


def _parse_part(raw: object, role: Role, path: str) -> TextPart | AudioPart:
    part = object_at(raw, path)
    kind = string_at(required(part, "type", path), f"{path}.type")
    if role == "user" and kind == "input_image":
        raise unsupported(f"{path}.type", "Images are not available on this server yet.")
    if kind not in _PART_TYPES[role]:
        raise invalid_choice(kind, f"{path}.type", tuple(_PART_TYPES[role]))
    match _PART_TYPES[role][kind]:
        case "input_text" | "output_text" as text_type:
            text = string_at(required(part, "text", path), f"{path}.text")
            return TextPart(text_type, text)
        case audio_type:
            transcript = part.get("transcript")
            if transcript is not None:
                string_at(transcript, f"{path}.transcript")
            elif "audio" not in part:
                missing_key = "audio" if role == "user" else "transcript"
                required(part, missing_key, path)
            if audio_type == "input_audio":
                return AudioPart("input_audio", transcript)
            return AudioPart("output_audio", transcript or "")
