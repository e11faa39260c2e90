"""The residual search: the nearest entry of each level, the lowest of equals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.rvq import half_norms, kernel, nearest_codes
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.quantize import ResidualCodes
from model.codec.quantize import ResidualQuantizer
from tests.kernels.triton_cases import Guarded, on_device


def _make(rows: int, levels: int, entries: int, dim: int, device: str) -> tuple[Tensor, ...]:
    """Return rows and tables whose levels shrink, as those of a trained quantiser do."""
    torch.manual_seed(0)
    shrink = 0.6 ** torch.arange(levels)[:, None, None]
    tables = (torch.randn(levels, entries, dim) * shrink).to(device)
    return torch.randn(rows, dim).to(device), tables, half_norms(tables)


@pytest.mark.parametrize(
    ("rows", "levels", "entries", "dim"),
    [(1, 1, 1, 1), (17, 3, 150, 24), (3, 2, 64, 96)],
)
@on_device
def test_nearest_of_every_level(
    device: str, rows: int, levels: int, entries: int, dim: int
) -> None:
    """Each code is, in float64, as near as any other entry to what the codes before left over."""
    x, tables, norms = _make(rows, levels, entries, dim, device)
    with Guarded():
        codes = nearest_codes(x, tables, norms, backend="triton")
    assert codes.shape == (rows, levels)
    left = x.double()
    for level in range(levels):
        distance = torch.cdist(left[:, None], tables[level].double()[None]).squeeze(1)
        chosen = distance.gather(1, codes[:, level, None]).squeeze(1)
        assert (chosen <= distance.amin(1) * (1 + 1e-6)).all()
        left = left - tables[level].double()[codes[:, level]]
    assert torch.equal(codes, nearest_codes(x, tables, norms, backend="reference"))


@on_device
def test_codes_of_the_models_quantisers(device: str) -> None:
    """Codes are those of the starter's quantiser and of Mimi's residual stack."""
    torch.manual_seed(0)
    starter = ResidualQuantizer(3, 100, 24).to(device)
    for level, book in enumerate(starter.books):
        book.vectors.mul_(0.6**level)
    x = torch.randn(5, 24, device=device)
    tables = torch.stack([book.vectors for book in starter.books])
    got = nearest_codes(x, tables, half_norms(tables), backend="triton")
    assert torch.equal(got, starter.encode(x))

    mimi = ResidualCodes(MimiConfig(codebook_size=70, codebook_dim=16), 2).to(device)
    latent = torch.randn(5, mimi.to_codes.in_features, device=device)
    with torch.no_grad():
        projected, expected = mimi.to_codes(latent), mimi.encode(latent)
    norms = half_norms(mimi.tables)
    assert torch.equal(nearest_codes(projected, mimi.tables, norms, backend="triton"), expected)


@on_device
def test_the_lowest_of_equals(device: str) -> None:
    """Of entries that are the same, the first is taken, in a block or across blocks."""
    x, tables, _ = _make(6, 2, 24, 16, device)
    tables = tables.repeat(1, 3, 1)  # entry c equals c + 24 and c + 48
    codes = kernel.nearest_codes(x, tables, half_norms(tables), block_c=32)
    assert (codes < 24).all()


@on_device
def test_a_row_does_not_depend_on_its_batch(device: str) -> None:
    """Codes of a row, cut out of a wider tensor, are those of the row alone."""
    x, tables, norms = _make(18, 2, 70, 16, device)
    wide = torch.randn(18, 40, device=device)
    wide[:, 5:21] = x
    codes = nearest_codes(wide[:, 5:21], tables, norms, backend="triton")
    for row in (0, 17):
        assert torch.equal(
            codes[row], nearest_codes(x[row : row + 1], tables, norms, backend="triton")[0]
        )


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    x, tables, norms = _make(2, 2, 8, 4, "cpu")
    with pytest.raises(ValueError, match=r"got \[2, 3\], \[2, 8, 4\], \[2, 8\]"):
        nearest_codes(x[:, :3], tables, norms, backend="reference")
    with pytest.raises(ValueError, match=r"float32 throughout, got torch\.float16"):
        nearest_codes(x.half(), tables, norms, backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        nearest_codes(x, tables, norms, backend="fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ValueError, match="on cuda, got meta"):
        nearest_codes(x.to("meta"), tables.to("meta"), norms.to("meta"), backend="triton")
