"""Define the items of a conversation: messages, function calls and what calls returned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias

from model.messages import Pixels, num_words_heard
from server.images.picture import Picture
from server.protocol.items.mcp import McpItem

Role: TypeAlias = Literal["user", "assistant", "system"]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Hold text; `input_text` from users and systems, `output_text` from the assistant."""

    type: Literal["input_text", "output_text"]
    text: str


@dataclass(frozen=True, slots=True)
class Word:
    """Say where in the item's audio a word begins, in milliseconds as the engine made it."""

    text: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Hold what is known of audio: its words and its length.

    Attributes:
        transcript: None until it is known.
        audio_ms: length of the audio that exists, as a client plays it; 0 for history replayed as
            a transcript.
        words: the assistant's words with their places, as far as the engine said.
        heard_ms: how much of the assistant's audio was heard, where that is less than was made;
            None if it was heard to its end.
        speed: how much faster the client plays it than the engine made it.
        recording: base64 of PCM16 at 24 kHz; only in what a retrieve answers.
    """

    type: Literal["input_audio", "output_audio"]
    transcript: str | None
    audio_ms: int = 0
    words: tuple[Word, ...] = ()
    heard_ms: int | None = None
    speed: float = 1.0
    recording: str | None = field(default=None, repr=False)

    @property
    def remembered(self) -> str | None:
        """Return the words that the model is to remember: of a reply cut short, those heard."""
        return self.transcript if self.heard_ms is None else self.words_before(self.heard_ms)

    def heard(self, heard_ms: int) -> tuple[Word, ...]:
        """Return the words that had begun when a client stopped playing."""
        starts_ms = [word.start_ms for word in self.words]
        return self.words[: num_words_heard(starts_ms, self.model_ms(heard_ms))]

    def words_before(self, end_ms: int) -> str:
        """Return the words that had begun by a moment of the client's playback.

        Where the engine did not say when words begin, no partial transcript is invented.
        """
        return " ".join(word.text for word in self.heard(end_ms))

    def model_ms(self, heard_ms: int) -> int:
        """Return a moment of the client's playback in the engine's own time."""
        return round(heard_ms * self.speed)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """Hold a picture that a user has sent, or a camera shown.

    Attributes:
        detail: "auto", "low" or "high", as the client asked for it.
        picture: as the model is given it; None once it was forgotten.
        is_shown: whether clients are sent the picture itself; only in what a retrieve answers.
    """

    type: ClassVar[Literal["input_image"]] = "input_image"
    detail: str
    picture: Picture | None
    is_shown: bool = False


Part: TypeAlias = TextPart | AudioPart | ImagePart


@dataclass(frozen=True, slots=True)
class Message:
    """Hold one message of the conversation."""

    id: str
    role: Role
    status: Status
    content: tuple[Part, ...]

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        texts = (p.transcript if isinstance(p, AudioPart) else _text(p) for p in self.content)
        return sum(len(text) for text in texts if text)

    @property
    def words(self) -> str:
        """Return what was said or written, for the model's memory."""
        return " ".join(words for words, _ in self.sections if words)

    @property
    def sections(self) -> list[tuple[str, tuple[Pixels, ...]]]:
        """Return its words and pictures in order: some words, and the pictures after them."""
        sections: list[tuple[list[str], list[Pixels]]] = [([], [])]
        for part in self.content:
            words, images = sections[-1]
            if isinstance(part, ImagePart):
                images += [] if part.picture is None else [part.picture.pixels]
            elif text := part.remembered if isinstance(part, AudioPart) else part.text:
                if images:
                    sections.append(([text], []))
                else:
                    words.append(text)
        return [(" ".join(words), tuple(images)) for words, images in sections]

    @property
    def pictures(self) -> list[Picture]:
        """Return its pictures that are kept."""
        parts = (part.picture for part in self.content if isinstance(part, ImagePart))
        return [picture for picture in parts if picture is not None]

    @property
    def image_bytes(self) -> int:
        """Count the bytes of its pictures that are kept."""
        return sum(picture.num_bytes for picture in self.pictures)

    @property
    def is_known(self) -> bool:
        """Say whether the words of all its audio are known."""
        return all(p.transcript is not None for p in self.content if isinstance(p, AudioPart))

    @property
    def output_audio(self) -> AudioPart | None:
        """Return the assistant's audio part, if this item has one."""
        for part in self.content:
            if isinstance(part, AudioPart) and part.type == "output_audio":
                return part
        return None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """Hold one call of a function.

    Attributes:
        call_id: by which its output names it.
        name: of the function.
        arguments: JSON text; cut short where `status` is "incomplete".
    """

    id: str
    status: Status
    call_id: str
    name: str
    arguments: str

    image_bytes: ClassVar[int] = 0

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        return len(self.name) + len(self.arguments)


