"""Those that `bench_reference` compares: each takes a frame of all its sessions at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.reference import moshi
from benchmarks.reference_sizes import Values
from model.cache.store import MemoryConfig
from model.codec.mimi import Mimi
from model.duplex.accelerate import page_steps_on, reading_on, stepper
from model.duplex.driver import Duplex, DuplexConfig
from model.transformer.lm import LM

THEIRS, EAGER, COMPILED, OURS = "theirs", "theirs, eager", "theirs, compiled", "ours"

Step = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Times:
    """Milliseconds that each lane took for a frame, by lane.

    Attributes:
        frames: one entry a frame.
    """

    frames: dict[str, list[float]] = field(default_factory=dict)

    def of(self, lane: str, step: Step, frame: Tensor, *, is_counted: bool = True) -> Tensor:
        """Let a lane take a frame; returns what it gave."""
        # A GPU works on after the call has returned. Without waiting, a lane would pay for the one
        # before it.
        synchronise()
        start_s = now_s()
        out = step(frame)
        synchronise()
        if is_counted:
            self.frames.setdefault(lane, []).append(1000 * (now_s() - start_s))
        return out

    def medians(self) -> dict[str, float]:
        """Return the median of each lane."""
        return {lane: round(median(times), 3) for lane, times in self.frames.items()}


def now_s() -> float:
    """Return a time to count from.

    Where one thread does it all it is that thread's own, which stands still while the machine does
    something else.
    """
    if torch.get_num_threads() == 1 and not torch.cuda.is_available():
        return time.thread_time()
    return time.perf_counter()


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def their_lm_step(theirs: Any, batch: int) -> Iterator[Step]:  # a package without types
    """Give the whole of their `LMGen.step`, greedy: codes [B, 8] in, tokens [B, 9] on the host."""
    # Greedy, so that both can be compared token by token.
    generator = moshi("models").LMGen(theirs, use_sampling=False, support_out_of_sync=True)

    def step(user: Tensor) -> Tensor:
        out: Tensor = generator.step(user[:, :, None])
        return out[:, :, 0].cpu()

    with torch.no_grad(), generator.streaming(batch):
        yield step


def our_lm_step(ours: LM, values: Values, batch: int) -> Step:
    """Return the whole of our step, on a GPU as a graph; the same in and out."""
    device = ours.norm.weight.device
    memory = MemoryConfig(page_steps=page_steps_on(device, 16), reading=reading_on(device))
    duplex = Duplex(ours, DuplexConfig(delays=tuple(values["delays"])), batch, memory=memory)
    step = stepper(duplex, (batch,))
    slots = range(batch)
    return lambda user: step(slots, user).tokens.cpu()


@contextlib.contextmanager
def their_mimi_steps(theirs: Any, batch: int) -> Iterator[tuple[Step, Step]]:
    """Give their streaming encoder and decoder: pcm [B, 1920] to codes [B, 1, 8], and back."""

    def encode(pcm: Tensor) -> Tensor:
        codes: Tensor = theirs.encode(pcm[:, None])
        return codes.transpose(1, 2)

    def decode(codes: Tensor) -> Tensor:
        pcm: Tensor = theirs.decode(codes.transpose(1, 2))
        return pcm[:, 0]

    with torch.no_grad(), theirs.streaming(batch):
        yield encode, decode


def our_mimi_steps(ours: Mimi, batch: int, *, is_full: bool = True) -> tuple[Step, Step]:
    """Return ours; the same in and out.

    Args:
        ours: the codec.
        batch: sessions.
        is_full: whether the sessions are older than the window. Theirs reads the whole window from
            the first frame on.
    """
    encoder, decoder = ours.init_encoder_state(batch), ours.init_decoder_state(batch)
    if is_full:
        for state in (encoder, decoder):
            # A session that is as old as its window reads all of it; its numbers do not matter for
            # the time.
            state.steps.fill_(state.window)
    return (
        lambda pcm: ours.encode_step(pcm, encoder),
        lambda codes: ours.decode_step(codes, decoder),
    )


def ways(*, compiles: bool) -> Sequence[tuple[str, contextlib.AbstractContextManager[None]]]:
    """Return how theirs is run: eager, and as it comes, with parts of itself compiled."""
    eager = moshi("utils.compile").no_compile
    return [(EAGER, eager()), *([(COMPILED, contextlib.nullcontext())] if compiles else [])]
