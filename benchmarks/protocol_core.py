"""What an event costs in the protocol core: frames of text in, frames of text out, no I/O."""

import base64
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.report import Row
from model.messages import (
    EngineInfo,
    InputTranscript,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    ResponseWord,
    Usage,
)
from server.protocol.delegate.outcomes import DelegateCommand
from server.protocol.dialects.ga import GaDialect
from server.protocol.events import Hangup, Heard, InputAudio, Reaction, Refusal
from server.protocol.filters.verdicts import CheckWords
from server.protocol.ids import RandomIds
from server.protocol.machine import Limits, SessionMachine
from server.protocol.mcp.outcomes import ToolCommand
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.sound import Sound
from server.protocol.wire.client_events import InputAudioBufferAppend
from server.protocol.wire.parse import decode, parse
from server.protocol.wire.write import encode

_RATE_HZ = 24_000
_FRAME_MS = 80
_FRAME = np.zeros(_RATE_HZ * _FRAME_MS // 1000, dtype=np.float32)
_CHUNK = np.zeros(_RATE_HZ // 10, dtype=np.float32)  # 100 ms
_WORDS = 7
_FRAMES_PER_WORD = 5
_CHUNKS = 12  # appended in a turn
# A session of its own now and then: a conversation that only grew would show what forgetting costs.
_TURNS_PER_SESSION = 25

_AUDIO_EVENT = "response.output_audio.delta"


class CoreBrokenError(AssertionError):
    """Report that the core did not do what is to be measured."""


class _Ears:
    """Hear every append as the same audio: what hearing costs is not the core's."""

    is_in_doubt = False

    def __init__(self) -> None:
        self._num_appends = 0

    @property
    def has_more(self) -> bool:
        """Say whether an append was not returned yet."""
        return self._num_appends > 0

    def configure(self, config: SessionConfig) -> None:
        """Hear as before."""

    def hear(self, data: bytes) -> None:
        """Count it."""
        del data
        self._num_appends += 1

    def next(self, *, is_finished: bool, would_interrupt: bool) -> Heard | None:
        """Return the audio once for each append."""
        del is_finished, would_interrupt
        if not self._num_appends:
            return None
        self._num_appends -= 1
        return InputAudio(_CHUNK)

    def finish(self) -> None:
        """Hold nothing back."""

    def restart(self) -> None:
        """Go on."""

    def sounds_finished(self) -> None:
        """Go on."""


@dataclass(slots=True)
class _Wire:
    """One session's core, from text to text, with the time that each input took."""

    seconds: dict[str, list[float]]
    machine: SessionMachine = field(init=False)
    ears: _Ears = field(init=False)
    dialect: GaDialect = field(default_factory=GaDialect)
    ids: RandomIds = field(default_factory=RandomIds)
    session_id: str = ""

    def __post_init__(self) -> None:
        config = SessionConfig(self.ids.new("sess"), "scripted", "alloy", expires_at=0)
        voices = VoiceMap({"alloy": "alloy"}, "alloy")
        info = EngineInfo("m", _RATE_HZ, _FRAME_MS, (), 1)
        self.session_id = config.id
        # Everything of a session but what waits: no socket, no thread, no engine.
        self.ears = _Ears()
        self.machine = SessionMachine(config, info, voices, self.ids, Limits(), self.ears)
        self.machine.start()

    def client(self, kind: str, **fields: object) -> list[Reaction]:
        """Send a client's event and encode what follows."""
        text = json.dumps({"type": kind, **fields})
        start_s = time.perf_counter()
        # From the frame's text to the last text that follows, with all JSON on the way.
        event = parse(self.dialect.read(decode(text)))
        if isinstance(event, InputAudioBufferAppend):
            self.ears.hear(event.audio)
            reactions = self.machine.listen(0.0)
        else:
            reactions = self.machine.receive(event, 0.0)
        self._encode(reactions)
        self.seconds[kind].append(time.perf_counter() - start_s)
        return reactions

    def engine(self, output: Output) -> list[str]:
        """Take an output of the engine and encode what follows."""
        start_s = time.perf_counter()
        texts = self._encode(self.machine.receive(output, 0.0))
        self.seconds[type(output).__name__].append(time.perf_counter() - start_s)
        return texts

    def _encode(self, reactions: list[Reaction]) -> list[str]:
        texts = []
        for reaction in reactions:
            if isinstance(
                reaction,
                Hangup | Sound | Refusal | ToolCommand | DelegateCommand | CheckWords,
            ) or hasattr(reaction, "session_id"):
                continue  # for the engine or a player, or the end
            # For each frame of 80 ms that is base64 of 3,840 bytes.
            written = self.dialect.write(reaction, self.ids.new("event"))
            if written is not None:
                texts.append(encode(written))
        return texts


def measure_core(num_turns: int) -> list[Row]:
    """Hold spoken turns one after another and time every event.

    Args:
        num_turns: turns; each appends 1.2 s of audio and is answered with 2.8 s.

    Returns:
        A row for each kind of input, `us` being microseconds from the frame of text or the output
        of the engine to the last frame of text that follows from it, and a row for all of them.

    Raises:
        CoreBrokenError: the core did not answer as it must.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    append = base64.b64encode(bytes(2 * len(_CHUNK))).decode()
    for first in range(0, num_turns, _TURNS_PER_SESSION):
        wire = _Wire(seconds)
        off = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        wire.client("session.update", session=off)
        for _ in range(first, min(first + _TURNS_PER_SESSION, num_turns)):
            _hold_turn(wire, append)
    rows = [_row(kind, times) for kind, times in seconds.items()]
    every = [time_s for times in seconds.values() for time_s in times]
    return [*rows, _row("all", every)]


def _hold_turn(wire: _Wire, append: str) -> None:
    for _ in range(_CHUNKS):
        wire.client("input_audio_buffer.append", audio=append)
    wire.client("input_audio_buffer.commit")
    wire.engine(InputTranscript(wire.session_id, "item", "what is the capital of france"))
    reactions = wire.client("response.create")
    request = next(command for command in reactions if isinstance(command, Respond))
    kinds = [json.loads(text)["type"] for output in _reply(request) for text in wire.engine(output)]
    num_audio = kinds.count(_AUDIO_EVENT)
    if num_audio != _WORDS * _FRAMES_PER_WORD or kinds.count("response.done") != 1:
        raise CoreBrokenError(f"a turn gave {num_audio} audio deltas, its events were {kinds}")


def _reply(request: Respond) -> Iterator[Output]:
    session_id, turn = request.session_id, request.turn
    for index in range(_WORDS):
        yield ResponseText(session_id, turn, "word" if index == 0 else " word")
    for index in range(_WORDS):
        yield ResponseWord(session_id, turn, "word", index * _FRAMES_PER_WORD * _FRAME_MS)
        for _ in range(_FRAMES_PER_WORD):
            yield ResponseAudio(session_id, turn, _FRAME)
    yield ResponseDone(session_id, turn, "completed", Usage(output_audio_tokens=35))


def _row(kind: str, times_s: list[float]) -> Row:
    times_us = np.array(times_s) * 1e6
    return {
        "input": kind,
        "n": len(times_s),
        "us_mean": round(float(times_us.mean()), 1),
        "us_p50": round(float(np.percentile(times_us, 50)), 1),
        "us_p99": round(float(np.percentile(times_us, 99)), 1),
        "events_per_s": round(1e6 / float(times_us.mean())),
    }
