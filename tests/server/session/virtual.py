"""Run a session and its engine in virtual time: it passes when the test says so."""

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from model.engine.core import EngineCore
from model.messages import Command, EngineInfo, News, Open, Output, Taken
from model.metrics import EngineMetrics
from model.schemas.service import SchemaService
from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from server.audio.silero import SileroModel
from server.audio.wire import AudioEncoder
from server.config.delegate import DelegateSettings
from server.config.filters import FilterSettings
from server.config.images import ImageSettings
from server.config.sound import VadSettings
from server.config.tools import McpSettings
from server.delegate.counts import DelegateCounts
from server.delegate.desk import DelegateDesk, SessionDelegate
from server.filters.desk import FilterDesk
from server.images.picture import Picture
from server.images.service import ImageService
from server.mcp.audit import AuditLog
from server.mcp.desk import SessionTools, ToolDesk
from server.protocol.delegate.outcomes import (
    AnswerCall,
    AnswerDone,
    AnswerText,
    AskModel,
    DelegateCommand,
    DelegateOutcome,
    DropAsk,
)
from server.protocol.delegate.policy import DelegatePolicy
from server.protocol.dialects.ga import GaDialect
from server.protocol.filters.verdicts import CheckWords, Verdict
from server.protocol.items.mcp import ListedTool
from server.protocol.machine import Limits, SessionMachine
from server.protocol.mcp.outcomes import (
    CallTool,
    Decision,
    DropTool,
    ListTools,
    ToolCommand,
    ToolOutcome,
    ToolReturned,
    ToolsListed,
)
from server.protocol.mcp.policy import NO_POLICY, ToolPolicy
from server.protocol.settings.config import AudioFormat, SessionConfig, VoiceMap
from server.session.counts import Counts
from server.session.desks import Desks
from server.session.drain import Drain
from server.session.ears import Ears
from server.session.gallery import Gallery
from server.session.pool import EnginePool
from server.session.schemas import SchemaGate
from server.session.session import Session, SessionLimits
from server.session.usage import UsageBook
from server.session.witness import Witness
from server.webrtc.audio_out import AudioSender
from tests.fakes.checker import CheckerHere
from tests.server.fakes import CountingIds, InlineEncoder, MemoryTransport

TIMEOUT_S = 60.0
WIRE_HZ = 24_000
Event = dict[str, Any]
Samples = npt.NDArray[np.float32]


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class VirtualEngine:
    """Run a core at once where nothing is due later; implements `model.messages.Engine`.

    Args:
        core: what it runs.
        is_slow: whether it carries out nothing before `catch_up`.
    """

    def __init__(self, core: EngineCore, *, is_slow: bool = False) -> None:
        self.commands: list[Command] = []
        self._core, self._is_slow = core, is_slow
        self._waiting: deque[Command] = deque()
        self._deliver: Callable[[Output | News], None] | None = None

    @property
    def info(self) -> EngineInfo:
        """Describe the engine."""
        return self._core.info

    @property
    def metrics(self) -> EngineMetrics:
        """Return what it has counted."""
        return self._core.metrics

    def start(self, deliver: Callable[[Output | News], None]) -> None:
        """Start it."""
        self._deliver = deliver

    def submit(self, command: Command) -> None:
        """Take a command."""
        self.commands.append(command)
        self._waiting.append(command)
        if not self._is_slow or isinstance(command, Open):
            self.catch_up()

    def stop(self) -> None:
        """Stop it."""
        self._deliver = None

    def catch_up(self) -> bool:
        """Do what is due by now, and say whether there was anything."""
        outputs: list[Output] = []
        did = bool(self._waiting)
        while self._waiting:
            command = self._waiting.popleft()
            outputs += [*self._core.apply(command), Taken(command.session_id, 1)]
        while made := self._core.tick():
            outputs += made
        if self._deliver is not None:
            for output in outputs:
                self._deliver(output)
        return did or bool(outputs)


