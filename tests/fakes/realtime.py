"""A Realtime server on loopback that answers every turn from a script."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

from server.audio.pcm import PcmDecoder, encode_pcm

RATE_HZ = 24_000


@dataclass(frozen=True, slots=True)
class Scripted:
    """One turn: it ends when that much audio was appended since the turn began."""

    after_ms: int
    transcript: str
    reply: str
    reply_ms: int = 200


@dataclass(slots=True)
class FakeRealtime:
    """Plays the script to each connection and keeps what the last one sent."""

    script: list[Scripted]
    refuse_update: str | None = None
    close_after_turns: int | None = None
    updates: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    truncations: list[dict[str, Any]] = field(default_factory=list)
    heard: np.ndarray[Any, np.dtype[np.float32]] = field(
        default_factory=lambda: np.zeros(0, dtype=np.float32)
    )

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve on a free port; yields the address."""
        async with serve(self._session, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            yield f"ws://127.0.0.1:{port}"

    async def _session(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.headers = dict(socket.request.headers.raw_items())
        self.paths.append(socket.request.path)
        await _send(socket, "session.created", session={})
        event = json.loads(await socket.recv())
        if self.refuse_update is not None:
            await _send(socket, "error", error={"message": self.refuse_update})
            return
        self.updates.append(event["session"])
        await _send(socket, "session.updated", session=event["session"])
        decoder, begin = PcmDecoder(), 0
        for number, turn in enumerate(self.script):
            while len(self.heard) - begin < turn.after_ms * RATE_HZ // 1000:
                event = json.loads(await socket.recv())
                if event["type"] != "input_audio_buffer.append":
                    await self._edit(socket, event)
                    continue
                pcm = decoder.decode(base64.b64decode(event["audio"]))
                self.heard = np.concatenate((self.heard, pcm))
            begin = len(self.heard)
            await _answer(socket, number, turn, audio_end_ms=begin * 1000 // RATE_HZ)
            if self.close_after_turns == number + 1:
                await socket.close(1011, "broken")
                return
        # What follows the script is not part of what was heard.
        async for message in socket:
            event = json.loads(message)
            if event["type"] != "input_audio_buffer.append":
                await self._edit(socket, event)

    async def _edit(self, socket: ServerConnection, event: dict[str, Any]) -> None:
        """Cut an item short, or show what is left of it: a word for each 100 ms."""
        item_id = event["item_id"]
        if event["type"] == "conversation.item.truncate":
            self.truncations.append(event)
            await _send(socket, "conversation.item.truncated", item_id=item_id)
            return
        assert event["type"] == "conversation.item.retrieve", event
        words = self.script[int(item_id.removeprefix("reply_"))].reply.split()
        num_words = self.truncations[-1]["audio_end_ms"] // 100
        content = [{"type": "output_audio", "transcript": " ".join(words[:num_words])}]
        await _send(socket, "conversation.item.retrieved", item={"id": item_id, "content": content})


async def _answer(socket: ServerConnection, number: int, turn: Scripted, audio_end_ms: int) -> None:
    item, response = f"item_{number}", f"resp_{number}"
    await _send(socket, "input_audio_buffer.speech_started", audio_start_ms=0, item_id=item)
    await _send(
        socket, "input_audio_buffer.speech_stopped", audio_end_ms=audio_end_ms, item_id=item
    )
    await _send(socket, "input_audio_buffer.committed", item_id=item, previous_item_id=None)
    await _send(socket, "response.created", response={"id": response})
    transcription = "conversation.item.input_audio_transcription"
    await _send(socket, f"{transcription}.delta", item_id=item, delta=turn.transcript)
    await _send(socket, f"{transcription}.completed", item_id=item, transcript=turn.transcript)
    for word in turn.reply.split():
        await _send(socket, "response.output_audio_transcript.delta", delta=f" {word}")
    pcm = encode_pcm(np.full(turn.reply_ms * RATE_HZ // 1000, 0.25, dtype=np.float32))
    # An odd cut: clients must put samples together across deltas.
    for part in (pcm[:333], pcm[333:]):
        delta = base64.b64encode(part).decode()
        await _send(socket, "response.output_audio.delta", item_id=f"reply_{number}", delta=delta)
    await _send(socket, "response.done", response={"id": response, "status": "completed"})


async def _send(socket: ServerConnection, kind: str, **fields: Any) -> None:  # Any: JSON
    await socket.send(json.dumps({"type": kind, **fields}))
