"""Be many clients in a process of their own, and note when each frame of audio arrives.

Every client streams silence from its microphone in real time, asks for one long reply by text, and
takes it as it comes. Frames of text are not parsed, only recognised. Prints JSON: the arrival times
of each session's audio deltas, on the monotonic clock that all processes of a machine share.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import time

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.pacing import paced

_RATE_HZ = 24_000
_CHUNK_S = 0.1
_MARK = b'"response.output_audio.delta"'
_GOLDEN = 0.618  # multiples of the golden ratio fall evenly between whole numbers
_MARK_END = 120  # the type is at the beginning of an event

# Made once: what these clients spend, the server does not get, on a machine that both share.
_SILENCE = base64.b64encode(bytes(2 * int(_RATE_HZ * _CHUNK_S))).decode()
_APPEND = json.dumps({"type": "input_audio_buffer.append", "audio": _SILENCE})
_QUESTION = json.dumps(
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "go on"}],
        },
    }
)
_ASK = json.dumps({"type": "response.create"})


def main() -> None:
    """Hold the conversations and print what was noted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("sessions", type=int)
    parser.add_argument("seconds", type=float)
    args = parser.parse_args()
    arrived_s = asyncio.run(_call_all(args.port, args.sessions, args.seconds))
    print(json.dumps(arrived_s), flush=True)


async def _call_all(port: int, num_sessions: int, seconds: float) -> dict[str, list[float]]:
    arrived_s: dict[str, list[float]] = {}
    async with asyncio.TaskGroup() as tasks:
        for index in range(num_sessions):
            # People do not begin at the same moment.
            # For example, 0, 1.24, 0.47, 1.71, 0.94 s: each falls into the largest gap of those
            # before.
            delay_s = 2.0 * ((index * _GOLDEN) % 1.0)
            call = _call(port, delay_s, delay_s + seconds, arrived_s)
            tasks.create_task(call, name=f"client {index}")
    return arrived_s


async def _call(
    port: int, delay_s: float, seconds: float, arrived_s: dict[str, list[float]]
) -> None:
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=scripted"
    async with connect(url, compression=None, max_size=None, open_timeout=60) as socket:
        created = json.loads(await socket.recv())
        times = arrived_s[created["session"]["id"]] = []
        async with asyncio.TaskGroup() as tasks:
            microphone = tasks.create_task(_speak(socket, delay_s), name="microphone")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while True:
                        # As bytes: even decoding UTF-8 takes time that is not the server's.
                        frame = await socket.recv(decode=False)
                        if _MARK in frame[:_MARK_END]:
                            # CLOCK_MONOTONIC is one clock for all processes of a machine
                            # (clock_gettime(2)).
                            times.append(time.monotonic())
            microphone.cancel()


async def _speak(socket: ClientConnection, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await socket.send(_QUESTION)
    await socket.send(_ASK)
    async for _ in paced(_CHUNK_S):
        await socket.send(_APPEND)


if __name__ == "__main__":
    main()
