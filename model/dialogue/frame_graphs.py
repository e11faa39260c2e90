"""A duplex step as one CUDA graph: backbone, text, every codebook and the ring of tokens.

A captured graph does again, at the same addresses, what was done when it was captured. So there is
one for each of a few numbers of rows; a batch takes the smallest that it fits into, and rows of
nobody's fill it up. What a step reads, its inputs and where its rows lie in memory, is planned on
the host and copied into tensors that stay in place; nothing comes back before the tokens do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from model.dialogue.duplex import Duplex, DuplexFrame, FrameInputs
from model.errors import ConfigError
from model.memory import LayerMemory
from model.plan import PagedPlan, paged_layers

Work: TypeAlias = "Callable[[], DuplexFrame]"
# Takes work whose tensors stay in place, and returns what does it again.
Capture: TypeAlias = "Callable[[Work], Work]"

_WARM_UPS = 3  # kernels are compiled and libraries choose their algorithms in the first calls


def cuda_capture(work: Work) -> Work:
    """Capture `work` as a CUDA graph; it is run a few times before.

    Source: CUDA C++ programming guide, "CUDA graphs: creating a graph using stream capture".
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> DuplexFrame:
        graph.replay()
        return result

    return replay


def buckets(num_slots: int) -> tuple[int, ...]:
    """Return the numbers of rows to capture: powers of two, and all slots."""
    powers = [1 << i for i in range(num_slots.bit_length()) if 1 << i < num_slots]
    return (*powers, num_slots)


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """One captured number of rows: what it reads, and what does it."""

    inputs: FrameInputs
    plans: tuple[PagedPlan, ...]
    replay: Work


class FrameGraphs:
    """Step a `Duplex` through captured graphs; captures them all at once.

    Args:
        duplex: whose memory is read through tables of pages ("triton" or "reference"), and whose
            conditions, if it has any, were set once: where they lie is captured too.
        capture: `cuda_capture`; tests do the work again instead.
        sizes: numbers of rows to capture, ascending; those of `buckets` if None.

    Raises:
        ConfigError: the memory is read in another way.
    """

    def __init__(
        self, duplex: Duplex, capture: Capture, sizes: Sequence[int] | None = None
    ) -> None:
        reading = duplex.state.reading
        if reading == "views":
            raise ConfigError(
                'frames can be captured where memory is read through tables, not "views"'
            )
        self._duplex, self._backend = duplex, reading
        self._sizes = tuple(sizes or buckets(duplex.num_slots))
        self._conditions = self._where_conditions_are()
        self._graphs = [self._captured(size, capture) for size in self._sizes]

    @torch.inference_mode()
    def step(
        self,
        slots: Sequence[int],
        user: Tensor,
        forced: Tensor | None = None,
        noise: Sequence[torch.Generator] = (),
    ) -> DuplexFrame:
        """Do as `Duplex.step`. What is returned is good until the next step.

        Raises:
            OutOfPagesError: there is no memory for another step; nothing has happened then.
        """
        assert self._where_conditions_are() == self._conditions, "conditions came after capture"
        duplex = self._duplex
        index = bisect_left(self._sizes, len(slots))
        assert index < len(self._sizes), (len(slots), self._sizes)
        graph, size = self._graphs[index], self._sizes[index]
        plans = self._plan(slots, size)
        graph.inputs.take(duplex.inputs(slots, user, forced, noise, size))
        for mine, planned in zip(graph.plans, plans, strict=True):
            mine.take(planned)
        return graph.replay().first(len(slots))

    @torch.inference_mode()
    def _captured(self, size: int, capture: Capture) -> _Graph:
        """Capture a step of rows that are all nobody's."""
        duplex, state = self._duplex, self._duplex.state
        user = torch.zeros((0, duplex.num_user), dtype=torch.int64, device=state.device)
        inputs = duplex.inputs([], user, None, (), size)
        plans = self._plan([], size)

        def work() -> DuplexFrame:
            memory: list[LayerMemory | None] = []
            for plan, store in zip(plans, state.stores, strict=True):
                memory += paged_layers(plan, store, self._backend)
            return duplex.frame(inputs, memory)

        return _Graph(inputs, plans, capture(work))

    def _plan(self, slots: Sequence[int], size: int) -> tuple[PagedPlan, ...]:
        """Plan a step of `slots` and of nobody in the rest of `size` rows, side by side."""
        plans = self._duplex.state.plan_paged(*self._duplex.planned(slots, size))
        assert None not in plans, "duplex steps enter at the first layer"
        return tuple(plan for plan in plans if plan is not None)

    def _where_conditions_are(self) -> tuple[int | None, ...]:
        state = self._duplex.state
        return tuple(None if t is None else t.data_ptr() for t in (state.added, state.cross))
