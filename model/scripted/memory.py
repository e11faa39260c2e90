"""Remember one conversation, exactly as far as it was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from model.messages import num_words_heard


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user said or typed; `num_frames` of audio, none if it was typed."""

    text: str
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """What the application wrote as the system."""

    text: str


@dataclass(slots=True, eq=False)
class Said:
    """What the assistant said or wrote; it grows while it is made.

    Attributes:
        item_id: names it for `Memory.truncate`.
        words: written so far; they run ahead of the audio.
        starts_ms: where in the audio each word begins that has been spoken.
        num_frames: of audio.
    """

    item_id: str
    words: list[str] = field(default_factory=list)
    starts_ms: list[int] = field(default_factory=list)
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class Called:
    """A function call that the assistant made."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Returned:
    """What a function call returned."""

    name: str
    output: str


Item: TypeAlias = UserTurn | Note | Said | Called | Returned


class Memory:
    """Hold the items of a conversation, oldest first."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[Item] = []

    @property
    def num_turns(self) -> int:
        """Count the user's turns."""
        return sum(isinstance(item, UserTurn) for item in self.items)

    @property
    def last_user(self) -> str:
        """Return the user's last words."""
        turns = (item.text for item in reversed(self.items) if isinstance(item, UserTurn))
        return next(turns, "")

    @property
    def last_reply(self) -> str:
        """Return the assistant's last words."""
        replies = (" ".join(item.words) for item in reversed(self.items) if isinstance(item, Said))
        return next((reply for reply in replies if reply), "")

    @property
    def returned(self) -> list[Returned]:
        """Return what functions returned since the user's last turn, oldest first."""
        found: list[Returned] = []
        for item in reversed(self.items):
            if isinstance(item, UserTurn):
                break
            if isinstance(item, Returned):
                found.insert(0, item)
        return found

    @property
    def history(self) -> str:
        """Write down everything that is remembered."""
        return "; ".join(_line(item) for item in self.items)

    def count_tokens(self) -> tuple[int, int]:
        """Count what is remembered: words, and frames of audio."""
        text = audio = 0
        for item in self.items:
            match item:
                case Said():
                    text += len(item.words)
                    audio += item.num_frames
                case UserTurn():
                    text += len(item.text.split())
                    audio += item.num_frames
                case _:
                    text += len(_line(item).split())
        return text, audio

    def truncate(self, item_id: str, heard_ms: int, frame_ms: int) -> None:
        """Forget what was not heard of a reply.

        Args:
            item_id: of the reply; one that is not remembered is no error.
            heard_ms: audio of it that was heard. Words that begin later are forgotten, and with
                not even one frame or one word heard the whole reply.
            frame_ms: length of a frame.
        """
        replies = [item for item in self.items if isinstance(item, Said)]
        item = next((item for item in replies if item.item_id == item_id), None)
        if item is None or (heard_ms and not item.num_frames):
            return  # never said, or written and so never to be heard
        num_words = num_words_heard(item.starts_ms, heard_ms)
        num_frames = min(heard_ms // frame_ms, item.num_frames)
        if not num_words or not num_frames:
            self.items.remove(item)
            return
        del item.words[num_words:], item.starts_ms[num_words:]
        item.num_frames = num_frames


def _line(item: Item) -> str:
    match item:
        case UserTurn():
            return f"user: {item.text}"
        case Note():
            return f"system: {item.text}"
        case Said():
            return f"assistant: {' '.join(item.words)}"
        case Called():
            return f"call: {item.name} {item.arguments}"
        case Returned():
            return f"returned: {item.name} {item.output}"
        case _:
            assert_never(item)
