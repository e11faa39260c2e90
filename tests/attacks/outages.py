"""An engine that dies, or hangs, in the middle of a reply: the call goes on."""

import asyncio
import os
import signal
import time

from tests.attacks.harness import IN_PROCESS, Attack, Target, is_ready

# In the middle of the victim's reply.
_WHEN_S = 2.3
_NOT_READY_S = 8.0


async def kill(target: Target) -> None:
    """End the engine's process."""
    await asyncio.sleep(_WHEN_S)
    os.kill(target.engine_pid, signal.SIGKILL)


async def hang(target: Target) -> None:
    """Stop it, so that it says nothing; nobody new is let in then."""
    await asyncio.sleep(_WHEN_S)
    os.kill(target.engine_pid, signal.SIGSTOP)
    deadline_s = time.monotonic() + _NOT_READY_S
    while await asyncio.to_thread(is_ready, target):
        assert time.monotonic() < deadline_s, "the server took itself for ready"
        await asyncio.sleep(0.1)


ATTACKS = [
    Attack("a killed engine", kill, IN_PROCESS, is_outage=True),
    Attack("a hung engine", hang, IN_PROCESS, is_outage=True),
]
