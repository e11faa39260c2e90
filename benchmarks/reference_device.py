"""Kyutai's own package and ours on a GPU: Moshi's 7B and Mimi, each alone on the device.

Regime: random weights made on the device, bf16, and ours also in NF4; greedy; a step takes tokens
in and brings tokens out to the host. Theirs runs as it comes, with its CUDA graphs. Each is made,
timed and dropped before the next, since two do not fit beside their keys and values.

The floor is what a step cannot be faster than: the weights read once, or the products done,
whatever takes longer, and the keys and values that there are so far read once. Bandwidth and
product rate are those of the device itself, measured by a copy and a large product. Theirs reads
its whole ring from the first step on; the floor does not.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.random_lm import fill, random_lm, streamed
from benchmarks.reference import lm_sizes, moshi, our_mimi, their_mimi
from benchmarks.reference_lanes import (
    OURS,
    THEIRS,
    Step,
    Times,
    our_lm_step,
    our_mimi_steps,
    synchronise,
    their_lm_step,
    their_mimi_steps,
)
from benchmarks.reference_sizes import SEVEN_B, TINY, Sizes, Values
from benchmarks.report import Row

LANES = ("theirs bf16", "ours bf16", "ours NF4")

_WARM_UP_FRAMES = 6


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does at best.

    Attributes:
        bytes_per_s: read, of a large copy.
        flops_per_s: of a large product in bf16.
    """

    bytes_per_s: float
    flops_per_s: float

    @classmethod
    def of(cls, device: str, width: int) -> Rates:
        """Measure a device with squares of some width."""
        source = torch.zeros(width * width, dtype=torch.bfloat16, device=device)
        target = torch.empty_like(source)
        square = torch.randn(width, width, dtype=torch.bfloat16, device=device)
        return cls(
            # A copy reads and writes each byte.
            2 * source.nbytes / _best_s(lambda: target.copy_(source)),
            2 * width**3 / _best_s(lambda: square @ square),
        )

    def floor_ms(self, read: int, multiplied: int, kv: int) -> float:
        """Return what a step takes at least.

        Args:
            read: bytes of weights.
            multiplied: numbers of the weights, times rows.
            kv: bytes of keys and values.
        """
        products_s = 2 * multiplied / self.flops_per_s
        return 1000 * (max(read / self.bytes_per_s, products_s) + kv / self.bytes_per_s)


def measure_device(
    device: str, batches: Sequence[int], num_frames: int, *, is_tiny: bool = False
) -> list[Row]:
    """Time language models and codecs on a device.

    Args:
        device: "cuda"; "cpu" to see that it all runs.
        batches: sessions at once.
        num_frames: that are timed.
        is_tiny: take tiny models.

    Returns:
        For each batch a row for each language model and each way of the codec: milliseconds of
        theirs and ours and the ratio; for language models also the floor of ours, how far ours is
        above it, and the peak memory.
    """
    sizes = TINY if is_tiny else SEVEN_B
    rates = Rates.of(device, 256 if is_tiny else 8192)
    rows: list[Row] = []
    for batch in batches:
        rows += lm_rows(device, sizes.lm, batch, num_frames, rates)
    return rows + mimi_rows(device, sizes, batches, num_frames)


