"""Callers who talk by way of a balancer, and what they noticed.

Each speaks with a bare WebSocket: it connects, has some turns, hears every reply out in real time,
hangs up, and calls again. A call is lost if its connection ends before its caller hangs up, if it
is refused, or if a reply is not completed; one that failed with its engine is asked for again. A
cut is a time in a reply with nothing left to play:
the sound comes later than it is heard. Whatever comes is read to the last, also while a reply is
being heard and while the caller hangs up: who does not read is told nothing.
"""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

# A long story takes forty seconds, since it is heard in real time.
TURN_S, _REST_S = 60.0, 0.5
# A frame of sound: what is shorter is not heard as a gap, and this machine does other things.
MAX_CUT_MS = 80.0
_BYTES_PER_S = 2 * 24_000
_QUESTIONS = ("hello", "what is the capital of france", "tell me a long story")


@dataclass(slots=True)
class Figures:
    """What the callers have noticed.

    Attributes:
        open: calls that are open.
        replying: callers who hear a reply of which more is to come.
        calls: that ended as their callers wanted.
        lost: why each of the others did not.
        told: calls that were told that their server is about to stop.
        untold: of the others, when each began to hang up and when that was done, in Unix time.
        replies: heard to their end.
        cuts_ms: of each reply, the longest time without sound within it.
        silences_s: after each call that was lost, how long its caller heard nothing: until the
            first sound of the next call.
        pauses_s: the same for each reply that failed with its engine, in a call that went on.
        changed: set whenever one of them changes.
    """

    open: int = 0
    replying: int = 0
    calls: int = 0
    lost: list[str] = field(default_factory=list)
    told: int = 0
    untold: list[tuple[float, float]] = field(default_factory=list)
    replies: int = 0
    cuts_ms: list[float] = field(default_factory=list)
    silences_s: list[float] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so that depends on them."""
        while not is_so():
            self.changed.clear()
            await self.changed.wait()


class Caller:
    """Somebody who calls again and again.

    Args:
        url: of the balancer.
        number: decides what is asked.
        figures: shared with the other callers.
    """

    def __init__(self, url: str, number: int, figures: Figures) -> None:
        self._url = url
        self._number = number
        self._figures = figures
        self._played_to_s = 0.0
        self._is_told = self._is_replied_to = False
        self._lost_s: float | None = None

    async def talk(self, is_over: asyncio.Event) -> None:
        """Have one call after the other, until it is over."""
        while not is_over.is_set():
            await self._call()
            self._number += 1

    async def _call(self) -> None:
        figures, self._is_told = self._figures, False
        try:
            async with connect(self._url, open_timeout=TURN_S) as client:
                figures.open += 1
                try:
                    for turn in range(3):
                        await self._turn(client, _QUESTIONS[(self._number + turn) % 3])
                finally:
                    figures.open -= 1
                await self._hang_up(client)
        except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, AssertionError) as error:
            figures.lost.append(f"{type(error).__name__}: {error}")
            if self._lost_s is None:
                # What had come is heard all the same.
                self._lost_s = max(time.monotonic(), self._played_to_s)
            figures.changed.set()
            await asyncio.sleep(_REST_S)
            return
        figures.calls += 1
        figures.changed.set()

    async def _turn(self, client: ClientConnection, text: str) -> None:
        """Ask by text, and play the reply's sound as it comes."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
        silent_from_s: float | None = None
        while not await self._replied(client, silent_from_s):
            silent_from_s = silent_from_s or max(time.monotonic(), self._played_to_s)
        # Heard to its end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._played_to_s - time.monotonic()):
                while True:
                    self._note(json.loads(await client.recv()))

    async def _replied(self, client: ClientConnection, silent_from_s: float | None) -> bool:
        """Ask for a reply and take it; False if it failed with its engine.

        Args:
            client: the call.
            silent_from_s: since when the caller hears nothing, as one failed before.
        """
        await client.send(json.dumps({"type": "response.create"}))
        try:
            async with asyncio.timeout(TURN_S):
                cut_s = await self._heard(client, silent_from_s)
        finally:
            self._figures.replying -= self._is_replied_to
            self._is_replied_to = False
        if cut_s is None:
            return False
        self._figures.replies += 1
        self._figures.cuts_ms.append(cut_s * 1000)
        self._figures.changed.set()
        return True

    async def _heard(self, client: ClientConnection, silent_from_s: float | None) -> float | None:
        """Take a reply; returns the longest time without sound in it, None if it failed."""
        cut_s = 0.0
        while True:
            event = json.loads(await client.recv())
            now_s = time.monotonic()
            match event["type"]:
                case "response.output_audio.delta":
                    if self._is_replied_to:
                        cut_s = max(cut_s, now_s - self._played_to_s)
                    else:
                        self._begun(now_s, silent_from_s)
                    played_s = len(base64.b64decode(event["delta"])) / _BYTES_PER_S
                    self._played_to_s = max(self._played_to_s, now_s) + played_s
                case "response.done":
                    response = event["response"]
                    if _is_engine_failure((response.get("status_details") or {}).get("error")):
                        return None
                    assert response["status"] == "completed", response["status"]
                    assert self._is_replied_to, "a reply without sound"
                    return cut_s
                case _:
                    self._note(event)

    def _begun(self, now_s: float, silent_from_s: float | None) -> None:
        """Take note of the first sound of a reply."""
        figures = self._figures
        # What had come before may still be heard.
        if self._lost_s is not None:
            figures.silences_s.append(max(0.0, now_s - self._lost_s))
            self._lost_s = None
        elif silent_from_s is not None:
            figures.pauses_s.append(max(0.0, now_s - silent_from_s))
        self._is_replied_to = True
        figures.replying += 1
        figures.changed.set()

    async def _hang_up(self, client: ClientConnection) -> None:
        """Close the connection, and read what was sent before the server knew."""
        began_s = time.time()
        closing = asyncio.create_task(client.close())
        async for text in client:
            self._note(json.loads(text))
        await closing
        if not self._is_told:
            self._figures.untold.append((began_s, time.time()))

    def _note(self, event: dict[str, Any]) -> None:
        """Take note of what comes beside replies."""
        if event["type"] == "error" and not _is_engine_failure(event["error"]):
            raise AssertionError(event["error"]["message"])
        if event["type"] == "session.updated":
            self._told()

    def _told(self) -> None:
        self._figures.told += not self._is_told
        self._is_told = True


def _is_engine_failure(error: dict[str, Any] | None) -> bool:
    """Say whether it was the engine's process, and no more: the call goes on with another."""
    return error is not None and error["code"] == "engine_failed"
