"""Several workers on one machine, a thread each, averaging their gradients every step.

On a few cores this beats one process with as many threads: small operations do not split well, and
a thread that the system puts aside holds up all others at every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import distributed

from model.training.memory import keep_freed_memory

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


def join(worker: int, num_workers: int, meeting: Path) -> None:
    """Enter the group of `num_workers` processes that share the file `meeting`; it must be new."""
    torch.set_num_threads(1)
    keep_freed_memory()
    if num_workers > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=worker, world_size=num_workers
        )


def leave() -> None:
    """Leave the group in good order, together with the others.

    A process that ends while the group's threads still run is aborted by the C++ runtime.
    """
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def rank() -> int:
    """Return this worker's number; 0 when alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of workers."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the workers, in one exchange."""
    if world_size() == 1:
        return
    # One worker's batch may have pictures in it and another's none. What a worker did not use has
    # no gradient there, which counts as zero: all must send as much.
    gradients = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    # One exchange of one long vector instead of one for each of some hundred tensors: each exchange
    # costs time, the bytes hardly do.
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def gather(mine: Tensor) -> list[Tensor]:
    """Return what each worker gives: vectors of one length and dtype, in the workers' order."""
    sent = mine.view(torch.uint8)  # the group knows no bf16
    received = [torch.empty_like(sent) for _ in range(world_size())]
    distributed.all_gather(received, sent)
    return [part.view(mine.dtype) for part in received]
