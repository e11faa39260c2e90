"""Linear layers over int8 weights: checked public calls.

On a CPU, one step of a small model costs what it costs to read the weights; int8 reads a quarter
of fp32. Activations are bf16, sums fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from kernels.int8 import reference

Backend = Literal["reference", "aten"]

_ATEN_MULTIPLE = 16  # the CPU kernel reads 16 inputs at a time and does not check the last ones


def _aten_linear(x: Tensor, levels: Tensor, scale: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y = torch._weight_int8pack_mm(rows, levels, scale)  # noqa: SLF001 - the only name it has
    return y.view(*x.shape[:-1], len(levels))


_LINEAR: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "reference": reference.linear,
    "aten": _aten_linear,
}


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight, row by row, symmetrically.

    Args:
        weight: floating point [out_features, in_features].

    Returns:
        levels: int8 [out_features, in_features]; scale: bfloat16 [out_features]. The weight is
        about `levels * scale[:, None]`.
    """
    return reference.quantize(weight)


def int8_linear(x: Tensor, levels: Tensor, scale: Tensor, *, backend: Backend) -> Tensor:
    """Multiply by an int8 weight.

    Args:
        x: bfloat16 [..., in_features].
        levels: int8 [out_features, in_features].
        scale: bfloat16 [out_features].
        backend: "reference" is plain PyTorch; "aten" is PyTorch's CPU kernel, fast for few rows,
            for inputs that are a multiple of 16 wide.

    Returns:
        bfloat16 [..., out_features].

    Raises:
        ValueError: if types or sizes do not belong together or the backend cannot do them.
    """
    if x.dtype != torch.bfloat16 or levels.dtype != torch.int8 or scale.dtype != torch.bfloat16:
        raise ValueError(
            f"expected bfloat16, int8, bfloat16, got {x.dtype}, {levels.dtype}, {scale.dtype}"
        )
    if x.shape[-1:] != levels.shape[1:] or scale.shape != levels.shape[:1]:
        raise ValueError(
            f"expected [..., in], [out, in], [out], got {list(x.shape)}, {list(levels.shape)}, "
            f"{list(scale.shape)}"
        )
    implementation = _LINEAR.get(backend)
    if implementation is None:
        raise ValueError(f"expected a backend out of {', '.join(_LINEAR)}, got {backend}")
    if backend == "aten" and levels.shape[1] % _ATEN_MULTIPLE:
        raise ValueError(
            f"backend aten: expected inputs a multiple of {_ATEN_MULTIPLE} wide, "
            f"got {levels.shape[1]}"
        )
    return implementation(x, levels, scale)


class Int8Linear(nn.Module):
    """Hold the weight of a bias-free linear layer in int8; the output is bfloat16.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        backend: as in `int8_linear`.

    Attributes:
        levels: int8 [out_features, in_features], buffer.
        scale: bfloat16 [out_features], buffer.
    """

    levels: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, backend: Backend) -> None:
        super().__init__()
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        levels = torch.zeros((out_features, in_features), dtype=torch.int8)
        self.register_buffer("levels", levels)
        self.register_buffer("scale", torch.ones(out_features, dtype=torch.bfloat16))
        # Checked once here, for the sizes cannot change: the call is too hot to check each time.
        int8_linear(
            torch.zeros((1, in_features), dtype=torch.bfloat16),
            self.levels,
            self.scale,
            backend=backend,
        )
        self._linear = _LINEAR[backend]

    @classmethod
    def from_linear(cls, linear: nn.Linear, backend: Backend) -> Self:
        """Quantise a linear layer that has no bias."""
        assert "bias" not in linear.state_dict(), "Int8Linear has no bias"
        quantised = cls(linear.in_features, linear.out_features, backend)
        quantised.levels, quantised.scale = quantize_int8(linear.weight)
        return quantised

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]`, any floating type, to bfloat16 [..., out_features]."""
        return self._linear(x.bfloat16(), self.levels, self.scale)
