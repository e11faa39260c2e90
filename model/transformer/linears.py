"""Which linears a step spends its time in, and what becomes of them."""

from __future__ import annotations

from torch import nn

from kernels.int8 import Int8Linear
from kernels.int8.op import Backend
from kernels.nf4 import use_library
from model.errors import ConfigError
from model.transformer.lm import LM


def convert_to_int8(lm: LM) -> None:
    """Replace the linears that a step spends its time in by int8 ones, for few rows on a CPU.

    These are the linears of the transformer layers and the depth transformer's projection and
    heads. The text head stays as it is: words are chosen by it.

    Raises:
        ConfigError: if the model has a width that the int8 kernel cannot do.
    """
    for name, linear in hot_linears(lm).items():
        made = to_int8(name, linear, "aten")
        made.pack()
        lm.set_submodule(name, made)


def hot_linears(lm: LM) -> dict[str, nn.Linear]:
    """Return the linears that a step spends its time in, by name: these may be quantised."""
    parts: dict[str, nn.Module] = {"layers": lm.layers}
    if lm.config.num_codebooks:
        depth = lm.depth
        parts |= {
            "depth.in_proj": depth.in_proj,
            "depth.layers": depth.layers,
            "depth.heads": depth.heads,
        }
    return {
        name: linear
        for prefix, part in parts.items()
        for name, linear in part.named_modules(prefix=prefix)
        if isinstance(linear, nn.Linear)
    }


def use_bitsandbytes(lm: LM) -> None:
    """Let bitsandbytes multiply by the model's NF4 linears, in place.

    Linears with a width that bitsandbytes cannot do stay as they are; they are small.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        use_library(lm)
    except ValueError as error:
        raise ConfigError(f"engine.linears: bitsandbytes cannot be used: {error}") from error


def to_int8(name: str, linear: nn.Linear, backend: Backend) -> Int8Linear:
    """Return an int8 linear of the same weight, about.

    Args:
        name: of the linear, for the error.
        linear: without a bias.
        backend: "aten" for a CPU; "reference" takes any width, until `model.duplex.accelerate`
            switches it to the kernel of its device.

    Raises:
        ConfigError: if the linear has a width that the backend cannot do.
    """
    try:
        return Int8Linear.from_linear(linear, backend)
    except ValueError as error:
        raise ConfigError(f"{name}: cannot be int8 ({error})") from error
