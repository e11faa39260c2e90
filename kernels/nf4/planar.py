"""Linear layers over weights in the kernel's layout, and the switch of a whole model to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

import torch
from torch import Tensor, nn

from kernels.nf4.layout import PlanarWeight
from kernels.nf4.op import NF4Linear, PlanarBackend, planar_gated, planar_linear, repack_nf4
from kernels.nf4.reference import NestedScales


class _Planar(nn.Module):
    """Hold a repacked weight as buffers, so that it moves with the module."""

    words: Tensor
    scales: Tensor
    code: Tensor | None
    coarse: Tensor | None
    offset: Tensor | None
    arrived: Tensor

    def __init__(self, weight: PlanarWeight, backend: PlanarBackend) -> None:
        super().__init__()
        self.in_features, self.backend = weight.in_features, backend
        self._is_gated = weight.is_gated
        # Not saved: what is at rest is the packed form, and this one is made from it at every load.
        for name in ("words", "scales", "code", "coarse", "offset", "arrived"):
            self.register_buffer(name, getattr(weight, name), persistent=False)

    @property
    def weight(self) -> PlanarWeight:
        """The weight, where the module is now."""
        return PlanarWeight(
            self.words,
            self.scales,
            self.code,
            self.coarse,
            self.offset,
            self.arrived,
            self.in_features,
            self._is_gated,
        )


class PlanarNF4Linear(_Planar):
    """A bias-free linear layer over a repacked NF4 weight; it has nothing to save.

    Args:
        weight: from `repack_nf4`, not gated.
        backend: as in `planar_linear`.
    """

    def __init__(self, weight: PlanarWeight, backend: PlanarBackend) -> None:
        super().__init__(weight, backend)
        self.out_features = weight.out_features

    @classmethod
    def from_rest(
        cls,
        packed: Tensor,
        scales: Tensor | NestedScales,
        shape: tuple[int, int],
        backend: PlanarBackend,
    ) -> Self:
        """Repack a weight at rest; arguments and errors as `repack_nf4`."""
        return cls(repack_nf4(packed, scales, shape), backend)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]` to [..., out_features]."""
        return planar_linear(x, self.weight, backend=self.backend)


class PlanarNF4Gated(_Planar):
    """`silu(gate(x)) * up(x)` in one launch, gate and up in one repacked NF4 weight.

    Args:
        weight: from `repack_nf4`, gated.
        backend: as in `planar_gated`.
    """

    def __init__(self, weight: PlanarWeight, backend: PlanarBackend) -> None:
        super().__init__(weight, backend)
        self.out_features = weight.out_features // 2

    @classmethod
    def from_rest(
        cls,
        packed: Tensor,
        scales: Tensor | NestedScales,
        shape: tuple[int, int],
        backend: PlanarBackend,
    ) -> Self:
        """Repack a weight at rest, gates first; arguments and errors as `repack_nf4`."""
        return cls(repack_nf4(packed, scales, shape, is_gated=True), backend)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x: [..., in_features]` to [..., out_features]."""
        return planar_gated(x, self.weight, backend=self.backend)


@torch.no_grad()
def use_planar(module: nn.Module, backend: PlanarBackend, gated: Collection[str] = ()) -> int:
    """Switch every NF4 linear within a module to the kernel's layout, in place.

    Those that bitsandbytes multiplies by stay as they are. Call it when the weights are loaded and
    on their device.

    Args:
        module: holds `NF4Linear` layers, at any depth.
        backend: as in `planar_linear`.
        gated: names of gated layers: the first half of their outputs are gates for the second half.
            They become `PlanarNF4Gated`, which returns the product.

    Returns:
        How many layers were switched.

    Raises:
        ValueError: naming the first layer that has a width the layout cannot do; nothing is
            switched then.
    """
    # All are repacked before the first is switched: an error leaves the module as it was.
    planar: dict[str, nn.Module] = {}
    for name, linear in module.named_modules():
        if isinstance(linear, NF4Linear) and linear.backend == "reference":
            shape = (linear.out_features, linear.in_features)
            kind = PlanarNF4Gated if name in gated else PlanarNF4Linear
            try:
                planar[name] = kind.from_rest(linear.packed, linear.absmax, shape, backend)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    for name, layer in planar.items():
        module.set_submodule(name, layer)
    return len(planar)
