"""What every Python client program shares: the assets, the scenarios, and how they are reported.

A client program runs in its client's own environment, so this needs the standard library only. It
prints one JSON line a scenario; `tests/clients/run.py` makes the table.
"""

import argparse
import array
import asyncio
import contextlib
import json
import sys
import time
import traceback
import wave
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

ASSETS = Path(__file__).parents[1] / "assets"
RATE_HZ = 24_000
CHUNK_MS = 100
CHUNK_BYTES = RATE_HZ * 2 * CHUNK_MS // 1000
PATIENCE_S = 45.0

# Every spoken conversation begins with these two; the third talks over a reply.
MY_NAME = "my_name_is_peter.wav"
WHAT_NAME = "what_is_my_name.wav"
TALK_OVER = "two_plus_two.wav"

# A microphone's piece of sound.
PIECE_MS = 20
PIECE_BYTES = RATE_HZ * 2 * PIECE_MS // 1000

# A reply of the scripted engine begins to sound no later than this after the user's last sound.
FIRST_AUDIO_S = 1.2

# A reply is talked over when this much of it has been heard.
HEARD_MS = 1000

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["paris", "rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}

T = TypeVar("T")


class ScenarioError(Exception):
    """Say why a scenario failed."""


@dataclass(frozen=True)
class Options:
    """Whom to talk to."""

    host: str  # with its port
    config: str  # of the server: its file's stem, such as "scripted" or "starter"
    dialect: str
    is_azure: bool

    @property
    def is_scripted(self) -> bool:
        """Return whether replies are the script's, tests/clients/script.yaml."""
        return self.config == "scripted"

    @property
    def speed(self) -> float:
        """Return how fast the assistant talks: slowly where its replies are short."""
        return 0.5 if self.config == "starter" else 1.0


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("config")
    parser.add_argument("--dialect", choices=("ga", "beta"), default="ga")
    parser.add_argument("--azure", action="store_true", help="speak as to Azure")
    args = parser.parse_args()
    return Options(args.host, args.config, args.dialect, args.azure)


def speech(name: str, *, silence_ms: int = 1200) -> list[bytes]:
    """Return a recording and the silence after it as PCM16 at `RATE_HZ`, in chunks."""
    with wave.open(str(ASSETS / name)) as recording:
        assert recording.getframerate() == RATE_HZ
        pcm = recording.readframes(recording.getnframes())
    pcm += bytes(RATE_HZ * 2 * silence_ms // 1000)
    return [pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES)]


def voiced_bytes(pcm: bytes) -> int:
    """Return where the last voiced piece of PCM16 ends: the last 10 ms over 3 % of the peak."""
    samples = array.array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    step = RATE_HZ // 100
    floor = 0.03 * max(map(abs, samples))
    at = len(samples)
    while max(map(abs, samples[at - step : at])) <= floor:
        at -= step
    return 2 * at


def ulaw_8_khz(pcm: bytes) -> bytes:
    """Return PCM16 at `RATE_HZ` as µ-law at 8 kHz (ITU-T G.711), three samples made one."""
    samples = array.array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(_ulaw(sum(samples[at : at + 3]) // 3) for at in range(0, len(samples) - 2, 3))


def _ulaw(sample: int) -> int:
    sign, size = (0x80, min(-sample, 32635)) if sample < 0 else (0, min(sample, 32635))
    size += 132
    exponent = size.bit_length() - 8
    return ~(sign | exponent << 4 | (size >> exponent + 3) & 0x0F) & 0xFF


class Microphone:
    """Sends sound in real time, and silence where nobody speaks.

    Args:
        send: takes PCM16 at `RATE_HZ`, `PIECE_MS` at a time.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._pieces: deque[tuple[bytes, asyncio.Future[float] | None]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def say(self, name: str) -> float:
        """Say a recording; return when its last voiced piece had been sent, by `time.monotonic`."""
        pcm = b"".join(speech(name, silence_ms=PIECE_MS))
        ends: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        last = (voiced_bytes(pcm) - 1) // PIECE_BYTES
        for number, at in enumerate(range(0, len(pcm) - PIECE_BYTES + 1, PIECE_BYTES)):
            piece = pcm[at : at + PIECE_BYTES]
            self._pieces.append((piece, ends if number == last else None))
        return await ends

    async def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            piece, ends = self._pieces.popleft() if self._pieces else (bytes(PIECE_BYTES), None)
            await self._send(piece)
            if ends is not None:
                ends.set_result(time.monotonic())
            due_s += PIECE_MS / 1000
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


def check(is_so: object, message: str) -> None:
    """Fail the scenario unless something holds."""
    if not is_so:
        raise ScenarioError(message)


def check_words(reply: str, *words: str) -> None:
    """Fail the scenario unless all these words are in a reply."""
    missing = set(words) - set(reply.lower().replace(";", " ").split())
    check(not missing, f"{reply!r} lacks {', '.join(sorted(missing))}")


def check_heard(words: str, begin: str = "one") -> None:
    """Fail the scenario unless a count that was talked over is known as far as it was heard."""
    check(begin in words, f"{words!r} lacks {begin!r}")
    check("nine" not in words, f"{words!r} has words that were not heard")


def check_remembered(words: str) -> None:
    """Fail the scenario unless the engine remembers no more than was heard, and who is talking."""
    check_heard(words, "assistant: one")
    check("peter" in words, f"{words!r} lacks the name")


@contextlib.asynccontextmanager
async def scenario(name: str) -> AsyncIterator[None]:
    """Hold one scenario and report how it went."""
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            yield
    except ScenarioError as failure:
        report(name, "fail", str(failure))
    except Exception as error:  # noqa: BLE001 - whatever a client raises is a finding
        traceback.print_exc()
        report(name, "fail", f"{type(error).__name__}: {error}")
    else:
        report(name, "pass")


def report(name: str, verdict: str, why: str = "") -> None:
    """Print the line of one scenario."""
    sys.stdout.write(json.dumps({"scenario": name, "verdict": verdict, "why": why}) + "\n")
    sys.stdout.flush()


class Waits:
    """How long the user waited for the first sound of replies to spoken turns."""

    def __init__(self) -> None:
        self._waits_s: list[float] = []

    def add(
        self, inbox: "Inbox", mark: int, ended_s: float, is_audio: Callable[[Any], bool]
    ) -> float:
        """Note the wait from the end of the user's speech to the first audio since a mark.

        Returns when that came, by `time.monotonic`.
        """
        times_s = zip(inbox.events[mark:], inbox.times_s[mark:], strict=True)
        came_s = next((time_s for event, time_s in times_s if is_audio(event)), None)
        check(came_s is not None, "a reply without audio")
        assert came_s is not None
        self._waits_s.append(came_s - ended_s)
        return came_s

    def report(self, *, is_scripted: bool) -> None:
        """Report the longest; how fast the scripted engine answers depends on the gateway alone."""
        if not self._waits_s:
            report("first audio", "fail", "no spoken turn was answered")
            return
        longest_s = max(self._waits_s)
        is_late = is_scripted and longest_s > FIRST_AUDIO_S
        report("first audio", "fail" if is_late else "pass", f"{longest_s * 1000:.0f} ms")


def not_applicable(name: str, why: str) -> None:
    """Report what a client does not do by itself."""
    report(name, "n/a", why)


class Inbox:
    """Keeps everything that a client reported, in order, and lets scenarios wait for more."""

    def __init__(self) -> None:
        self.events: list[Any] = []  # Any: each client has its own types
        self.times_s: list[float] = []  # when each came, by time.monotonic
        self.ended: str | None = None
        self._changed = asyncio.Event()

    def put(self, event: Any) -> None:
        """Add an event."""
        self.events.append(event)
        self.times_s.append(time.monotonic())
        self._changed.set()

    def end(self, why: str) -> None:
        """Note that nothing comes any more."""
        self.ended = why
        self._changed.set()

    @property
    def mark(self) -> int:
        """Return where the next event will be."""
        return len(self.events)

    async def wait(self, find: Callable[[list[Any]], T | None], what: str, since: int = 0) -> T:
        """Wait until something is found in the events since a mark, and return it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := find(self.events[since:])) is None:
            if self.ended is not None:
                raise ScenarioError(f"{self.ended} while waiting for {what}")
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline_s - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                seen = " ".join(_runs(kind_of(event) for event in self.events[since:]))
                raise ScenarioError(f"no {what}; came: {seen[-600:]}") from None
        return found

    async def event(self, kind: str, since: int = 0) -> Any:
        """Wait for the first event of a kind since a mark."""
        return await self.wait(
            lambda events: next((e for e in events if kind_of(e) == kind), None), kind, since
        )


def kind_of(event: Any) -> str:
    """Name an event."""
    return getattr(event, "type", None) or type(event).__name__


def _runs(kinds: Iterable[str]) -> list[str]:
    """Leave repetitions out."""
    shown: list[str] = []
    for kind in kinds:
        if not shown or shown[-1] != kind:
            shown.append(kind)
    return shown


# What a model that listens and speaks at once has no use for, and why.
_NOT_FOR_DUPLEX = {
    "text turn": "the model hears and speaks; typed items are refused by a clear error",
    "tool call": "the model cannot call functions",
    "transcription": "the model does not write down what it hears, and says so in an event",
    "reconnect": "the model cannot be told an earlier conversation",
    "first audio": "the model speaks when it likes, also while the user does",
}


def not_for_duplex(*names: str) -> None:
    """Report scenarios that do not apply to a model that listens and speaks at once."""
    for name in names:
        not_applicable(name, _NOT_FOR_DUPLEX[name])


def check_twin(reply: str) -> None:
    """Fail the scenario unless a reply is a random twin's, whole or interrupted anywhere."""
    is_begun = bool(reply) and "i am a random twin".startswith(reply)
    check(reply.startswith("i am a random twin") or is_begun, f"{reply!r} is not what a twin says")


def run(main: Callable[[Options], Any]) -> None:
    """Run a client program."""
    asyncio.run(main(options()))
