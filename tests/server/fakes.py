"""Small real things for tests: ids that count, an engine that echoes, a transport of two queues."""

import asyncio
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.errors import OverloadedError
from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    Cancel,
    CheckTurn,
    ClearAudio,
    Close,
    Command,
    CommitAudio,
    EndOfTurn,
    EngineInfo,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Pcm,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    ResponseWord,
    SessionFailed,
    Taken,
    Truncate,
    TurnChecked,
    Usage,
)
from model.metrics import EngineMetrics
from server.errors import DisconnectedError
from server.protocol.events import EndReason, Hangup, Heard, InputAudio
from server.protocol.settings.config import SessionConfig
from server.transport.close_codes import CLOSE_CODES
from server.webrtc.opus import OpusEncoder

INFO = EngineInfo("echo", 16_000, 80, ("amber", "birch"), max_sessions=2)
FRAME = np.full(INFO.frame_samples, 0.25, dtype=np.float32)
FRAMES_PER_WORD = 3


class CountingIds:
    """Count: item_1, item_2, resp_1 and so on."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def new(self, prefix: str) -> str:
        """Return the next id of a prefix."""
        self._counts[prefix] += 1
        return f"{prefix}_{self._counts[prefix]}"


@dataclass
class _Room:
    """What the engine remembers of one session."""

    heard: list[str] = field(default_factory=list)
    num_samples: int = 0
    instructions: str = ""
    speaking: int | None = None  # turn of a reply that never ends by itself
    before: tuple[int, list[str]] = (0, [])  # samples and words before a tentative commit


class EchoEngine:
    """Answer "you said …", with all that the session ever said, on a thread of its own.

    A spoken turn is "understood" as the length of its audio in words: "one", "two", … a second
    each, rounded up. When the user said `endless`, the reply's audio goes on until it is cancelled.
    An instruction "fail" loses the session at the first reply.
    """

    NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(self) -> None:
        self.metrics = EngineMetrics()
        self.commands: list[Command] = []
        self.max_open = 0
        self._rooms: dict[str, _Room] = {}
        self._open: set[str] = set()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return INFO

    @property
    def num_open(self) -> int:
        """Count the slots that are taken."""
        return len(self._open)

    def start(self, deliver: Callable[[Output], None]) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(deliver,), name="echo engine")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        assert self._thread is not None
        self._queue.put(None)
        self._thread.join()

    def submit(self, command: Command) -> None:
        """Take a command; refuses a session too many."""
        with self._lock:
            if isinstance(command, Open):
                if len(self._open) >= INFO.max_sessions:
                    raise OverloadedError("all slots are taken")
                self._open.add(command.session_id)
                self.max_open = max(self.max_open, len(self._open))
            if isinstance(command, Close):
                self._open.discard(command.session_id)
        self._queue.put(command)

    def _run(self, deliver: Callable[[Output], None]) -> None:
        while (command := self._queue.get()) is not None:
            self.commands.append(command)
            for output in self.answer(command):
                deliver(output)
            deliver(Taken(command.session_id, 1))

    def answer(self, command: Command) -> list[Output]:  # noqa: C901, PLR0911, PLR0912 - a case each
        """Carry out a command, and return what follows from it."""
        session = command.session_id
        if isinstance(command, Open):
            self._rooms[session] = _Room(instructions=command.instructions)
            return []
        if session not in self._rooms:
            return []
        room = self._rooms[session]
        match command:
            case AppendAudio():
                return self._hear(room, command)
            case ClearAudio():
                room.num_samples = 0
                return []
            case CommitAudio():
                words = self._words(room.num_samples)
                room.before = room.num_samples, [*room.heard]
                room.num_samples = 0
                room.heard.append(words)
                return [InputTranscript(session, command.item_id, words)]
            case CheckTurn():
                return [TurnChecked(session, command.key, is_finished=room.num_samples > 0)]
            case Reopen():
                room.num_samples, room.heard = room.before
                room.speaking = None
                return []
            case AppendText():
                if command.role == "user":
                    room.heard.append(command.text)
                return []
            case AppendCall():
                return []
            case AppendCallOutput():
                room.heard.append(f"{command.name} {command.output}")
                return []
            case Respond():
                return self._reply(room, command)
            case Cancel():
                if room.speaking != command.turn:
                    return []
                room.speaking = None
                stale = ResponseAudio(session, command.turn, FRAME)
                return [stale, ResponseDone(session, command.turn, "cancelled", Usage())]
            case Truncate():
                return []
            case Close():
                del self._rooms[session]
                return []
            case _:
                raise AssertionError(command)

    def _words(self, num_samples: int) -> str:
        seconds = -(-num_samples // INFO.sample_rate_hz)
        return " ".join(self.NUMBERS[1 : seconds + 1])

    def _hear(self, room: _Room, command: AppendAudio) -> list[Output]:
        before = self._words(room.num_samples)
        room.num_samples += len(command.pcm)
        news = self._words(room.num_samples).removeprefix(before)
        outputs: list[Output] = []
        if news:
            outputs.append(InputTranscriptDelta(command.session_id, news))
        audio_ms = room.num_samples * 1000 // INFO.sample_rate_hz
        return [*outputs, EndOfTurn(command.session_id, audio_ms)]

    def _reply(self, room: _Room, command: Respond) -> list[Output]:
        session, turn = command.session_id, command.turn
        if room.instructions == "fail":
            del self._rooms[session]
            with self._lock:
                self._open.discard(session)
            return [SessionFailed(session, "the engine was told to fail")]
        text = f"you said {', '.join(room.heard)}"
        outputs: list[Output] = [
            ResponseText(session, turn, word if index == 0 else f" {word}")
            for index, word in enumerate(text.split())
        ]
        if command.audio:
            for index, word in enumerate(text.split()):
                start_ms = index * FRAMES_PER_WORD * INFO.frame_ms
                outputs.append(ResponseWord(session, turn, word, start_ms))
                outputs += [ResponseAudio(session, turn, FRAME)] * FRAMES_PER_WORD
        if "endless" in text:
            room.speaking = turn
            return outputs
        usage = Usage(
            input_text_tokens=len(text),
            input_audio_tokens=2,
            input_cached_text_tokens=1,
            output_text_tokens=len(text.split()),
            output_audio_tokens=len(text.split()) * FRAMES_PER_WORD if command.audio else 0,
        )
        return [*outputs, ResponseDone(session, turn, "completed", usage)]


class EchoCore:
    """Answer as `EchoEngine` does, on whatever thread it is asked."""

    def __init__(self, *, max_queued_commands: int = 4096) -> None:
        self.metrics = EngineMetrics()
        self.info = INFO
        self.max_queued_commands = max_queued_commands
        self._echo = EchoEngine()

    def warm_up(self) -> None:
        """Do nothing."""

    def apply(self, command: Command) -> list[Output]:
        """Answer."""
        self.metrics.steps += 1
        return self._echo.answer(command)

    def tick(self) -> list[Output]:
        """Do nothing: it has answered at once."""
        return []

    def next_due_s(self) -> None:
        """Never be due."""

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Do nothing: it never has anything to wake for."""

    def close(self) -> None:
        """Do nothing."""

    def fail_all(self, message: str) -> list[Output]:
        """Not fail."""
        del message
        return []