class _Transport(MemoryTransport):
    """A transport that knows whether all that was sent has been dealt with."""

    is_reading = False

    async def receive(self) -> str:
        """Return the next frame of the client."""
        self.is_reading = True
        text = await super().receive()
        self.is_reading = False
        return text


class Beside:
    """Stand in for MCP servers and the text model: the test says what comes of each question.

    Attributes:
        asked: and neither answered nor given up, the oldest first.
        dropped: what was given up: items and questions, by their ids.
        decisions: for the audit log.
    """

    def __init__(self) -> None:
        self.asked: list[ListTools | CallTool | AskModel] = []
        self.dropped: list[str] = []
        self.decisions: list[Decision] = []
        self.deliver: Callable[[Any], None]  # an outcome

    def put(self, command: ToolCommand | DelegateCommand) -> None:
        """Take what the session wants."""
        match command:
            case Decision():
                self.decisions.append(command)
            case DropTool(dropped_id) | DropAsk(dropped_id):
                self.asked = [each for each in self.asked if _id_of(each) != dropped_id]
                self.dropped.append(dropped_id)
            case _:
                self.asked.append(command)

    async def close(self) -> None:
        """Be left."""


def _id_of(question: ListTools | CallTool | AskModel) -> str:
    return question.ask_id if isinstance(question, AskModel) else question.item_id


class _Tools(ToolDesk):
    def __init__(self, service: SchemaService, beside: Beside) -> None:
        super().__init__(McpSettings(), service, AuditLog(None))
        self._beside = beside

    def for_session(
        self, session_id: str, deliver: Callable[[ToolOutcome], None], user: str = ""
    ) -> SessionTools:
        del session_id, user
        self._beside.deliver = deliver
        return cast("SessionTools", self._beside)


class _Asking(DelegateDesk):
    def __init__(self, service: SchemaService, beside: Beside) -> None:
        super().__init__(DelegateSettings(), service, DelegateCounts())
        self._beside = beside

    def for_session(
        self, session_id: str, deliver: Callable[[DelegateOutcome], None]
    ) -> SessionDelegate:
        del session_id
        self._beside.deliver = deliver
        return cast("SessionDelegate", self._beside)


class _Checks(FilterDesk):
    """Check words, and say nothing of them for as long as a test likes."""

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__(settings)
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def judged(self, command: CheckWords, session_id: str) -> Verdict:
        verdict = await super().judged(command, session_id)
        await self.is_open.wait()
        return verdict


