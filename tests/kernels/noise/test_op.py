"""Counted noise: known numbers, the right distribution, and nothing that a batch could change."""

from __future__ import annotations

import pytest
import torch

from kernels.noise import exponential_noise
from kernels.noise.reference import philox
from tests.kernels.triton_cases import Guarded, on_device

_ALL = 0xFFFFFFFF


def rows(*values: int, device: str = "cpu") -> torch.Tensor:
    """Return int64 [n]."""
    return torch.tensor(values, device=device)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((_ALL, _ALL), (_ALL,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_numbers(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: tuple[int, ...]
) -> None:
    """Philox gives the known answers of its authors' library, Random123."""
    k0, k1 = (rows(part) for part in key)
    c0, c1, c2, c3 = (rows(part) for part in counter)
    assert tuple(philox((k0, k1), (c0, c1, c2, c3))[0].tolist()) == expected


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 250), (2, 1030)])
@on_device
def test_the_kernel_draws_the_same(device: str, shape: tuple[int, ...]) -> None:
    """Backends agree but for the rounding of a logarithm, with keys and steps of 64 bits too."""
    keys, steps = rows(5, -3, 2**40 + 1, device=device), rows(0, 2**33 + 7, -1, device=device)
    with Guarded():
        got = exponential_noise(keys, steps, shape, stream=1, backend="triton")
    expected = exponential_noise(keys, steps, shape, stream=1, backend="reference")
    assert got.shape == (3, *shape)
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-12)


@on_device
def test_rows_that_do_not_lie_together(device: str) -> None:
    """Every second key and step of a longer row are read as such."""
    keys, steps = (torch.arange(8, device=device)[::2] + i for i in (3, 9))
    got = exponential_noise(keys, steps, (5,), stream=0, backend="triton")
    expected = exponential_noise(keys, steps, (5,), stream=0, backend="reference")
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-12)


def test_a_row_is_its_own() -> None:
    """What a key draws at a step is the same in whatever batch, and other everywhere else."""
    noise = exponential_noise(rows(4, 9, 4), rows(1, 1, 2), (6,), stream=0, backend="reference")
    alone = exponential_noise(rows(9), rows(1), (6,), stream=0, backend="reference")
    assert torch.equal(noise[1:2], alone)
    other = exponential_noise(rows(9), rows(1), (6,), stream=1, backend="reference")
    everything = torch.cat([noise, other]).flatten().tolist()
    assert len(set(everything)) == len(everything)


def test_distribution() -> None:
    """A million draws have the mean, the variance and the quantiles of Exp(1), and none is zero."""
    noise = exponential_noise(rows(1), rows(0), (10**6,), stream=0, backend="reference")[0].double()
    assert noise.min() > 0
    assert noise.mean().item() == pytest.approx(1.0, abs=0.005)
    assert noise.var().item() == pytest.approx(1.0, abs=0.01)
    for quantile in (0.01, 0.1, 0.5, 0.9, 0.99):
        at = -torch.log1p(torch.tensor(-quantile))
        assert (noise < at).double().mean().item() == pytest.approx(quantile, abs=0.0015)


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    one = rows(1)
    with pytest.raises(ValueError, match=r"keys: expected int64 \[n\], got torch\.float32 \[1\]"):
        exponential_noise(one.float(), one, (3,), stream=0, backend="reference")
    with pytest.raises(ValueError, match=r"steps: expected int64 \[n\], got torch\.int64 \[1, 1\]"):
        exponential_noise(one, one[None], (3,), stream=0, backend="reference")
    with pytest.raises(ValueError, match="as many steps as keys, 1, got 2"):
        exponential_noise(one, rows(1, 2), (3,), stream=0, backend="reference")
    with pytest.raises(ValueError, match=r"at least one number, got \[3, 0\]"):
        exponential_noise(one, one, (3, 0), stream=0, backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        exponential_noise(one, one, (3,), stream=0, backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="on cuda, got meta"):
        exponential_noise(one.to("meta"), one.to("meta"), (3,), stream=0, backend="triton")
