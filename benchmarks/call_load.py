"""Hold calls for load, in a process of its own, until standard input ends.

Each speaks all the time, and is spoken to for half of it. What it hears it does not decode.
"""

import argparse
import asyncio
import json
import sys
import time

import numpy as np

from benchmarks.light_caller import LightCaller
from benchmarks.pacing import paced
from benchmarks.probe_server import BUSY, RATE_HZ
from server.webrtc.opus import OpusEncoder

_PERIOD_S = 4.0  # of a reply and the pause after it
_FRAME = 960


async def hold(port: int, count: int) -> None:
    """Call, and go on until standard input ends."""
    time_s = np.arange(_FRAME * 50) / 48_000
    encoder = OpusEncoder(48_000, 24_000)
    # Encoded once, a second of it, and sent again and again: encoding is the client's work, and it
    # would take the cores that the server is measured on.
    hum = (0.1 * np.sin(2 * np.pi * 150 * time_s)).astype(np.float32)
    packets = [encoder.encode(hum[i * _FRAME : (i + 1) * _FRAME]) for i in range(50)]
    callers: list[LightCaller] = []

    async def talk(caller: LightCaller, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        async for _ in paced(_PERIOD_S):
            caller.send(type="response.create")

    session = {"type": "realtime", "instructions": BUSY}
    talks = []
    for index in range(count):
        caller = LightCaller(RATE_HZ, None, iter(packets * 10_000).__next__)
        await caller.call(port)
        caller.send(type="session.update", session=session)
        callers.append(caller)
        # Spread over the four seconds of a period, so that half of them are spoken to at any time.
        talks.append(asyncio.create_task(talk(caller, index * _PERIOD_S / count)))
    print(json.dumps({"calls": count}), flush=True)
    cpu_s, began_s = time.process_time(), time.monotonic()
    # The parent closes our input when it has measured, or when it ends in whatever way.
    await asyncio.to_thread(sys.stdin.read)
    share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
    print(json.dumps({"cpu_share": share}), flush=True)
    for task in talks:
        task.cancel()
    for caller in callers:
        await caller.close()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    args = parser.parse_args()
    asyncio.run(hold(args.port, args.calls))


if __name__ == "__main__":
    main()
