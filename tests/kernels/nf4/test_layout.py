"""The kernel's layout holds exactly what is at rest, nibble by nibble."""

from __future__ import annotations

import pytest
import torch

from kernels.nf4 import nest_nf4, quantize_nf4, repack_nf4
from kernels.nf4.layout import unpack

SHAPES = [(1, 64), (3, 256), (4, 704), (6, 2816), (2, 4096), (70, 320)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("is_gated", [False, True])
def test_repacking_loses_nothing(shape: tuple[int, int], is_nested: bool, is_gated: bool) -> None:
    """Unpacking gives levels and scales as at rest, to the bit."""
    rows, width = shape
    if is_gated:
        shape = (2 * rows, width)
    torch.manual_seed(0)
    packed, absmax = quantize_nf4(torch.randn(shape))
    scales = nest_nf4(absmax) if is_nested else absmax
    weight = repack_nf4(packed, scales, shape, is_gated=is_gated)
    levels, expanded = unpack(weight)
    at_rest = nest_nf4(absmax).expand() if is_nested else absmax
    assert torch.equal(levels, packed)
    assert torch.equal(expanded, at_rest)


def test_where_a_nibble_lies() -> None:
    """Nibble `j` of word `i` of super-block `s` is weight `256 s + 32 j + i`; padding is zero."""
    index = torch.arange(2 * 320) % 16
    packed = ((index[::2] << 4) | index[1::2]).to(torch.uint8)
    weight = repack_nf4(packed, torch.ones(10), (2, 320))
    assert weight.words.shape == (2, 64)
    words = weight.words.long() & 0xFFFFFFFF
    for row, s, i, j in [(0, 0, 0, 0), (0, 0, 31, 7), (1, 0, 5, 3), (1, 1, 17, 1)]:
        expected = index[320 * row + 256 * s + 32 * j + i]
        assert (words[row, 32 * s + i] >> (4 * j)) & 15 == expected
    assert (words[:, 32:] >> 8 == 0x777777).all()


def test_padding_has_scales_too() -> None:
    """The kernel finds a finite scale for every padded block, also behind a full nested block."""
    packed, absmax = quantize_nf4(torch.randn(256, 192))
    weight = repack_nf4(packed, nest_nf4(absmax), (256, 192))
    assert weight.coarse is not None
    last_block = 255 * 3 + weight.scales.shape[1] - 1
    assert last_block // 256 == len(absmax) // 256
    assert weight.coarse[last_block // 256].isfinite()


def test_gates_and_ups_alternate() -> None:
    """Row 2 i is gate i, row 2 i + 1 what it gates."""
    packed, absmax = quantize_nf4(torch.randn(6, 256))
    plain = repack_nf4(packed, absmax, (6, 256))
    gated = repack_nf4(packed, absmax, (6, 256), is_gated=True)
    order = [0, 3, 1, 4, 2, 5]
    assert torch.equal(gated.words, plain.words[order])
    assert torch.equal(gated.scales, plain.scales[order])


def test_what_it_takes_to_read() -> None:
    """4.5 bits a weight with fp32 scales, little more than 4.1 with nested ones."""
    packed, absmax = quantize_nf4(torch.randn(64, 1024))
    assert 8 * repack_nf4(packed, absmax, (64, 1024)).nbytes / (64 * 1024) == 4.5
    nested = 8 * repack_nf4(packed, nest_nf4(absmax), (64, 1024)).nbytes / (64 * 1024)
    assert nested == pytest.approx(4 + 8 / 64 + (5 * 32 + 256 * 32) / (64 * 1024))
