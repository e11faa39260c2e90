"""Ask PyTorch and Triton what they can do here; prints one JSON object.

A program of its own: a driver that does not fit can end a process or hang it, and whoever asks has
to go on. `python -m server.doctor.gpu_probe DEVICE COMPILE`: the second is 1 to run a kernel.
"""

import json
import sys
from typing import Any

import torch


def probe(device: str, *, compiles: bool) -> dict[str, object]:
    """Return what there is: versions, the device, and what a kernel made of three zeros."""
    found: dict[str, object] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "available": torch.cuda.is_available(),
    }
    if not torch.cuda.is_available():
        return found
    properties = torch.cuda.get_device_properties(device)
    found |= {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "memory_bytes": properties.total_memory,
        "free_bytes": torch.cuda.mem_get_info(device)[0],
        "built_for": torch.cuda.get_arch_list(),
        "count": torch.cuda.device_count(),
    }
    numbers = torch.zeros(3, device=device)
    found["sum"] = float((numbers + 1).sum())
    if compiles:
        try:
            found |= _kernel(numbers, device)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told
            # What a compiler says has many lines.
            lines = str(error).strip().splitlines() or ["without a word"]
            found["kernel_failure"] = f"{type(error).__name__}: {lines[0]}"
    return found


def _kernel(numbers: torch.Tensor, device: str) -> dict[str, object]:
    """Run a kernel on three numbers; returns what came of it, and Triton's version."""
    # It may not be installed, which is no reason to know nothing of the GPU.
    from server.doctor.gpu_kernel import VERSION, add_one  # noqa: PLC0415

    launch: Any = add_one[(1,)]
    with torch.cuda.device(device):
        launch(numbers, 3, BLOCK=4)
    return {"triton": VERSION, "kernel": numbers.tolist()}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], compiles=sys.argv[2] == "1")))