@dataclass
class Virtual:
    """A session under test, its client, its engine and their time."""

    time: Time
    engine: VirtualEngine
    transport: _Transport
    events: list[tuple[float, Event]]
    format: AudioFormat
    session: Session
    beside: Beside
    checks_open: asyncio.Event  # cleared, checks say nothing until it is set
    sender: AudioSender | None = None
    played: list[tuple[float, Samples]] = field(default_factory=list)  # by the sender, and when

    async def settle(self) -> None:
        """Let everything happen that happens at this moment."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                # Waking the reader takes a turn of the loop; what it does off the loop, more.
                for _ in range(10):
                    await asyncio.sleep(0)
                is_idle = self.transport.is_reading and self.transport.incoming.empty()
                if not self.engine.catch_up() and is_idle and not self._receive():
                    return

    def _receive(self) -> bool:
        num = self.transport.sent.qsize()
        for _ in range(num):
            event = json.loads(self.transport.sent.get_nowait())
            self.events.append((self.time.now_s, event))
        return num > 0

    async def send(self, kind: str, **event: Any) -> None:
        """Send an event and let happen what follows from it."""
        self.transport.incoming.put_nowait(json.dumps({"type": kind, **event}))
        await self.settle()

    async def type(self, text: str) -> None:
        """Add a typed turn."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)

    async def offer(self, *names: str, approval: str = "never", **settings: Any) -> None:
        """Offer tools of a server to the model, and let the server list them.

        Args:
            names: of the tools.
            approval: whether they need a person's yes.
            settings: of the session, beside its tools.
        """
        tool = {"type": "mcp", "server_label": "s", "require_approval": approval}
        await self.send("session.update", session={"type": "realtime", "tools": [tool], **settings})
        listing = self.beside.asked.pop()
        assert isinstance(listing, ListTools)
        listed = tuple(ListedTool(name, {"type": "object"}) for name in names)
        self.beside.deliver(ToolsListed(listing.item_id, listed))
        await self.settle()

    async def returned(self, output: str) -> str:
        """Let the oldest call return something; returns the call's item."""
        call = next(each for each in self.beside.asked if isinstance(each, CallTool))
        self.beside.asked.remove(call)
        self.beside.deliver(ToolReturned(call.item_id, output))
        await self.settle()
        return call.item_id

    async def approve(self, request_id: str, *, approve: bool) -> None:
        """Answer a request for approval."""
        item = {"type": "mcp_approval_response", "approval_request_id": request_id}
        await self.send("conversation.item.create", item={**item, "approve": approve})

    async def answered(
        self, *texts: str, calls: Iterable[tuple[str, str]] = (), is_all: bool = True
    ) -> None:
        """Let the text model answer the oldest question, or begin to."""
        asked = next(each for each in self.beside.asked if isinstance(each, AskModel))
        for text in texts:
            self.beside.deliver(AnswerText(asked.ask_id, text))
        for name, arguments in calls:
            self.beside.deliver(AnswerCall(asked.ask_id, name, arguments))
        if is_all:
            self.beside.asked.remove(asked)
            self.beside.deliver(AnswerDone(asked.ask_id, is_cut=False))
        await self.settle()

    async def ring(self) -> None:
        """Let happen what is due by now: the alarm's own clock is another."""
        self.session._tick()
        await self.settle()

    def items(self, kind: str) -> list[Event]:
        """Return the final items of a kind so far."""
        done = (event["item"] for event in self.all("conversation.item.done"))
        return [item for item in done if item["type"] == kind]

    async def see(self, colour: tuple[int, int, int]) -> None:
        """Let the user's camera show a picture of one colour, 64 by 32."""
        pixels = np.full((32, 64, 3), colour, dtype=np.uint8)
        self.session.see(Picture(pixels, b"a file"))
        await self.settle()

    async def wait(self, seconds: float, step_s: float = 0.02) -> None:
        """Let time pass."""
        for _ in range(round(seconds / step_s)):
            self.advance(step_s)
            await self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, in which a sender plays."""
        end_s = self.time.now_s + seconds
        while self.sender is not None and self.sender.due_s <= end_s:
            self.time.now_s = max(self.time.now_s, self.sender.due_s)
            self.sender.step(self.time.now_s)
        self.time.now_s = end_s

    async def say(self, pcm: Samples, *, piece_s: float = 0.02, pace: float = 1.0) -> None:
        """Append audio.

        Args:
            pcm: at 24 kHz.
            piece_s: of each append; 0 for one append of everything.
            pace: how much faster than real time; 0 for no time at all.
        """
        encoder = AudioEncoder(self.format.encoding, self.format.rate_hz, WIRE_HZ)
        step = int(piece_s * WIRE_HZ) or len(pcm)
        for start in range(0, len(pcm), step):
            piece = pcm[start : start + step]
            audio = base64.b64encode(encoder.encode(piece)).decode()
            if pace and piece_s:
                self.advance(len(piece) / WIRE_HZ / pace)
            await self.send("input_audio_buffer.append", audio=audio)

    def kinds(self) -> list[str]:
        """Return the kinds of all events so far."""
        return [event["type"] for _, event in self.events]

    def all(self, kind: str) -> list[Event]:
        """Return all events of a kind."""
        return [event for _, event in self.events if event["type"] == kind]

    def one(self, kind: str) -> Event:
        """Return the one event of a kind."""
        (event,) = self.all(kind)
        return event

    def when(self, kind: str) -> float:
        """Return when the first event of a kind came, in seconds from the start."""
        return next(at for at, event in self.events if event["type"] == kind) - 100.0


def scripted(script: str, time: Time) -> ScriptedCore:
    """Return the core of a scripted engine."""
    parsed = parse_script(script, "test")
    checker = CheckerHere()
    return ScriptedCore(parsed, max_sessions=2, ahead_ms=1_000, clock=time, checker=checker)


def _sender(
    rate_hz: int,
    time: Time,
    session: Callable[[], Session],
    played: list[tuple[float, Samples]],
) -> AudioSender:
    """Make what plays replies as a call by WebRTC does."""

    def note(pcm: Samples, at_s: float) -> None:
        played.append((at_s, pcm))
        session().sounded(pcm, time() - at_s)

    return AudioSender(
        InlineEncoder(rate_hz),
        rate_hz,
        lambda *_: None,
        lambda item_id, num_samples: session().played(item_id, num_samples),
        note,
        lambda: None,
        time,
    )


@asynccontextmanager
async def virtually(
    vad_model: SileroModel,
    make_core: Callable[[Time], EngineCore],
    *,
    vad: VadSettings | None = None,
    is_slow: bool = False,
    cancels_echo: bool = False,
    is_played: bool = False,
    filters: FilterSettings | None = None,
    policy: ToolPolicy = NO_POLICY,
    delegate: DelegatePolicy | None = None,
    witnesses: Callable[[SessionConfig], Sequence[Witness]] = lambda _: (),
    **changes: Any,
) -> AsyncIterator[Virtual]:
    """Run a session.

    Args:
        vad_model: finds speech.
        make_core: makes the engine's core.
        vad: what clients cannot set of voice detection; None for the defaults.
        is_slow: whether the engine does nothing before everything else is done.
        cancels_echo: whether what is played is taken out of what is heard.
        is_played: whether the transport plays replies, as by WebRTC; else the client does.
        filters: what is checked; None for nothing.
        policy: which calls need a person's yes, and what waits for calls.
        delegate: what a text model answers; None where there is none.
        witnesses: returns who sees the session, by what it begins with.
        changes: of the session's configuration.
    """
    time = Time()
    engine = VirtualEngine(make_core(time), is_slow=is_slow)
    link = EnginePool([engine])
    await link.start()
    transport = _Transport()
    ids = CountingIds()
    voice = engine.info.voices[0]
    config = SessionConfig(id="sess_1", model="m", voice=voice, expires_at=0, **changes)
    rate_hz = engine.info.sample_rate_hz
    voices = VoiceMap({name: name for name in engine.info.voices}, voice)
    ears = Ears(vad_model, rate_hz, vad or VadSettings(), config, cancels_echo=cancels_echo)
    desk = _Checks(filters or FilterSettings())
    bounds = Limits(filters=desk.plan, policy=policy, delegate=delegate)
    machine = SessionMachine(config, engine.info, voices, ids, bounds, ears, is_played=is_played)
    played: list[tuple[float, Samples]] = []
    sender = _sender(rate_hz, time, lambda: session, played) if is_played else None
    service = SchemaService()
    schemas = SchemaGate(service, max_tools=128)
    images = ImageService()
    beside = Beside()
    session = Session(
        transport,
        machine,
        GaDialect(),
        ids,
        ears,
        link,
        SessionLimits(max_backlog_events=4096, send_timeout_s=TIMEOUT_S),
        schemas=schemas,
        desks=Desks(_Tools(service, beside), desk, _Asking(service, beside)),
        gallery=Gallery(images, ImageSettings(), engine.info.image_side),
        counts=Counts(),
        meter=UsageBook().meter("", "m"),
        drain=Drain(0),
        player=sender,
        witnesses=witnesses(config),
        clock=time,
    )
    try:
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
            tasks.create_task(session.run(), name="session")
            virtual = Virtual(
                time,
                engine,
                transport,
                [],
                config.input_format,
                session,
                beside,
                desk.is_open,
                sender,
                played,
            )
            await virtual.settle()
            yield virtual
            transport.disconnect()
    finally:
        await schemas.close()
        await images.close()
        await link.stop()
