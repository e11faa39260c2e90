"""The Triton int8 linear: as exact as PyTorch, whatever the shape and however it is divided."""

from __future__ import annotations

import pytest
import torch

from kernels.int8 import Int8Linear, int8_linear, quantize_int8, tile_counters
from kernels.int8.kernel import Tiling, launch, tiling
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device, poison

# Rows of the input, outputs, inputs: one of everything; no multiple of any tile; a layer of the
# starter; more rows than the counters are for.
SHAPES = [(1, 1, 1), (5, 70, 75), (16, 66, 256), (17, 130, 704), (40, 64, 1024), (300, 6, 130)]
TILINGS = [
    Tiling(16, 64, 128, 2, 3),
    Tiling(16, 128, 128, 4, 2),
    Tiling(16, 64, 32, 4, 4),
    Tiling(32, 64, 128, 2, 2),
    Tiling(64, 64, 128, 4, 3),
    Tiling(128, 128, 64, 8, 1),
]


def weight_of(
    out_features: int, in_features: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return levels, scales and counters of a random weight with rows of many sizes."""
    dense = torch.randn(out_features, in_features)
    dense *= torch.logspace(-1, 0, out_features)[:, None]
    levels, scale = quantize_int8(dense.to(device))
    return levels, scale, tile_counters(out_features).to(device)


def exact_product(x: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply in float64."""
    return x.double() @ (levels.double() * scale.double()[:, None]).t()


def bit_of(dtype: torch.dtype, device: str) -> float:
    """Allow sums in another order, and a bit where the interpreter cuts instead of rounding."""
    return 2.0**-7 if device == "cpu" and dtype == torch.bfloat16 else 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@on_device
def test_as_exact_as_pytorch(device: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The error is at most twice that of the reference in the same type, with counters or not."""
    torch.manual_seed(0)
    num_rows, out_features, in_features = shape
    levels, scale, arrived = weight_of(out_features, in_features, device)
    x = torch.randn(num_rows, in_features).to(device, dtype)
    plain = int8_linear(x, levels, scale, backend="reference")
    for counters in (arrived, None):
        with Guarded():
            got = int8_linear(x, levels, scale, backend="triton", arrived=counters)
        assert (got.shape, got.dtype) == (plain.shape, plain.dtype)
        assert_as_exact(got, plain, exact_product(x, levels, scale), eps=bit_of(dtype, device))


@pytest.mark.parametrize("how", TILINGS, ids=str)
@pytest.mark.parametrize("in_features", [512, 333])
@on_device
def test_however_it_is_divided(device: str, in_features: int, how: Tiling) -> None:
    """Every tile and split gives the product, the same bits each time, and leaves zeros behind."""
    torch.manual_seed(0)
    levels, scale, arrived = weight_of(66, in_features, device)
    x = torch.randn(19, in_features, device=device)
    with Guarded():
        got = launch(x, levels, scale, arrived, how)
    plain = int8_linear(x, levels, scale, backend="reference")
    assert_as_exact(got, plain, exact_product(x, levels, scale), eps=2e-6)
    assert not arrived.any()
    assert torch.equal(launch(x, levels, scale, arrived, how), got)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("how", TILINGS, ids=str)
def test_a_captured_graph_replays_the_same_bits(how: Tiling) -> None:
    """A thousand replays give what a launch does: counters are set back, parts added in order."""
    levels, scale, arrived = weight_of(1024, 4096, "cuda")
    x = torch.randn(19, 4096, device="cuda", dtype=torch.bfloat16)
    expected = launch(x, levels, scale, arrived, how)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = launch(x, levels, scale, arrived, how)
    for _ in range(1000):
        graph.replay()
        assert torch.equal(got, expected)


@pytest.mark.parametrize("in_features", [1024, 2816, 4096, 11264])
@on_device
def test_the_widths_of_a_7b(device: str, in_features: int) -> None:
    """The widths that occur in the models served, split as they are on a large GPU."""
    torch.manual_seed(0)
    levels, scale, arrived = weight_of(6, in_features, device)
    x = torch.randn(2, in_features, device=device)
    how = tiling(2, (6, in_features), 132, num_counters=len(arrived), is_small=False)
    assert how.num_splits > 1
    got = launch(x, levels, scale, arrived, how)
    plain = int8_linear(x, levels, scale, backend="reference")
    assert_as_exact(got, plain, exact_product(x, levels, scale), eps=2e-6)


@on_device
def test_the_largest_levels(device: str) -> None:
    """All of ±127 and sums of the widest rows are exact: nothing overflows on the way."""
    levels = torch.full((2, 11264), 127, dtype=torch.int8, device=device)
    levels[1] = -127
    scale = torch.tensor([1.0, 2.0**-10], dtype=torch.bfloat16, device=device)
    x = torch.ones(1, 11264, device=device)
    got = int8_linear(x, levels, scale, backend="triton")
    assert got.tolist() == [[127.0 * 11264, -127.0 * 11264 / 1024]]


@on_device
def test_rows_that_do_not_lie_together(device: str) -> None:
    """Slices and transposes, of any rank, give what their copies give, to the bit."""
    torch.manual_seed(0)
    levels, scale, arrived = weight_of(10, 128, device)
    for x in (
        torch.randn(2, 3, 256, device=device)[..., 64:192],
        torch.randn(128, 4, device=device).t(),
        torch.randn(2, 5, 128, device=device)[:, ::2],
        torch.randn(128, device=device),
    ):
        got = int8_linear(x, levels, scale, backend="triton", arrived=arrived)
        assert got.shape == (*x.shape[:-1], 10)
        again = int8_linear(x.contiguous(), levels, scale, backend="triton", arrived=arrived)
        assert torch.equal(got, again)


@on_device
def test_addresses_beyond_two_gigabytes(device: str) -> None:
    """Rows more than 2**31 elements apart are found: memory is reserved, and hardly touched."""
    stride = 2**31 + 64
    reserved = torch.empty(stride + 64, dtype=torch.bfloat16, device=device)
    x = reserved.as_strided((2, 64), (stride, 1))
    x.copy_(torch.randn(2, 64))
    levels, scale, _ = weight_of(4, 64, device)
    got = int8_linear(x, levels, scale, backend="triton")
    assert torch.equal(got, int8_linear(x.clone(), levels, scale, backend="triton"))
    assert not torch.equal(got[0], got[1])


@on_device
def test_rows_do_not_meet(device: str) -> None:
    """A row gives the same bits alone and among others, and spoils none with its NaN."""
    torch.manual_seed(0)
    levels, scale, arrived = weight_of(66, 256, device)
    x = torch.randn(6, 256, device=device)
    together = int8_linear(x, levels, scale, backend="triton", arrived=arrived)
    alone = int8_linear(x[2:3], levels, scale, backend="triton", arrived=arrived)
    assert torch.equal(alone[0], together[2])
    poison(x[5])
    spoilt = int8_linear(x, levels, scale, backend="triton", arrived=arrived)
    assert torch.equal(spoilt[:5], together[:5])
    assert spoilt[5].isnan().all()


@on_device
def test_the_module(device: str) -> None:
    """The module on the kernel gives what it gives on the reference, in the type of its input."""
    torch.manual_seed(0)
    dense = torch.nn.Linear(50, 20, bias=False)
    plain = Int8Linear.from_linear(dense, backend="reference").to(device)
    fast = Int8Linear.from_linear(dense, backend="triton").to(device)
    x = torch.randn(2, 3, 50, device=device)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-5)
    assert fast(x.half()).dtype == plain(x.half()).dtype == torch.float16


def test_tiling_fills_the_gpu() -> None:
    """Few outputs are split among programs, none without work; many, or uncounted ones, are not."""

    def tiled(num_rows: int, shape: tuple[int, int], num_sms: int = 132) -> Tiling:
        counters = len(tile_counters(shape[0]))
        return tiling(num_rows, shape, num_sms, num_counters=counters, is_small=False)

    assert tiled(1, (128, 11264)).num_splits == 8
    assert tiled(1, (2048, 512), num_sms=4) == Tiling(16, 128, 128, 4, 1)
    without = tiling(1, (128, 11264), 132, num_counters=0, is_small=False)
    assert without.num_splits == 1
    small = tiling(40, (128, 1024), 132, num_counters=0, is_small=True)
    assert small == Tiling(16, 64, 32, 4, 1)
    for num_rows, block_m in [(16, 16), (17, 32), (33, 64), (128, 64), (129, 128), (5000, 128)]:
        assert tiled(num_rows, (128, 11264)).block_m == block_m
    for num_turns in range(1, 90):
        num_splits = tiled(1, (2, 128 * num_turns)).num_splits
        turns = -(-num_turns // num_splits)
        assert (num_splits - 1) * turns < num_turns
