"""Linear layers over int8 weights: checked public calls.

Int8 reads half of what bf16 does, a quarter of fp32, and few rows cost what reading the weights
costs. Sums are fp32.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from kernels.arithmetic import ceil_div
from kernels.int8 import reference
from kernels.packed import can_pack, pack, scaled_linear
from kernels.triton_device import check_triton

Backend = Literal["reference", "aten", "triton"]

_BACKENDS = ("reference", "aten", "triton")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_ATEN_MULTIPLE = 16  # the CPU kernel reads 16 inputs at a time and does not check the last ones
# The CPU kernel goes through the weight anew for every row. The product of bf16, which holds the
# levels exactly, does not, and reads twice the bytes: 64 rows take a third of the time on an EPYC
# with AVX512-BF16. Eight rows take as long either way by themselves, and longer within a model,
# whose weights do not stay in the cache.
_MANY_ROWS = 32
_MOST_ROWS = 64  # at once; more are done in parts


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight, row by row, symmetrically.

    Args:
        weight: floating point [out_features, in_features].

    Returns:
        levels: int8 [out_features, in_features]; scale: bfloat16 [out_features]. The weight is
        about `levels * scale[:, None]`.
    """
    return reference.quantize(weight)


def tile_counters(out_features: int) -> Tensor:
    """Return what lets programs of the Triton kernel share a tile, int32 [tiles], zeros."""
    tiles = ceil_div(out_features, reference.MIN_TILE) * reference.MAX_ROW_TILES
    return torch.zeros(tiles, dtype=torch.int32)


def int8_linear(
    x: Tensor, levels: Tensor, scale: Tensor, *, backend: Backend, arrived: Tensor | None = None
) -> Tensor:
    """Multiply by an int8 weight.

    Args:
        x: float32, float16 or bfloat16 [..., in_features], at least one row.
        levels: int8 [out_features, in_features].
        scale: bfloat16 [out_features].
        backend: "reference" is plain PyTorch; "aten" is PyTorch's CPU kernel, fast for few rows,
            for bfloat16 inputs that are a multiple of 16 wide; "triton" needs a CUDA device.
        arrived: from `tile_counters`, on the same device; "triton" fills a GPU with few outputs
            only with these. They are zeros again after each call, and must not be used on two
            streams at once.

    Returns:
        [..., out_features] of the type of `x`.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot do them.
    """
    if x.dtype not in _FLOATS or levels.dtype != torch.int8 or scale.dtype != torch.bfloat16:
        raise ValueError(
            f"expected fp32, fp16 or bf16, and int8, bfloat16, got {x.dtype}, {levels.dtype}, "
            f"{scale.dtype}"
        )
    sizes = (*x.shape[-1:], *levels.shape[:1])
    if sizes != (*levels.shape[1:], *scale.shape) or x.numel() == 0:
        raise ValueError(
            f"expected [..., in], [out, in], [out], got {list(x.shape)}, {list(levels.shape)}, "
            f"{list(scale.shape)}"
        )
    # What the backend cannot do is refused by name; nothing falls back to another one silently.
    _check_backend(backend, levels.shape[1])
    if backend == "aten" and x.dtype != torch.bfloat16:
        raise ValueError(f"backend aten: expected bfloat16, got {x.dtype}")
    if backend == "triton":
        check_triton(x, levels, scale, arrived)
    if arrived is not None and arrived.dtype != torch.int32:
        raise ValueError(f"expected counters of int32, got {arrived.dtype}")
    return _linear(x, levels, scale, arrived, backend)


def _check_backend(backend: str, in_features: int) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"expected a backend out of {', '.join(_BACKENDS)}, got {backend}")
    if backend == "aten" and in_features % _ATEN_MULTIPLE:
        raise ValueError(
            f"backend aten: expected inputs a multiple of {_ATEN_MULTIPLE} wide, got {in_features}"
        )


