"""The Triton NF4 linear: as exact as PyTorch, whatever the shape and however it is divided."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kernels.nf4 import (
    PlanarWeight,
    dequantize_nf4,
    nest_nf4,
    planar_gated,
    planar_linear,
    quantize_nf4,
    repack_nf4,
)
from kernels.nf4.kernel import Gpu, Tiling, _lookup, dequantize, launch, tiling
from kernels.nf4.layout import unpack
from kernels.nf4.reference import LEVELS
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device, poison

# Rows of the input, outputs, inputs: one of everything; no multiple of any tile; a row of one
# super-block and a part; the starter's widest; more rows than are multiplied as they stream by.
SHAPES = [(1, 1, 64), (5, 70, 320), (16, 66, 256), (17, 130, 704), (40, 64, 1024), (300, 6, 128)]
TILINGS = [
    Tiling(16, 64, 2, 3),
    Tiling(16, 128, 4, 2),
    Tiling(32, 64, 2, 2),
    Tiling(64, 64, 4, 1),
    Tiling(64, 64, 4, 3),
]


H200 = Gpu(num_sms=132, write_out_from=65, has_tall_tiles=True)
A100 = Gpu(num_sms=108, write_out_from=129, has_tall_tiles=False)


def planar(
    shape: tuple[int, int],
    device: str,
    *,
    is_nested: bool = True,
    is_gated: bool = False,
) -> PlanarWeight:
    """Return a random weight with a block of zeros, repacked."""
    dense = torch.randn(shape) * torch.logspace(-1, 0, shape[0])[:, None]
    dense[0, :64] = 0
    packed, absmax = quantize_nf4(dense.to(device))
    scales = nest_nf4(absmax) if is_nested else absmax
    return repack_nf4(packed, scales, shape, is_gated=is_gated)


def at_rest(weight: PlanarWeight) -> torch.Tensor:
    """Return the weight, float32 [out_features, in_features], rows as at rest."""
    return dequantize_nf4(*unpack(weight), (weight.out_features, weight.in_features))


def plain_product(x: torch.Tensor, weight: PlanarWeight) -> torch.Tensor:
    """Multiply in plain PyTorch, in the type of `x`, and gate if the weight is gated."""
    multiply = planar_gated if weight.is_gated else planar_linear
    return multiply(x, weight, backend="reference")


def exact_product(x: torch.Tensor, weight: PlanarWeight) -> torch.Tensor:
    """Multiply in float64, and gate if the weight is gated."""
    y = x.double() @ at_rest(weight).double().t()
    if not weight.is_gated:
        return y
    gate, up = y.chunk(2, dim=-1)
    return F.silu(gate) * up


def bit_of(dtype: torch.dtype, device: str) -> float:
    """Allow sums in another order, and a bit where the interpreter cuts instead of rounding."""
    return 2.0**-7 if device == "cpu" and dtype == torch.bfloat16 else 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@on_device
def test_as_exact_as_pytorch(
    device: str, shape: tuple[int, int, int], is_nested: bool, dtype: torch.dtype
) -> None:
    """The error is at most twice that of PyTorch over the dequantised weight in the same type."""
    torch.manual_seed(0)
    rows, out_features, in_features = shape
    weight = planar((out_features, in_features), device, is_nested=is_nested)
    x = torch.randn(rows, in_features).to(device, dtype)
    with Guarded():
        got = planar_linear(x, weight, backend="triton")
    plain = planar_linear(x, weight, backend="reference")
    assert (got.shape, got.dtype) == (plain.shape, plain.dtype)
    assert_as_exact(got, plain, exact_product(x, weight), eps=bit_of(dtype, device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 2, 64), (5, 70, 320), (33, 132, 256), (70, 6, 128)])
@on_device
def test_gated(device: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Gating on the way is as exact as gating afterwards."""
    torch.manual_seed(0)
    rows, out_features, in_features = shape
    weight = planar((out_features, in_features), device, is_gated=True)
    x = torch.randn(rows, in_features).to(device, dtype)
    with Guarded():
        got = planar_gated(x, weight, backend="triton")
    plain = planar_gated(x, weight, backend="reference")
    assert got.shape == plain.shape == (rows, out_features // 2)
    assert_as_exact(got, plain, exact_product(x, weight), eps=bit_of(dtype, device))


@pytest.mark.parametrize("how", TILINGS, ids=str)
@pytest.mark.parametrize("is_gated", [False, True])
@on_device
def test_however_it_is_divided(device: str, is_gated: bool, how: Tiling) -> None:
    """Every tile and split gives the product, and leaves the counters as it found them.

    Three splits of four super-blocks leave the last one nothing to do.
    """
    torch.manual_seed(0)
    weight = planar((66, 1024), device, is_gated=is_gated)
    x = torch.randn(how.block_m - 11, 1024, device=device)
    with Guarded():
        got = launch(x, weight, how)
    assert_as_exact(got, plain_product(x, weight), exact_product(x, weight), eps=2e-6)
    assert not weight.arrived.any()


@pytest.mark.parametrize("in_features", [2816, 4096, 11264])
@on_device
def test_the_widths_of_a_7b(device: str, in_features: int) -> None:
    """The widths that occur in the models served, split as they are on a large GPU."""
    torch.manual_seed(0)
    weight = planar((3, in_features), device)
    x = torch.randn(2, in_features, device=device)
    got = launch(x, weight, tiling(2, weight, H200))
    assert_as_exact(got, plain_product(x, weight), exact_product(x, weight), eps=2e-6)


@pytest.mark.parametrize("shape", [(1, 64), (70, 320), (34, 768)])
@pytest.mark.parametrize("is_gated", [False, True])
@on_device
def test_written_out(device: str, is_gated: bool, shape: tuple[int, int]) -> None:
    """Written out in fp32, the weight is the reference's, rows as at rest, nothing beyond it.

    To the bit with fp32 scales; a device may round the product within nested ones once less.
    """
    if is_gated:
        shape = (2 * shape[0], shape[1])
    for is_nested in (False, True):
        weight = planar(shape, device, is_nested=is_nested, is_gated=is_gated)
        with Guarded():
            got = dequantize(weight, torch.float32)
        tolerance = 1e-6 if is_nested else 0.0
        expected = at_rest(weight)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@on_device
def test_rows_that_do_not_lie_together(device: str) -> None:
    """Slices and transposes, of any rank, give what their copies give, to the bit."""
    torch.manual_seed(0)
    weight = planar((10, 128), device)
    for x in (
        torch.randn(2, 3, 256, device=device)[..., 64:192],
        torch.randn(128, 4, device=device).t(),
        torch.randn(2, 5, 128, device=device)[:, ::2],
        torch.randn(128, device=device),
    ):
        got = planar_linear(x, weight, backend="triton")
        assert got.shape == (*x.shape[:-1], 10)
        assert torch.equal(got, planar_linear(x.contiguous(), weight, backend="triton"))


@on_device
def test_addresses_beyond_two_gigabytes(device: str) -> None:
    """Rows more than 2**31 elements apart are found: memory is reserved, and hardly touched."""
    stride = 2**31 + 64
    reserved = torch.empty(stride + 64, dtype=torch.bfloat16, device=device)
    x = reserved.as_strided((2, 64), (stride, 1))
    x.copy_(torch.randn(2, 64))
    weight = planar((4, 64), device)
    got = planar_linear(x, weight, backend="triton")
    assert torch.equal(got, planar_linear(x.clone(), weight, backend="triton"))
    assert not torch.equal(got[0], got[1])


@on_device
def test_rows_do_not_meet(device: str) -> None:
    """A row gives the same bits alone and among others, and spoils none with its NaN."""
    torch.manual_seed(0)
    weight = planar((66, 256), device)
    x = torch.randn(6, 256, device=device)
    together = planar_linear(x, weight, backend="triton")
    assert torch.equal(planar_linear(x[2:3], weight, backend="triton")[0], together[2])
    poison(x[5])
    spoilt = planar_linear(x, weight, backend="triton")
    assert torch.equal(spoilt[:5], together[:5])
    assert spoilt[5].isnan().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", TILINGS, ids=str)
def test_a_captured_graph_replays_the_same_bits(how: Tiling) -> None:
    """A thousand replays give what a launch does: counters are set back, parts added in order."""
    weight = planar((1024, 4096), "cuda")
    x = torch.randn(19, 4096, device="cuda", dtype=torch.bfloat16)
    expected = launch(x, weight, how)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = launch(x, weight, how)
    for _ in range(1000):
        graph.replay()
        assert torch.equal(got, expected)


def test_the_lookup_in_ptx() -> None:
    """Run lane by lane, the PTX fetches the level of the low four bits of an index, to the bit.

    A shuffle looks at the low five bits of its index, so any higher nibbles do not matter.
    """
    lines = [line.strip() for line in _lookup().strip("{} ").split(";")]
    shuffle = lines.pop(-2)
    assert shuffle == "shfl.sync.idx.b32 $0, l0, $1, 31, 0xffffffff"
    held = [run_ptx(lines, lane)["l0"] for lane in range(32)]
    for index in range(-64, 64):
        assert held[index & 31] == struct.unpack("<I", struct.pack("<f", LEVELS[index & 15]))[0]


def run_ptx(lines: list[str], lane: int) -> dict[str, int]:
    """Emulate the instructions that the lookup is made of; return its registers."""
    registers: dict[str, int] = {"%laneid": lane}

    def value(name: str) -> int:
        return registers[name] if name in registers else int(name, 0)

    for line in lines:
        name, _, rest = line.partition(" ")
        target, *sources = rest.split(", ")
        match name.split("."):
            case ["mov", "u32"]:
                registers[target] = value(sources[0])
            case ["and", "b32"]:
                registers[target] = value(sources[0]) & value(sources[1])
            case ["setp", "ne", "u32"]:
                registers[target] = int(value(sources[0]) != value(sources[1]))
            case ["selp", "b32"]:
                high, low, predicate = map(value, sources)
                registers[target] = high if predicate else low
            case _:
                assert line.startswith(".reg") or not line, line
    return registers


def test_tiling_fills_the_gpu() -> None:
    """Few outputs are split among programs, none of which is left without work; many are not."""
    small, large = planar((128, 11264), "cpu"), planar((2048, 512), "cpu")
    assert tiling(1, small, H200).num_splits == 8
    assert tiling(1, large, replace(H200, num_sms=4)) == Tiling(16, 128, 4, 1)
    for num_rows, block_m in [(16, 16), (17, 32), (33, 64), (256, 64)]:
        assert tiling(num_rows, small, H200).block_m == block_m
        assert tiling(num_rows, small, A100).block_m == min(block_m, 32)
    for num_super in range(1, 45):
        num_splits = tiling(1, planar((2, 256 * num_super), "cpu"), H200).num_splits
        turns = -(-num_super // num_splits)
        assert (num_splits - 1) * turns < num_super
