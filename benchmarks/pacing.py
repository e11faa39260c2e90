"""Do something again and again, in step with real time."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator


async def paced(period_s: float) -> AsyncIterator[int]:
    """Count from 0 on, one a period; the first comes at once.

    What is done in between may take long now and then: the next one comes when it is due, or at
    once where that is past. So no delay adds up.
    """
    due_s = time.monotonic()
    for number in itertools.count():
        yield number
        due_s += period_s
        await asyncio.sleep(due_s - time.monotonic())
