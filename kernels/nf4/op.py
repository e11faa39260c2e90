"""NF4 quantisation and the linear layer over quantised weights: checked public calls.

The storage is that of bitsandbytes (`quant_type="nf4"`, block size 64): two levels a byte, the
first in the high nibble; fp32 scales, or those quantised as well. On a GPU a weight is brought into
another layout once, by `repack_nf4`, and multiplied by from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from kernels.arithmetic import ceil_div
from kernels.nf4 import layout, library, reference
from kernels.nf4.layout import PlanarWeight
from kernels.nf4.reference import BLOCK_SIZE, NestedScales
from kernels.triton_device import check_triton

Backend = Literal["reference", "bitsandbytes"]
PlanarBackend = Literal["reference", "triton"]

# A worked example of the storage: a weight of 2 rows of 64 is two blocks.
#
#     packed   uint8 [64]     byte i holds weight 2i in its high nibble and 2i + 1 in its low one
#     absmax   float32 [2]    the scale of row 0 and that of row 1
#
# A weight of 2 rows of 96 is three blocks, and the second one straddles the rows: 32 weights of row
# 0 and 32 of row 1. At rest that is allowed; the kernel's layout refuses it, because there each row
# has scales of its own.

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_MAX_BLOCKS = 2**31  # of a weight: the kernel counts them in 32 bits

_LINEAR: Mapping[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "reference": reference.linear,
    "bitsandbytes": library.linear,
}


def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight.

    Args:
        weight: floating point, any shape, finite.

    Returns:
        packed: uint8 [ceil(size / 2)]; absmax: float32 [ceil(size / 64)].

    Raises:
        ValueError: if the weight holds a value that no scale can carry.

    Source: Dettmers et al. 2023, "QLoRA", section 3 and appendix E.
    """
    if not weight.isfinite().all():
        raise ValueError("expected a finite weight, got inf or nan in it")
    return reference.quantize(weight)


def nest_nf4(absmax: Tensor) -> NestedScales:
    """Quantise the scales of a weight in their turn, as bitsandbytes' CPU kernel does.

    Args:
        absmax: float32 [blocks], at least one, finite.

    Raises:
        ValueError: for another type or shape, or a value that no scale can carry.

    Source: Dettmers et al. 2023, "QLoRA", section 3, double quantisation.
    """
    if absmax.dtype != torch.float32 or absmax.ndim != 1 or absmax.numel() == 0:
        raise ValueError(f"expected float32 [blocks], got {absmax.dtype} {list(absmax.shape)}")
    if not absmax.isfinite().all():
        raise ValueError("expected finite scales, got inf or nan among them")
    return reference.nest(absmax)


