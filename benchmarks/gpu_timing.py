"""Time kernels on a CUDA device: in graphs, on data that is not in the cache, against a ceiling.

A kernel of a few microseconds cannot be timed from Python, which takes longer to launch it. So the
calls are captured into one graph, each on data of its own, and replays of the graph are timed: what
a call takes is then what it takes inside a captured step, the gap to the next one included.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

_WARM_UP_CALLS = 3  # compile, choose algorithms, fill pools
_WARM_UP_REPLAYS = 5
_REPLAYS = 100
_MAX_COPIES = 128
_MIN_COPIES = 8
_CACHES_FILLED = 4  # the data of all calls is this many times the second-level cache
_CEILING_BYTES = 2**31
_CEILING_ROUNDS = 20
_PEAK_SIZE = 8192


@dataclass(frozen=True, slots=True)
class Timing:
    """What one call takes inside a graph.

    Attributes:
        median_us: of the replays.
        p99_us: the same, 99th percentile.
    """

    median_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this device can do, measured.

    Attributes:
        read_gb_s: memory read, by a reduction over 2 GiB.
        copy_gb_s: memory read and written, by a copy of 2 GiB; both directions counted.
        bf16_tflop_s: by a product of 8192 x 8192 matrices.
        launch_us: a kernel that does next to nothing, in a graph, the gap to the next one included.
    """

    read_gb_s: float
    copy_gb_s: float
    bf16_tflop_s: float
    launch_us: float


def num_copies(bytes_of_a_call: int, cache_bytes: int) -> int:
    """Return how many calls on data of their own it takes for none to find it in the cache."""
    # For example, with a cache of 50 MB and 2 MB a call: 100 calls hold 200 MB. When the first one
    # comes again its data has long been pushed out. With 25 MB a call it is 8, with 100 KB it would
    # be 2,000. A graph takes 128 of those at most, which then lie in the cache.
    needed = math.ceil(_CACHES_FILLED * cache_bytes / max(bytes_of_a_call, 1))
    # Eight at least: a call of one alone would have nothing behind it to overlap with.
    return min(max(needed, _MIN_COPIES), _MAX_COPIES)


def copies_that_fit(bytes_of_a_call: int) -> int:
    """Return `num_copies` for this device, fewer where memory does not hold them.

    Making data takes more than the data does, hence the quarter.
    """
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    cache_bytes = torch.cuda.get_device_properties().L2_cache_size
    return max(min(num_copies(bytes_of_a_call, cache_bytes), free // (4 * bytes_of_a_call)), 1)


def time_in_graph(calls: Sequence[Callable[[], object]]) -> Timing:
    """Time calls of one kind, captured into one graph.

    Args:
        calls: each on data of its own, and safe to capture: no synchronisation.

    Returns:
        The time of one call.
    """
    # PyTorch documentation, "CUDA graphs": work is warmed up on another stream before it is
    # captured, since what is done once (compiling, choosing algorithms) must not be captured.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_CALLS):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    for _ in range(_WARM_UP_REPLAYS):
        # A GPU that was idle runs at a low clock; some replays later it does not.
        graph.replay()
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(_REPLAYS + 1)
    ]
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    # A mark is stamped by the device between two replays, so nothing of Python is in the
    # difference.
    times_us = [
        1000 * begin.elapsed_time(end) / len(calls) for begin, end in itertools.pairwise(marks)
    ]
    return Timing(
        round(float(np.median(times_us)), 2), round(float(np.percentile(times_us, 99)), 2)
    )


def measure_ceilings() -> Ceilings:
    """Measure what this device can do."""
    read_us, copy_us = _read_and_copy_us()
    factor = torch.randn((_PEAK_SIZE, _PEAK_SIZE), dtype=torch.bfloat16, device="cuda")
    # 2 · 8,192³ operations are 1.1e12. What the device reaches here is a fairer ceiling than the
    # data sheet, whose clock it does not keep under load.
    product = time_in_graph([lambda: factor @ factor.T] * _CEILING_ROUNDS)
    one = torch.zeros(1, device="cuda")
    empty = time_in_graph([partial(one.add_, 1)] * (10 * _CEILING_ROUNDS))
    return Ceilings(
        read_gb_s=round(_CEILING_BYTES / read_us / 1e3, 1),
        copy_gb_s=round(2 * _CEILING_BYTES / copy_us / 1e3, 1),
        bf16_tflop_s=round(2 * _PEAK_SIZE**3 / product.median_us / 1e6, 1),
        launch_us=empty.median_us,
    )


def _read_and_copy_us() -> tuple[float, float]:
    """Return the times of reading and of copying `_CEILING_BYTES`; the memory is free after."""
    # 2 GiB are far more than any cache holds.
    source = torch.randn(_CEILING_BYTES // 4, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    read = time_in_graph([source.sum] * _CEILING_ROUNDS)
    copy = time_in_graph([partial(target.copy_, source)] * _CEILING_ROUNDS)
    return read.median_us, copy.median_us
