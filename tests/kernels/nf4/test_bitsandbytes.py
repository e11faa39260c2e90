"""What is stored is what bitsandbytes stores, bit for bit, and both can be imported at once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import kernels
from kernels.nf4 import dequantize_nf4, nest_nf4, quantize_nf4
from kernels.nf4.reference import nested_code

SHAPES = [(96, 512), (5, 64), (3, 704), (300, 128), (1, 50)]


@pytest.fixture(scope="module")
def bnb() -> ModuleType:
    """Functions of bitsandbytes, which runs on a CPU as well."""
    pytest.importorskip("bitsandbytes", reason="needs the package bitsandbytes")
    return importlib.import_module("bitsandbytes.functional")


def uneven_weight(shape: tuple[int, int]) -> torch.Tensor:
    """Return float32 whose scales span three decades, with a block of zeros where there is room."""
    weight = torch.randn(shape) * torch.logspace(-2, 1, shape[0])[:, None]
    if weight.numel() >= 128:
        weight.view(-1)[64:128] = 0
    return weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_levels_and_scales(bnb: ModuleType, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Quantising and dequantising give bitsandbytes' bits, whatever the type of the weight."""
    torch.manual_seed(0)
    weight = uneven_weight(shape).to(dtype)
    expected, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed, absmax = quantize_nf4(weight)
    assert torch.equal(packed, expected.flatten())
    assert torch.equal(absmax, state.absmax)
    back = dequantize_nf4(packed, absmax, shape)
    assert torch.equal(back.to(dtype), bnb.dequantize_4bit(expected, state))


@pytest.mark.parametrize("shape", [*SHAPES, (640, 768)])
@pytest.mark.parametrize("is_constant", [False, True])
def test_nested_scales(bnb: ModuleType, shape: tuple[int, int], is_constant: bool) -> None:
    """Scales quantised in their turn are the same too, also where all of them are alike."""
    torch.manual_seed(0)
    weight = torch.full(shape, 0.5) if is_constant else uneven_weight(shape)
    expected, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    packed, absmax = quantize_nf4(weight)
    scales = nest_nf4(absmax)
    assert torch.equal(scales.levels, state.absmax)
    assert torch.equal(scales.code, state.state2.code)
    assert torch.equal(scales.absmax, state.state2.absmax)
    assert torch.equal(scales.offset, state.offset)
    back = dequantize_nf4(packed, scales.expand(), shape)
    assert torch.equal(back, bnb.dequantize_4bit(expected, state))


def test_the_code_of_nested_scales(bnb: ModuleType) -> None:
    """Its 256 values are the ones that bitsandbytes makes."""
    assert torch.equal(nested_code(torch.device("cpu")), bnb.create_dynamic_map())


def test_other_packages_bear_with_our_name(bnb: ModuleType) -> None:
    """Others look for a package named kernels, find ours, which is not what they want, and go on.

    That holds for bitsandbytes itself, and for what transformers builds upon it.
    """
    assert bnb.__name__ == "bitsandbytes.functional"
    layer = importlib.import_module("bitsandbytes").nn.Linear4bit(64, 64, quant_type="nf4")
    assert layer.to("cpu")(torch.randn(2, 64)).isfinite().all()
    pytest.importorskip("transformers", reason="needs the package transformers")
    importlib.import_module("transformers.integrations.bitsandbytes")
    assert sys.modules["kernels"] is kernels
    assert Path(kernels.__file__ or "").parent == Path(__file__).parents[3] / "kernels"
