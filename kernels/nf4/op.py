"""NF4 quantisation and the linear layer over quantised weights: checked public calls.

The storage is that of bitsandbytes (`quant_type="nf4"`, block size 64, no double quantisation):
two levels a byte, the first in the high nibble; fp32 scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from kernels.nf4 import reference

Backend = Literal["reference"]

_LINEAR: Mapping[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "reference": reference.linear,
}


def quantize_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight.

    Args:
        weight: floating point, any shape, finite.

    Returns:
        packed: uint8 [ceil(size / 2)]; absmax: float32 [ceil(size / 64)].

    Raises:
        ValueError: if the weight holds a value that no scale can carry.
    """
    if not weight.isfinite().all():
        raise ValueError("expected a finite weight, got inf or nan in it")
    return reference.quantize(weight)


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
        backend: "reference" is plain PyTorch.

    Returns:
        [..., out_features] of the type of `x`.

    Raises:
        ValueError: if types or sizes do not belong together.
    """
    _check(packed, absmax, (out_features, x.shape[-1]))
    implementation = _LINEAR.get(backend)
    if implementation is None:
        raise ValueError(f"expected a backend out of {', '.join(_LINEAR)}, got {backend}")
    return implementation(x, packed, absmax, out_features)


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
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        size = in_features * out_features
        blocks = -(-size // reference.BLOCK_SIZE)
        self.register_buffer("packed", torch.zeros(-(-size // 2), dtype=torch.uint8))
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


def _check(packed: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    expected = ((-(-size // 2),), (-(-size // reference.BLOCK_SIZE),))
    if (tuple(packed.shape), tuple(absmax.shape)) != expected:
        raise ValueError(
            f"NF4 weight {list(shape)}: expected packed and absmax of {expected[0][0]} and "
            f"{expected[1][0]} entries, got {list(packed.shape)} and {list(absmax.shape)}"
        )
    if packed.dtype != torch.uint8 or absmax.dtype != torch.float32:
        raise ValueError(f"expected uint8 and float32, got {packed.dtype} and {absmax.dtype}")
