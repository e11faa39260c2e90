"""Linear layers whose weights lie as the CPU's library reads them: packed once, at load."""

from kernels.packed.op import (
    MIN_ROWS,
    PackedLinear,
    can_pack,
    linear,
    pack,
    scaled_linear,
    use_packed,
)

__all__ = [
    "MIN_ROWS",
    "PackedLinear",
    "can_pack",
    "linear",
    "pack",
    "scaled_linear",
    "use_packed",
]