@dataclass(frozen=True, slots=True)
class FunctionCallOutput:
    """Hold what a function call returned.

    Attributes:
        call_id: of the call.
        name: of the function; it is not on the wire, and stays known if the call is deleted.
        output: whatever the function returned.
    """

    id: str
    call_id: str
    name: str
    output: str

    image_bytes: ClassVar[int] = 0

    @property
    def num_chars(self) -> int:
        """Count the characters of its texts."""
        return len(self.name) + len(self.output)


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput | McpItem


def truncated(item: Message, heard_ms: int) -> Message:
    """Return the item as it was heard: shorter audio, and only the words that had begun."""

    def cut(part: AudioPart) -> AudioPart:
        return replace(
            part,
            transcript=part.words_before(heard_ms),
            audio_ms=heard_ms,
            words=part.heard(heard_ms),
            heard_ms=None,
        )

    return _with_audio(item, "output_audio", cut)


def with_heard_ms(item: Message, heard_ms: int) -> Message:
    """Return an assistant item of which only the beginning was heard: the rest is unsaid."""
    return _with_audio(item, "output_audio", lambda part: replace(part, heard_ms=heard_ms))


def with_audio_ms(item: Message, lengths_ms: Sequence[int]) -> Message:
    """Return a user item with the length of each of its parts that are audio."""
    lengths = iter(lengths_ms)
    return _with_audio(item, "input_audio", lambda part: replace(part, audio_ms=next(lengths)))


def with_transcript(item: Message, transcript: str) -> Message:
    """Return a user item with the words heard in its audio."""
    return _with_audio(item, "input_audio", lambda part: replace(part, transcript=transcript))


def with_recording(item: Message, sound: Callable[[int, int | None], str | None]) -> Message:
    """Return an item with its audio, for a client that asks for it.

    Args:
        item: a message.
        sound: returns the item's sound between two moments in milliseconds, None for its end; None
            if it is not kept.
    """
    start_ms = 0
    num_left = sum(isinstance(part, AudioPart) for part in item.content)

    def recorded(part: AudioPart) -> AudioPart:
        nonlocal start_ms, num_left
        num_left -= 1
        end_ms = start_ms + part.audio_ms if num_left else part.heard_ms
        recording = sound(start_ms, end_ms)
        start_ms += part.audio_ms
        return part if recording is None else replace(part, recording=recording)

    return _with_audio(_with_audio(item, "input_audio", recorded), "output_audio", recorded)


def with_pictures_shown(item: Message, max_bytes: int) -> Message:
    """Return an item with its pictures, for a client that asks for it.

    Args:
        item: a message.
        max_bytes: of all files; what is beyond them is left out.
    """
    content: list[Part] = []
    for part in item.content:
        if isinstance(part, ImagePart) and part.picture is not None:
            max_bytes -= len(part.picture.jpeg)
            content.append(replace(part, is_shown=max_bytes >= 0))
        else:
            content.append(part)
    return replace(item, content=tuple(content))


def without_pictures(item: Message) -> Message:
    """Return an item whose pictures are forgotten."""
    content = tuple(
        replace(part, picture=None) if isinstance(part, ImagePart) else part
        for part in item.content
    )
    return replace(item, content=content)


def _text(part: TextPart | ImagePart) -> str:
    return part.text if isinstance(part, TextPart) else ""


def _with_audio(item: Message, kind: str, change: Callable[[AudioPart], AudioPart]) -> Message:
    content = tuple(
        change(part) if isinstance(part, AudioPart) and part.type == kind else part
        for part in item.content
    )
    return replace(item, content=content)
