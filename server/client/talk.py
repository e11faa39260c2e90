"""Do what `parley talk` does: play files, show the conversation, keep the replies."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from model.files.sound import read_sound, write_wav
from server.client.client import (
    RATE_HZ,
    Clock,
    Pcm,
    Speaker,
    TalkError,
    Truncation,
    Turn,
    open_conversation,
)
from server.client.local import local_server
from server.config.load import load_settings

Write: TypeAlias = Callable[[str], object]

_LABELS: dict[Speaker, str] = {"user": "  heard: ", "assistant": "  reply: "}


@dataclass(frozen=True, slots=True)
class TalkOptions:
    """What to play, to whom, and how to tell of it.

    Attributes:
        files: wav files, one a turn of one conversation.
        out: folder for the replies; made if need be.
        is_json: one JSON line a file instead of text.
        url: a server that runs already; None to start one with `config` and `overrides`.
        voice: who replies; None for the server's default.
        key: API key, for a server that wants one.
        truncate_ms: cut each reply short when this much of it has been heard; None to hear it out.
        config: settings of the server to start.
        overrides: further settings of it, as "a.b=c".
    """

    files: tuple[Path, ...]
    out: Path
    is_json: bool = False
    url: str | None = None
    voice: str | None = None
    key: str | None = None
    truncate_ms: int | None = None
    config: Path = Path("configs/starter.yaml")
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TalkRow:
    """One file's JSON line; `parley talk --help` says what the fields mean."""

    file: str
    transcript: str
    reply: str
    reply_wav: str
    first_audio_ms: float | None
    speech_end_ms: int
    audio_ms: int
    truncated: Truncation | None

    def summary(self) -> str:
        """Return the line under a conversation on the screen."""
        first = "no audio"
        if self.first_audio_ms is not None:
            first = f"first audio {self.first_audio_ms:.0f} ms after the end of the turn"
        cut = ""
        if self.truncated is not None:
            end_ms = self.truncated.audio_end_ms
            cut = f"  cut short after {end_ms} ms, heard: {self.truncated.heard or 'nothing'}\n"
        return f"{cut}  {first}; {self.audio_ms} ms of audio in {self.reply_wav}\n"


def talk(options: TalkOptions) -> None:
    """Play all files and print what came of them.

    Raises:
        ConfigError: a file cannot be read, or the settings are wrong.
        ServerStartError: the server that was to be started did not come up.
        TalkError: the conversation broke.
    """
    # Whatever is wrong with files or settings is told before a server is started for nothing.
    # 24 kHz mono, whatever the files have.
    questions = [read_sound(path, RATE_HZ) for path in options.files]
    if options.url is not None:
        asyncio.run(hold(options, options.url, questions))
        return
    # Only to check them: the server that is started reads them itself.
    load_settings(options.config, options.overrides)
    if not options.is_json:
        print(f"starting a server with {options.config.name}", flush=True)
    # It ends with the conversation, whatever ends that.
    with local_server(options.config, options.overrides) as url:
        asyncio.run(hold(options, url, questions))


async def hold(
    options: TalkOptions,
    url: str,
    questions: list[Pcm],
    *,
    write: Write | None = None,
    clock: Clock | None = None,
) -> None:
    """Say every question in turn, in one conversation.

    Args:
        options: where the answers go, and how they are told.
        url: of the server.
        questions: float32 [samples] at `RATE_HZ`, one for each of `options.files`.
        write: prints text without a line end of its own; standard output by default.
        clock: tells the time; the real one by default.
    """
    write = write or _print
    screen = Screen((lambda _: None) if options.is_json else write)
    options.out.mkdir(parents=True, exist_ok=True)
    async with open_conversation(
        url, voice=options.voice, key=options.key, show=screen.show, clock=clock
    ) as conversation:
        for number, (path, question) in enumerate(zip(options.files, questions, strict=True), 1):
            screen.begin(str(path))
            try:
                turn = await conversation.say(question)
            except TalkError:
                screen.end_line()
                raise
            screen.end(turn)
            truncation = None
            if options.truncate_ms is not None:
                truncation = await conversation.truncate(turn, options.truncate_ms)
            reply_wav = options.out / f"{number:02d}-{path.stem}.wav"
            write_wav(reply_wav, turn.pcm, RATE_HZ)
            # The number comes first: the same file may be given twice, and each reply is kept.
            row = _row(path, reply_wav, turn, truncation)
            write(json.dumps(asdict(row)) + "\n" if options.is_json else row.summary())


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _row(path: Path, reply_wav: Path, turn: Turn, truncation: Truncation | None) -> TalkRow:
    first_audio_ms = turn.first_audio_ms
    return TalkRow(
        file=str(path),
        transcript=turn.transcript,
        reply=turn.reply,
        reply_wav=str(reply_wav),
        first_audio_ms=None if first_audio_ms is None else round(first_audio_ms, 1),
        speech_end_ms=turn.speech_end_ms,
        audio_ms=turn.audio_ms,
        truncated=truncation,
    )


class Screen:
    """Shows a conversation as it happens, each speaker on a line."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._speaker: Speaker | None = None  # whose line the cursor is on
        self._shown: dict[Speaker, str] = {}

    def begin(self, heading: str) -> None:
        """Begin a turn."""
        self._shown = {"user": "", "assistant": ""}
        self._write(f"{heading}\n")

    def show(self, speaker: Speaker, text: str) -> None:
        """Add words of one speaker."""
        if speaker != self._speaker:
            self.end_line()
            self._write(_LABELS[speaker])
            self._speaker = speaker
        self._shown[speaker] += text
        self._write(text)

    def end(self, turn: Turn) -> None:
        """End a turn; words that turned out differently from those shown live are shown again."""
        finals: tuple[tuple[Speaker, str], ...] = (
            ("user", turn.transcript),
            ("assistant", turn.reply),
        )
        for speaker, text in finals:
            # A live transcript may be corrected at its end. Spaces do not count as a difference.
            if self._shown[speaker].split() != text.split():
                self.end_line()
                self.show(speaker, text)
        self.end_line()

    def end_line(self) -> None:
        """Leave the line that somebody is speaking on."""
        if self._speaker is not None:
            self._write("\n")
        self._speaker = None