def dequantize_nf4(packed: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the weight that packed levels stand for.

    Args:
        packed: uint8 [ceil(size / 2)].
        absmax: float32 [ceil(size / 64)].
        shape: of the weight.

    Returns:
        float32 of the given shape.

    Raises:
        ValueError: if types or sizes do not belong together.
    """
    _check(packed, absmax, shape)
    return reference.dequantize(packed, absmax, shape)


def nf4_linear(
    x: Tensor, packed: Tensor, absmax: Tensor, out_features: int, *, backend: Backend
) -> Tensor:
    """Multiply by a quantised weight.

    Args:
        x: floating point [..., in_features].
        packed: uint8 [ceil(out_features * in_features / 2)].
        absmax: float32 [ceil(out_features * in_features / 64)].
        out_features: rows of the weight.
        backend: "reference" is plain PyTorch; "bitsandbytes" is that package's kernel for the
            device of `x`.

    Returns:
        [..., out_features] of the type of `x`.

    Raises:
        ValueError: if types or sizes do not belong together, or the backend cannot do them.
    """
    _check(packed, absmax, (out_features, x.shape[-1]))
    implementation = _LINEAR.get(backend)
    if implementation is None:
        raise ValueError(f"expected a backend out of {', '.join(_LINEAR)}, got {backend}")
    return implementation(x, packed, absmax, out_features)


def repack_nf4(
    packed: Tensor,
    scales: Tensor | NestedScales,
    shape: tuple[int, int],
    *,
    is_gated: bool = False,
) -> PlanarWeight:
    """Bring a weight into the layout of the Triton kernel. Nothing is rounded.

    Args:
        packed: uint8 [out_features * in_features / 2], as at rest.
        scales: float32 [out_features * in_features / 64], or the same quantised.
        shape: out_features, in_features. Rows may be of any number, and a multiple of 64 wide.
        is_gated: the first half of the rows are gates, the others what they gate; for
            `planar_gated`.

    Raises:
        ValueError: if types or sizes do not belong together, or blocks would straddle rows.
    """
    rows, width = shape
    if width % BLOCK_SIZE or 0 in shape:
        raise ValueError(
            f"NF4 weight {list(shape)}: expected rows a multiple of {BLOCK_SIZE} wide, "
            f"because a block of {BLOCK_SIZE} cannot straddle rows, got {width}"
        )
    if rows % 2 and is_gated:
        raise ValueError(
            f"NF4 weight {list(shape)}: expected as many gates as ups, got {rows} rows"
        )
    blocks = rows * width // BLOCK_SIZE
    if isinstance(scales, NestedScales):
        _check_part("packed", packed, torch.uint8, rows * width // 2, shape)
        _check_nested(scales, blocks)
    else:
        _check(packed, scales, shape)
    if blocks >= _MAX_BLOCKS:
        raise ValueError(f"NF4 weight {list(shape)}: expected fewer than 2**31 blocks")
    return layout.repack(packed, scales, shape, is_gated=is_gated)


def planar_linear(x: Tensor, weight: PlanarWeight, *, backend: PlanarBackend) -> Tensor:
    """Multiply by a repacked weight; sums are fp32.

    Args:
        x: float32, float16 or bfloat16 [..., in_features], at least one row.
        weight: from `repack_nf4`, not gated.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        [..., out_features] of the type of `x`.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.
    """
    if weight.is_gated:
        raise ValueError("expected a weight that is not gated; planar_gated multiplies by it")
    _check_planar(x, weight, backend)
    if backend == "reference":
        return reference.linear(x, *layout.unpack(weight), weight.out_features)
    from kernels.nf4 import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.multiply(x, weight)


def planar_gated(x: Tensor, weight: PlanarWeight, *, backend: PlanarBackend) -> Tensor:
    """Return `silu(gates) * ups`, gates and ups being the halves of a product in one weight.

    Args:
        x: float32, float16 or bfloat16 [..., in_features], at least one row.
        weight: from `repack_nf4`, gated.
        backend: as in `planar_linear`.

    Returns:
        [..., out_features / 2] of the type of `x`.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: Shazeer 2020, GLU variants improve transformer, section 2 (SwiGLU).
    """
    if not weight.is_gated:
        raise ValueError("expected a gated weight; planar_linear multiplies by others")
    _check_planar(x, weight, backend)
    if backend == "reference":
        return reference.gated(x, *layout.unpack(weight), weight.out_features)
    from kernels.nf4 import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.multiply(x, weight)


class NF4Linear(nn.Module):
    """Hold the weight of a bias-free linear layer in NF4.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        backend: as in `nf4_linear`.

    Attributes:
        packed: uint8 [ceil(out_features * in_features / 2)], buffer.
        absmax: float32 [ceil(out_features * in_features / 64)], buffer.
    """

    packed: Tensor
    absmax: Tensor

    def __init__(self, in_features: int, out_features: int, backend: Backend) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.backend: Backend = backend
        size = in_features * out_features
        blocks = ceil_div(size, BLOCK_SIZE)
        self.register_buffer("packed", torch.zeros(ceil_div(size, 2), dtype=torch.uint8))
        self.register_buffer("absmax", torch.zeros(blocks, dtype=torch.float32))

    @classmethod
    def from_linear(cls, linear: nn.Linear, backend: Backend) -> Self:
        """Quantise a linear layer that has no bias."""
        assert "bias" not in linear.state_dict(), "NF4Linear has no bias"
        quantised = cls(linear.in_features, linear.out_features, backend)
        packed, absmax = quantize_nf4(linear.weight)
        quantised.packed, quantised.absmax = packed, absmax
        return quantised

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]` to [..., out_features]."""
        return nf4_linear(x, self.packed, self.absmax, self.out_features, backend=self.backend)


def use_library(module: nn.Module) -> int:
    """Let bitsandbytes multiply by the NF4 linears within a module, in place.

    It multiplies wrongly where a block straddles rows: layers whose rows are not a multiple of 64
    wide stay as they are.

    Returns:
        How many layers were switched.

    Raises:
        ValueError: the package is not installed.
    """
    library.load_library()
    linears = [
        each
        for each in module.modules()
        if isinstance(each, NF4Linear) and each.in_features % BLOCK_SIZE == 0
    ]
    for each in linears:
        each.backend = "bitsandbytes"
    return len(linears)


def _check(packed: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    _check_part("packed", packed, torch.uint8, ceil_div(size, 2), shape)
    _check_part("absmax", absmax, torch.float32, ceil_div(size, BLOCK_SIZE), shape)


def _check_part(
    name: str, part: Tensor, dtype: torch.dtype, num: int, shape: tuple[int, ...]
) -> None:
    if part.dtype != dtype or part.shape != (num,):
        raise ValueError(
            f"NF4 weight {list(shape)}: expected {name} of {dtype} [{num}], "
            f"got {part.dtype} {list(part.shape)}"
        )


def _check_nested(scales: NestedScales, blocks: int) -> None:
    parts = (scales.levels, scales.code, scales.absmax, scales.offset)
    coarse = ceil_div(blocks, reference.NESTED_BLOCK_SIZE)
    expected = ((blocks,), (256,), (coarse,), ())
    types = (torch.uint8, torch.float32, torch.float32, torch.float32)
    got = tuple(tuple(part.shape) for part in parts)
    if got != expected or tuple(part.dtype for part in parts) != types:
        raise ValueError(
            f"nested scales: expected uint8 [{blocks}] and float32 [256], [{coarse}], [], got "
            + ", ".join(f"{part.dtype} {list(part.shape)}" for part in parts)
        )


def _check_planar(x: Tensor, weight: PlanarWeight, backend: str) -> None:
    if x.dtype not in _FLOATS:
        raise ValueError(f"expected fp32, fp16 or bf16, got {x.dtype}")
    if x.shape[-1:] != (weight.in_features,) or x.numel() == 0:
        raise ValueError(f"expected [..., {weight.in_features}], got {list(x.shape)}")
    if backend == "triton":
        check_triton(x, weight.words)
    elif backend != "reference":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