def _linear(
    x: Tensor, levels: Tensor, scale: Tensor, arrived: Tensor | None, backend: Backend
) -> Tensor:
    # PyTorch's kernel reads rows that lie one after the other, and takes two dimensions only.
    if backend == "aten":
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        y = torch._weight_int8pack_mm(rows, levels, scale)  # noqa: SLF001 - the only name it has
        return y.view(*x.shape[:-1], len(levels))
    if backend == "reference":
        return reference.linear(x, levels, scale)
    from kernels.int8 import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.linear(x, levels, scale, arrived)


class Int8Linear(nn.Module):
    """Hold the weight of a bias-free linear layer in int8.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        backend: as in `int8_linear`; another one can be set by `use_int8`.

    Attributes:
        levels: int8 [out_features, in_features], buffer.
        scale: bfloat16 [out_features], buffer.
        arrived: int32 [tiles], buffer that is not saved, from `tile_counters`.
        packed: the levels as the CPU's library reads them, bfloat16; None until `pack`.

    Raises:
        ValueError: if there is no such backend, or it cannot do the width.
    """

    levels: Tensor
    scale: Tensor
    arrived: Tensor

    def __init__(self, in_features: int, out_features: int, backend: Backend) -> None:
        super().__init__()
        # Checked once here, for the sizes cannot change: the call is too hot to check each time.
        _check_backend(backend, in_features)
        self.in_features, self.out_features, self.backend = in_features, out_features, backend
        levels = torch.zeros((out_features, in_features), dtype=torch.int8)
        self.register_buffer("levels", levels)
        self.register_buffer("scale", torch.ones(out_features, dtype=torch.bfloat16))
        self.register_buffer("arrived", tile_counters(out_features), persistent=False)
        self.packed: Tensor | None = None
        self._scales: Tensor | None = None  # [_MOST_ROWS, out_features]

    @classmethod
    def from_linear(cls, linear: nn.Linear, backend: Backend) -> Self:
        """Quantise a linear layer that has no bias."""
        assert "bias" not in linear.state_dict(), "Int8Linear has no bias"
        quantised = cls(linear.in_features, linear.out_features, backend)
        quantised.levels, quantised.scale = quantize_int8(linear.weight)
        return quantised

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]`, any floating type, to [..., out_features].

        The output is of the type of `x`; with the backend "aten", which knows no other, bfloat16.
        """
        if self.backend == "aten":
            x = x.bfloat16()
            if x.numel() >= _MANY_ROWS * self.in_features and self.packed is not None:
                return self._of_many(x)
        return _linear(x, self.levels, self.scale, self.arrived, self.backend)

    def pack(self) -> None:
        """Be fast for many rows on a CPU as well, if its library can; takes two bytes a weight."""
        if self.backend == "aten" and can_pack(torch.bfloat16):
            self.packed = pack(self.levels.bfloat16())
            self._scales = self.scale.expand(_MOST_ROWS, -1).contiguous()

    def _of_many(self, x: Tensor) -> Tensor:
        assert self.packed is not None
        assert self._scales is not None
        parts = torch.split(x.reshape(-1, self.in_features), _MOST_ROWS)
        y = torch.cat([scaled_linear(part, self.packed, self._scales) for part in parts])
        return y.view(*x.shape[:-1], self.out_features)


def use_int8(module: nn.Module, backend: Backend) -> int:
    """Let every int8 linear within a module use one backend, in place.

    Args:
        module: holds `Int8Linear` layers, at any depth, on the device that the backend is for.
        backend: as in `int8_linear`.

    Returns:
        How many there are.

    Raises:
        ValueError: naming the first layer that has a width or device that the backend cannot do;
            nothing is switched then.
    """
    # First all are checked, then all are switched: an error leaves the module as it was.
    found = {name: each for name, each in module.named_modules() if isinstance(each, Int8Linear)}
    for name, each in found.items():
        try:
            _check_backend(backend, each.in_features)
            if backend == "triton":
                check_triton(each.levels, each.scale, each.arrived)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    for each in found.values():
        each.backend = backend
    return len(found)
