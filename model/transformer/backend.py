"""Which implementation of the kernels a model's modules use."""

from __future__ import annotations

from typing import get_args

from torch import nn

from kernels.triton_device import check_triton
from model.errors import ConfigError
from model.precision import Backend


class KernelModule(nn.Module):
    """A module that computes what `kernels` has, in plain PyTorch unless told otherwise.

    Attributes:
        backend: set by `use_backend`; only "reference" can be trained.
    """

    backend: Backend = "reference"


def use_backend(module: nn.Module, backend: Backend) -> int:
    """Let every norm, gated MLP and quantiser within a module use one backend, in place.

    Attention and the memory that it reads are chosen by `model.cache.store.MemoryConfig.reading`,
    the draw of tokens by `model.sampling.Sampling.backend`, linears by how they are
    loaded.

    Args:
        module: holds such modules, at any depth, on the device that the backend is for.
        backend: for all of them.

    Returns:
        How many there are.

    Raises:
        ConfigError: for a backend that does not exist, or that cannot run where the module is.
    """
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        raise ConfigError(f"backend: expected one of {known}, got {backend!r}")
    if backend == "triton":
        try:
            check_triton(*module.parameters(), *module.buffers())
        except ValueError as error:
            raise ConfigError(str(error)) from error
    found = [each for each in module.modules() if isinstance(each, KernelModule)]
    for each in found:
        each.backend = backend
    return len(found)
