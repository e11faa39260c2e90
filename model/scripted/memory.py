"""Remember one conversation, exactly as far as it was heard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias, assert_never

from model.messages import num_words_heard
from model.scripted.sight import Seen


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture within a turn; it stands after `at` characters of the turn's words."""

    at: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user said or typed, and showed.

    Attributes:
        text: the words.
        num_frames: of audio; none if it was typed.
        shown: pictures, in order.
        item_id: of the item; what follows under the same one belongs to it.
    """

    text: str
    num_frames: int = 0
    shown: tuple[Shown, ...] = ()
    item_id: str = ""

    @property
    def written(self) -> str:
        """Write words and pictures in order: `what is [red 640x480] this`."""
        # "what is this" with a red picture after "what is" has the picture at character 7, and is
        # written as `what is [red 640x480] this`.
        parts, begin = [], 0
        for each in self.shown:
            parts += [self.text[begin : each.at].strip(), f"[{each.seen}]"]
            begin = each.at
        return " ".join(part for part in (*parts, self.text[begin:].strip()) if part)

    def longer(self, text: str, images: Iterable[Seen]) -> UserTurn:
        """Return the turn with more words, and pictures after them."""
        words = f"{self.text} {text}".strip()
        shown = (*self.shown, *(Shown(len(words), seen) for seen in images))
        return replace(self, text=words, shown=shown)


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


class Tokens(NamedTuple):
    """Count words, frames of audio, and squares of pictures."""

    text: int = 0
    audio: int = 0
    image: int = 0

    def at_most(self, other: Tokens) -> Tokens:
        """Return the smaller of each."""
        return Tokens(*map(min, self, other))


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
        # From the end backwards, up to the user's last turn: what functions returned before that
        # has been answered.
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

    @property
    def images(self) -> list[Seen]:
        """Return the pictures of the user's last turn."""
        turns = (item.shown for item in reversed(self.items) if isinstance(item, UserTurn))
        return [each.seen for each in next(turns, ())]

    @property
    def last_image(self) -> Seen | None:
        """Return the last picture that the user has shown, in whatever turn."""
        turns = (item.shown for item in reversed(self.items) if isinstance(item, UserTurn))
        return next((shown[-1].seen for shown in turns if shown), None)

    def add_user(
        self, item_id: str, text: str, images: Sequence[Seen], num_frames: int = 0
    ) -> None:
        """Add a user's turn, or more of the last one, if the item is the same."""
        last = self.items[-1] if self.items else None
        # One item may come in several parts under one id, words and pictures in turn. They are one
        # turn of the user.
        if isinstance(last, UserTurn) and item_id and last.item_id == item_id:
            self.items[-1] = last.longer(text, images)
        else:
            empty = UserTurn("", num_frames, item_id=item_id)
            self.items.append(empty.longer(text, images))

    def count_tokens(self) -> Tokens:
        """Count what is remembered."""
        text = audio = image = 0
        for item in self.items:
            match item:
                case Said():
                    text += len(item.words)
                    audio += item.num_frames
                case UserTurn():
                    text += len(item.text.split())
                    audio += item.num_frames
                    image += sum(each.seen.num_tokens for each in item.shown)
                case _:
                    text += len(_line(item).split())
        return Tokens(text, audio, image)

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
        # Words begin at 0, 400 and 800 ms, and 900 ms were heard: three words, and 900 // 80 = 11
        # frames.
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
            return f"user: {item.written}"
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