def lm_rows(device: str, values: Values, batch: int, num_frames: int, rates: Rates) -> list[Row]:
    """Time one step of each language model, of young sessions."""
    user = torch.zeros(batch, 8, dtype=torch.int64, device=device)
    taken: dict[str, tuple[float, float, float | str]] = {}
    for lane in LANES:
        _forget(device)
        times = Times()
        with _lm_lane(lane, device, values, batch) as (step, module):
            for frame in range(_WARM_UP_FRAMES + num_frames):
                times.of(lane, step, user, is_counted=frame >= _WARM_UP_FRAMES)
            # As many as there are in the middle of the frames that are timed.
            kv = _kv_bytes(values, batch, _WARM_UP_FRAMES + num_frames // 2)
            read, multiplied = streamed(module)
            floor_ms = rates.floor_ms(read, multiplied * batch, kv)
            taken[lane] = (times.medians()[lane], floor_ms, _peak_gb(device))
    theirs_ms, _, theirs_gb = taken[LANES[0]]
    return [
        {
            "what": f"LM step, {lane}",
            "batch": batch,
            "theirs ms": theirs_ms,
            "ours ms": ms,
            "ratio": round(theirs_ms / ms, 2),
            "floor ms": round(floor_ms, 3),
            "over floor": round(ms / floor_ms, 2),
            "theirs over floor": round(theirs_ms / taken[LANES[1]][1], 2),
            "theirs GB": theirs_gb,
            "ours GB": gb,
        }
        for lane, (ms, floor_ms, gb) in taken.items()
        if lane != LANES[0]
    ]


def mimi_rows(device: str, sizes: Sizes, batches: Sequence[int], num_frames: int) -> list[Row]:
    """Time a frame of the codecs each way, in float32."""
    theirs = their_mimi(sizes.mimi)
    ours = our_mimi(theirs, sizes.mimi).to(device)
    theirs = theirs.to(device)
    rows: list[Row] = []
    for batch in batches:
        encoding, decoding = Times(), Times()
        pcm = 0.1 * torch.randn(batch, ours.frame_samples, device=device)
        with their_mimi_steps(theirs, batch) as their_steps:
            for lane, (encode, decode) in (
                (THEIRS, their_steps),
                (OURS, our_mimi_steps(ours, batch)),
            ):
                for frame in range(_WARM_UP_FRAMES + num_frames):
                    is_counted = frame >= _WARM_UP_FRAMES
                    codes = encoding.of(lane, encode, pcm, is_counted=is_counted)
                    decoding.of(lane, decode, codes, is_counted=is_counted)
        for what, times in (("Mimi encode", encoding), ("Mimi decode", decoding)):
            ms = times.medians()
            rows.append(
                {
                    "what": what,
                    "batch": batch,
                    "theirs ms": ms[THEIRS],
                    "ours ms": ms[OURS],
                    "ratio": round(ms[THEIRS] / ms[OURS], 2),
                    **dict.fromkeys(
                        ("floor ms", "over floor", "theirs over floor", "theirs GB", "ours GB"), "-"
                    ),
                }
            )
    return rows


@contextmanager
def _lm_lane(
    lane: str, device: str, values: Values, batch: int
) -> Iterator[tuple[Step, nn.Module]]:
    """Make a model with random weights on the device, and let it step."""
    if lane == LANES[0]:
        loaders = moshi("models.loaders")
        sizes = lm_sizes(values)
        theirs = loaders.get_moshi_lm(None, sizes, device="meta", dtype=torch.bfloat16)
        # Made where they are used: 7B would take 15 GB of the host's memory on the way.
        theirs = theirs.to_empty(device=device)
        for name, weight in theirs.named_parameters():
            fill(name, weight)
        with their_lm_step(theirs, batch) as step:
            yield step, theirs
        return
    ours = random_lm(values, "nf4" if lane == LANES[2] else "bf16", device)
    yield our_lm_step(ours, values, batch), ours


def _kv_bytes(values: Values, batch: int, num_steps: int) -> int:
    """Return the bytes of keys and values of sessions that have taken some steps, in bf16."""
    held = min(num_steps, int(values["context"]))
    return batch * held * 2 * int(values["num_layers"]) * int(values["dim"]) * 2


def _best_s(call: Callable[[], Tensor], tries: int = 10) -> float:
    """Return the median time of a call, warmed up."""
    spent = []
    for attempt in range(3 + tries):
        synchronise()
        start_s = time.perf_counter()
        call()
        synchronise()
        if attempt >= 3:
            spent.append(time.perf_counter() - start_s)
    return median(spent)


def _forget(device: str) -> None:
    """Give back what the model before had, and begin to measure the peak anew."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: str) -> float | str:
    """Return the most memory in use since then; a dash elsewhere than on a GPU."""
    if not device.startswith("cuda"):
        return "-"
    return round(torch.cuda.max_memory_allocated() / 1e9, 2)
