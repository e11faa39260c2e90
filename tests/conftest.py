"""What every test runs under: one computing thread, seeded draws, and nothing left behind."""

import asyncio
import os
import random
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

# Before torch or numpy start their pools: small models are faster on one thread, and two test
# processes on two cores then do not fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import structlog
import torch

# Without a device, kernels are tested in Triton's interpreter. Triton reads this when it is first
# imported, which other libraries do as well.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A test that is slow on a machine that is busy has not failed.
hypothesis.settings.register_profile(
    "parley", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("parley")

# Threads that a library keeps for the life of the process, and that no test of ours started.
_LIBRARY_THREADS = ("pymp-", "ThreadPoolExecutor-", "tqdm_", "pytest_timeout")
# How long a thread that was told to stop may take to be gone.
_STOP_GRACE_S = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the golden cases come from somewhere else."""
    bundled = Path(__file__).parent / "golden"
    parser.addoption("--golden", type=Path, default=bundled, help="directory of golden cases")
    parser.addoption("--seed", type=int, help="repeat a run of the live comparison that failed")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """Directory of cases: small seeded weights, and what Kyutai's own package made of them."""
    directory: Path = request.config.getoption("--golden")
    return directory


@pytest.fixture
def fresh_seed(request: pytest.FixtureRequest) -> int:
    """Draw other weights and inputs in every run, and print what repeats a run that failed."""
    given: int | None = request.config.getoption("--seed")
    seed = secrets.randbits(32) if given is None else given
    print(f"to repeat this: --seed {seed}")  # noqa: T201 - shown with a failure
    torch.manual_seed(seed)
    return seed


@pytest.fixture
def moshi_package() -> ModuleType:
    """Return Kyutai's package."""
    reason = "needs Kyutai's package: make test-reference"
    package: ModuleType = pytest.importorskip("moshi.models", reason=reason)
    return package


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same draws, whatever ran before it."""
    random.seed(0)
    # Some libraries still draw from numpy's global generator.
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Fail a test that changes for all others what is logged."""
    before = structlog.get_config()
    yield
    changed = {key for key, value in structlog.get_config().items() if value != before[key]}
    assert not changed, f"structlog is configured otherwise than before: {changed}"


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a thread of ours running."""
    before = set(threading.enumerate())
    yield
    leftover = _ours_since(before)
    deadline_s = time.monotonic() + _STOP_GRACE_S
    for thread in leftover:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    still_running = [thread.name for thread in leftover if thread.is_alive()]
    assert not still_running, f"threads left running: {still_running}"


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    """Fail an asynchronous test that asks for this and leaves a task in its loop."""
    before = asyncio.all_tasks()
    yield
    # One turn of the loop lets tasks that were just cancelled finish.
    await asyncio.sleep(0)
    leftover = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not leftover, f"tasks left running: {[task.get_name() for task in leftover]}"


def _ours_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and thread is not threading.current_thread()
        and not thread.name.startswith(_LIBRARY_THREADS)
    ]
