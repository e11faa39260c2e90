"""Let a loaded model multiply by its NF4 weights in the layout of the Triton kernel."""

from __future__ import annotations

from torch import nn

from kernels.nf4 import use_planar
from model.errors import ConfigError
from model.precision import Backend
from model.transformer.attention import GatedMLP


def use_planar_linears(module: nn.Module, backend: Backend) -> int:
    """Switch every NF4 linear within a module to the kernel's layout, in place.

    Gated MLPs then gate in the launch that multiplies. Call it once, when the weights are loaded
    with `linears="nf4"` and are on the device that the backend is for.

    Args:
        module: a model, or a part of one.
        backend: for all of them.

    Returns:
        How many linears were switched.

    Raises:
        ConfigError: naming the first linear that is not of a width that the layout can do.
    """
    gated = {
        f"{name}.gate_up" if name else "gate_up"
        for name, part in module.named_modules()
        if isinstance(part, GatedMLP)
    }
    try:
        return use_planar(module, backend, gated)
    except ValueError as error:
        raise ConfigError(f"NF4 linears cannot be repacked: {error}") from error
