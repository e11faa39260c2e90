"""A duplex frame as one CUDA graph: codec, backbone, text, every codebook and the ring of tokens.

A captured graph does again, at the same addresses, what was done when it was captured. So there is
one for each of a few numbers of rows; a batch takes the smallest that it fits into, and rows of
nobody's fill it up. What a step reads, its inputs and where its rows lie in memory, is planned on
the host and copied into tensors that stay in place; nothing comes back before the frame does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import torch

from model.cache.plan import PagedPlan, paged_layers
from model.cache.state import LMState
from model.cache.store import LayerMemory
from model.errors import ConfigError


class Inputs(Protocol):
    """What a step reads besides memory: `FrameInputs` or `AudioInputs`."""

    def to(self, device: torch.device) -> Self:
        """Return the inputs on `device`."""
        ...

    def take(self, other: Self) -> None:
        """Let these tensors hold what `other` does, in place."""
        ...


class Frame(Protocol):
    """What a step gives: `DuplexFrame` or `AudioFrame`."""

    def first(self, num_rows: int) -> Self:
        """Return the frame without the rows that only filled up."""
        ...


InputsT = TypeVar("InputsT", bound=Inputs)
FrameT = TypeVar("FrameT", bound=Frame)
FrameT_co = TypeVar("FrameT_co", bound=Frame, covariant=True)
# Takes work whose tensors stay in place, and returns what does it again.
Capture: TypeAlias = "Callable[[Callable[[], FrameT]], Callable[[], FrameT]]"


class Driven(Protocol[InputsT, FrameT_co]):
    """What can be captured: a `Duplex` or an `AudioDuplex`, whose methods these are."""

    @property
    def state(self) -> LMState:
        """Return what the model remembers."""
        ...

    @property
    def num_slots(self) -> int:
        """Return how many conversations there can be."""
        ...

    def planned(
        self, slots: Sequence[int], num_rows: int | None = None
    ) -> tuple[list[list[int]], list[int]]:
        """Return the kinds and the model's slots of the next step."""
        ...

    def step(self, *args: Any, **kwargs: Any) -> FrameT_co:
        """Take a step without a graph."""
        ...

    def inputs(self, *args: Any, **kwargs: Any) -> InputsT:
        """Count a step in and return what it reads, on the host; takes what `step` does.

        `num_rows` besides says how many rows to fill up to.
        """
        ...

    def nothing(self, num_rows: int) -> InputsT:
        """Return what a step of nobody reads."""
        ...

    def frame(self, inputs: InputsT, memory: Sequence[LayerMemory | None]) -> FrameT_co:
        """Do a step that is planned and counted, on the device only."""
        ...


_WARM_UPS = 3  # kernels are compiled and libraries choose their algorithms in the first calls


def cuda_capture(work: Callable[[], FrameT]) -> Callable[[], FrameT]:
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

    def replay() -> FrameT:
        graph.replay()
        return result

    return replay


def buckets(num_slots: int) -> tuple[int, ...]:
    """Return the numbers of rows to capture: powers of two, and all slots."""
    # Six slots have graphs of 1, 2, 4 and 6 rows. A batch of three takes the graph of four, and its
    # last row is nobody's. A graph of every size would take more memory and longer to capture, and
    # save at most half of the rows.
    powers = [1 << i for i in range(num_slots.bit_length()) if 1 << i < num_slots]
    return (*powers, num_slots)


@dataclass(frozen=True, slots=True, eq=False)
class _Graph(Generic[InputsT, FrameT]):
    """The graph for one number of rows, and the tensors that it reads."""

    inputs: InputsT
    plans: tuple[PagedPlan, ...]
    replay: Callable[[], FrameT]


class FrameGraphs(Generic[InputsT, FrameT]):
    """Step a `Duplex` or `AudioDuplex` through captured graphs; captures them all at once.

    Args:
        driven: whose memory is read through tables of pages ("triton" or "reference").
        capture: `cuda_capture`; tests do the work again instead.
        sizes: numbers of rows to capture, ascending; those of `buckets` if None.

    Raises:
        ConfigError: the memory is read in another way.
    """

    def __init__(
        self,
        driven: Driven[InputsT, FrameT],
        capture: Capture[FrameT],
        sizes: Sequence[int] | None = None,
    ) -> None:
        reading = driven.state.reading
        if reading == "views":
            raise ConfigError(
                'frames can be captured where memory is read through tables, not "views"'
            )
        self._driven, self._backend = driven, reading
        self._sizes = tuple(sizes or buckets(driven.num_slots))
        self._graphs = [self._captured(size, capture) for size in self._sizes]

    @torch.inference_mode()
    def step(self, slots: Sequence[int], *given: Any) -> FrameT:
        """Do as `step` of what is driven. What is returned is good until the next step.

        Raises:
            OutOfPagesError: there is no memory for another step; nothing has happened then.
        """
        index = bisect_left(self._sizes, len(slots))
        assert index < len(self._sizes), (len(slots), self._sizes)
        graph, size = self._graphs[index], self._sizes[index]
        plans = self._plan(slots, size)
        graph.inputs.take(self._driven.inputs(slots, *given, num_rows=size))
        for mine, planned in zip(graph.plans, plans, strict=True):
            mine.take(planned)
        return graph.replay().first(len(slots))

    @torch.inference_mode()
    def _captured(self, size: int, capture: Capture[FrameT]) -> _Graph[InputsT, FrameT]:
        """Capture a step of rows that are all nobody's."""
        driven, state = self._driven, self._driven.state
        inputs = driven.nothing(size).to(state.device)
        plans = self._plan([], size)

        def work() -> FrameT:
            memory: list[LayerMemory | None] = []
            for plan, store in zip(plans, state.stores, strict=True):
                memory += paged_layers(plan, store, self._backend)
            return driven.frame(inputs, memory)

        return _Graph(inputs, plans, capture(work))

    def _plan(self, slots: Sequence[int], size: int) -> tuple[PagedPlan, ...]:
        """Plan a step of `slots` and of nobody in the rest of `size` rows, side by side."""
        plans = self._driven.state.plan_paged(*self._driven.planned(slots, size))
        assert None not in plans, "duplex steps enter at the first layer"
        return tuple(plan for plan in plans if plan is not None)
