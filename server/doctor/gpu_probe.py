"""Ask PyTorch and Triton what they can do here; prints one JSON object.

A program of its own: a driver that does not fit can end a process or hang it, and whoever asks has
to go on. `python -m server.doctor.gpu_probe DEVICE COMPILE`: the second is 1 to run a kernel.
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202

import json
import sys

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def _add_one(x_ptr, size, BLOCK: tl.constexpr):
    """Add one to `size` float32 numbers."""
    at = tl.arange(0, BLOCK)
    numbers = tl.load(x_ptr + at, mask=at < size)
    tl.store(x_ptr + at, numbers + 1, mask=at < size)


def probe(device: str, *, compiles: bool) -> dict[str, object]:
    """Return what there is: versions, the device, and what a kernel made of three zeros."""
    found: dict[str, object] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
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
        with torch.cuda.device(device):
            _add_one[(1,)](numbers, 3, BLOCK=4)
        found["kernel"] = numbers.tolist()
    return found


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], compiles=sys.argv[2] == "1")))