@dataclass(frozen=True)
class EchoSpec:
    """Build an echo wherever it is wanted.

    Attributes:
        poison: where this file exists, nothing is built: the process dies.
    """

    poison: Path | None = None
    max_queued_commands: int = 4096

    def build(self) -> EchoCore:
        """Return the core."""
        if self.poison is not None and self.poison.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return EchoCore(max_queued_commands=self.max_queued_commands)


class PlainEars:
    """Hear PCM16 at the engine's rate as it is, all of it as speech, and the last of it late.

    Args:
        num_held: samples that are held back until there are more, as resamplers do.
    """

    def __init__(self, num_held: int = 0) -> None:
        self.is_in_doubt = False
        self.done: list[str] = []
        self._num_held = num_held
        self._pcm: Pcm = np.zeros(0, np.float32)
        self._held: Pcm = self._pcm

    @property
    def has_more(self) -> bool:
        """Say whether there is any."""
        return len(self._pcm) > 0

    def configure(self, config: SessionConfig) -> None:
        """Note it."""
        del config
        self.done.append("configure")

    def hear(self, data: bytes) -> None:
        """Hear."""
        new = np.frombuffer(data, np.int16).astype(np.float32) / np.float32(32768)
        pcm: Pcm = np.concatenate((self._held, new))
        split = max(0, len(pcm) - self._num_held)
        self._pcm, self._held = np.concatenate((self._pcm, pcm[:split])), pcm[split:]

    def next(self, *, is_finished: bool, would_interrupt: bool) -> Heard | None:
        """Return all that was heard."""
        del is_finished, would_interrupt
        pcm, self._pcm = self._pcm, self._pcm[:0]
        return InputAudio(pcm) if len(pcm) else None

    def finish(self) -> None:
        """Hear what was held back."""
        self._pcm, self._held = np.concatenate((self._pcm, self._held)), self._held[:0]

    def restart(self) -> None:
        """Note it."""
        self.done.append("restart")

    def sounds_finished(self) -> None:
        """Note it."""
        self.done.append("sounds_finished")


class InlineEncoder:
    """Encode frames where they are handed over."""

    def __init__(self, rate_hz: int) -> None:
        self._encoder = OpusEncoder(rate_hz, 24_000)
        self.frame_samples = self._encoder.frame_samples

    def encode(self, pcm: Pcm, then: Callable[[bytes], None]) -> None:
        """Encode a frame at once."""
        then(self._encoder.encode(pcm))


class MemoryTransport:
    """Carry frames through memory; `disconnect` and `stall` do what bad networks do."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.sent: asyncio.Queue[str] = asyncio.Queue()
        self.closed: asyncio.Future[Hangup] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self._is_gone = False

    async def receive(self) -> str:
        """Return the next frame of the client."""
        text = await self.incoming.get()
        if text is None:
            raise DisconnectedError
        return text

    async def send(self, text: str) -> None:
        """Hand a frame to the client."""
        await self._room.wait()
        if self._is_gone:
            raise DisconnectedError
        self.sent.put_nowait(text)

    round_trip_s: float | None = None

    def close_code(self, reason: EndReason) -> int:
        """Return the code of a WebSocket."""
        return CLOSE_CODES[reason]

    async def close(self, hangup: Hangup) -> None:
        """Note how the server closed."""
        self.closed.set_result(hangup)

    def disconnect(self) -> None:
        """Be gone."""
        self._is_gone = True
        self._room.set()
        self.incoming.put_nowait(None)

    def stall(self) -> None:
        """Take no more frames."""
        self._room.clear()
