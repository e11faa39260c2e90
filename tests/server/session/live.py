"""Run a session in memory, with an engine that echoes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from model.messages import Close
from model.schemas.service import SchemaService
from server.audio.silero import SileroModel
from server.config.delegate import DelegateSettings
from server.config.filters import FilterSettings
from server.config.images import ImageSettings
from server.config.sound import VadSettings
from server.config.tools import McpSettings
from server.delegate.counts import DelegateCounts
from server.delegate.desk import DelegateDesk
from server.filters.desk import FilterDesk
from server.images.service import ImageService
from server.mcp.audit import AuditLog
from server.mcp.desk import ToolDesk
from server.protocol.dialects.ga import GaDialect
from server.protocol.machine import Limits, SessionMachine
from server.protocol.settings.config import SessionConfig
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
from server.session.work_thread import WorkThread
from tests.server.fakes import INFO, CountingIds, EchoEngine, MemoryTransport
from tests.server.protocol.transcripts import VOICES

# What compiles schemas gives way to everybody else: on a busy machine it took 20 s to begin.
TIMEOUT_S = 60.0
LIMITS = SessionLimits(max_backlog_events=64, send_timeout_s=TIMEOUT_S)


class Live:
    """A session under test, its client and its engine."""

    def __init__(
        self, engine: EchoEngine, transport: MemoryTransport, session: Session, drain: Drain
    ) -> None:
        self.engine = engine
        self.drain = drain
        self.transport = transport
        self.session = session

    def send(self, **event: Any) -> None:
        """Send an event."""
        self.transport.incoming.put_nowait(json.dumps(event))

    def say(self, text: str) -> None:
        """Type a turn and ask for a response."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self.send(type="conversation.item.create", item=item)
        self.send(type="response.create")

    async def until(self, kind: str) -> dict[str, Any]:
        """Receive up to the first event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                event: dict[str, Any] = json.loads(await self.transport.sent.get())
                if event["type"] == kind:
                    return event


@asynccontextmanager
async def living(
    vad_model: SileroModel,
    limits: SessionLimits = LIMITS,
    vad: VadSettings | None = None,
    counts: Counts | None = None,
    witnesses: Callable[[SessionConfig], Sequence[Witness]] = lambda _: (),
    tells_parts: bool = False,
    hearing: WorkThread | None = None,
    **changes: Any,
) -> AsyncIterator[Live]:
    """Run a session; on leaving, it must end by itself.

    Args:
        vad_model: finds speech.
        limits: on what the client can hold up.
        vad: what clients cannot set of voice detection; None for the defaults.
        counts: of what happens; None if nobody looks.
        witnesses: returns who sees the session, by what it begins with.
        tells_parts: whether the client is told what a reply's first audio took.
        hearing: where sound is heard; None for the event loop.
        changes: of the session's configuration.
    """
    engine = EchoEngine()
    link = EnginePool([engine])
    await link.start()
    transport = MemoryTransport()
    drain = Drain(60)
    ids = CountingIds()
    changes = {"expires_at": 0, **changes}
    config = SessionConfig(id="sess_1", model="echo", voice="alloy", **changes)
    ears = Ears(vad_model, INFO.sample_rate_hz, vad or VadSettings(), config)
    machine = SessionMachine(config, INFO, VOICES, ids, Limits(), ears)
    service = SchemaService()
    schemas = SchemaGate(service, max_tools=128)
    images = ImageService()
    session = Session(
        transport,
        machine,
        GaDialect(),
        ids,
        ears,
        link,
        limits,
        schemas=schemas,
        desks=Desks(
            ToolDesk(McpSettings(), service, AuditLog(None)),
            FilterDesk(FilterSettings()),
            DelegateDesk(DelegateSettings(), service, DelegateCounts()),
        ),
        gallery=Gallery(images, ImageSettings(), engine.info.image_side),
        counts=counts or Counts(),
        meter=UsageBook().meter("", "m"),
        drain=drain,
        hearing=hearing,
        witnesses=witnesses(config),
        tells_parts=tells_parts,
    )
    try:
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
            tasks.create_task(session.run(), name="session")
            yield Live(engine, transport, session, drain)
    finally:
        await link.stop()
        await schemas.close()
        await images.close()
    assert engine.num_open == 0, "the slot was given back"
    assert link.num_sessions == 0, "nobody listens any more"
    assert engine.commands[-1] == Close("sess_1")
