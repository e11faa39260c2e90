"""NF4 weights as the Triton kernel reads them, made once from those at rest when they are loaded.

A row is cut into super-blocks of 256 weights, each of them 32 words of 32 bits. Nibble `j` of word
`i` is weight `256 s + 32 j + i`: so a word load is contiguous, and each *plane* of nibbles is 32
weights in their natural order, to be multiplied by 32 inputs in theirs. Planes `2b` and `2b + 1`
share the scale of block `b` of 64. README.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.arithmetic import ceil_div
from kernels.nf4.reference import BLOCK_SIZE, LEVELS, NestedScales

# A worked example. Weight 100 of a row is in super-block 0, plane 100 // 32 = 3, word 100 % 32 = 4:
# it is bits 12-15 of word 4. At rest it was the high nibble of byte 50. Its block of 64 is 100 //
# 64 = 1, which planes 2 and 3 share.
#
#     word 4 of a super-block:   weight 228 196 164 132 100  68  36   4
#                                plane    7   6   5   4   3   2   1   0
#                                bits  31-28 ...          15-12 ... 3-0
#
# So `words >> 12` brings weights 96-127 of all 32 words to the low nibbles at once, in the order in
# which the inputs 96-127 lie in memory.

SUPER_BLOCK = 256
PLANE = 32  # weights of a super-block with the same nibble index
PLANES = SUPER_BLOCK // PLANE
BLOCKS = SUPER_BLOCK // BLOCK_SIZE  # scales of a super-block

_ZERO = LEVELS.index(0.0)
# Programs of the kernel that share an output tile count themselves here. Enough for tiles of 64
# outputs and 32 rows, up to as many rows as the kernel takes in one launch.
_MIN_TILE, _MAX_ROW_TILES = 64, 8


@dataclass(frozen=True, slots=True)
class PlanarWeight:
    """An NF4 weight in the kernel's layout.

    Rows of a gated weight, gates first and ups last at rest, alternate here: gate 0, up 0, gate 1.

    Attributes:
        words: int32 [out_features, 32 S], S super-blocks a row; the last one padded with zeros.
        scales: [out_features, 4 S] of each block, float32; or uint8, the levels of nested scales.
        code: float32 [256], of nested scales; None without.
        coarse: float32 [ceil(blocks / 256) + 1], their scales, by block index at rest; or None.
        offset: float32 [], what they are relative to; or None.
        arrived: int32 [tiles], zeros between launches: how many programs have done their part of a
            tile. One weight must therefore not be used on two streams at once.
        in_features: width of the input, a multiple of 64.
        is_gated: rows alternate.
    """

    words: Tensor
    scales: Tensor
    code: Tensor | None
    coarse: Tensor | None
    offset: Tensor | None
    arrived: Tensor
    in_features: int
    is_gated: bool

    @property
    def out_features(self) -> int:
        """Rows of the weight, gates and ups both counted."""
        return len(self.words)

    @property
    def nbytes(self) -> int:
        """What one multiplication has to read."""
        parts = (self.words, self.scales, self.code, self.coarse)
        return sum(part.nbytes for part in parts if part is not None)


def repack(
    packed: Tensor, scales: Tensor | NestedScales, shape: tuple[int, int], *, is_gated: bool
) -> PlanarWeight:
    """Bring a weight into the kernel's layout; see `kernels.nf4.op.repack_nf4`."""
    rows, width = shape
    index = torch.stack((packed >> 4, packed & 0xF), dim=1).view(rows, width)  # [N, K]
    index = F.pad(index, (0, -width % SUPER_BLOCK), value=_ZERO)
    planes = _rows(index, is_gated=is_gated).view(rows, -1, PLANES, PLANE).int()  # [N, S, 8, 32]
    words = torch.zeros_like(planes[:, :, 0])  # [N, S, 32]
    for plane in range(PLANES):
        words |= planes[:, :, plane] << (4 * plane)
    fine: Tensor
    nested: tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]
    if isinstance(scales, NestedScales):
        # The padded blocks of the last row may count as of one more nested block.
        coarse = F.pad(scales.absmax, (0, 1))
        fine, nested = scales.levels, (scales.code, coarse, scales.offset)
    else:
        fine, nested = scales, (None, None, None)
    # Padded blocks hold zeros only, so their scale may be anything finite.
    fine = F.pad(
        _rows(fine.view(rows, -1), is_gated=is_gated), (0, -(width // BLOCK_SIZE) % BLOCKS)
    )
    tiles = ceil_div(rows, _MIN_TILE) * _MAX_ROW_TILES
    return PlanarWeight(
        words=words.view(rows, -1),
        scales=fine.contiguous(),
        code=nested[0],
        coarse=nested[1],
        offset=nested[2],
        arrived=torch.zeros(tiles, dtype=torch.int32, device=packed.device),
        in_features=width,
        is_gated=is_gated,
    )


def unpack(weight: PlanarWeight) -> tuple[Tensor, Tensor]:
    """Return what `repack` was given: packed levels, and scales expanded to float32."""
    rows, width = weight.out_features, weight.in_features
    words = weight.words.view(rows, -1, 1, PLANE)  # [N, S, 1, 32]
    shifts = 4 * torch.arange(PLANES, device=words.device, dtype=torch.int32)  # [8]
    index = ((words >> shifts[:, None]) & 0xF).to(torch.uint8).view(rows, -1)[:, :width]
    index = _rows_at_rest(index, is_gated=weight.is_gated).flatten()
    fine = weight.scales[:, : width // BLOCK_SIZE]  # [N, K / 64]
    fine = _rows_at_rest(fine, is_gated=weight.is_gated).flatten()
    if weight.code is not None:
        assert weight.coarse is not None
        assert weight.offset is not None
        nested = NestedScales(fine, weight.code, weight.coarse, weight.offset)
        fine = nested.expand()
    return (index[::2] << 4) | index[1::2], fine


def _rows(at_rest: Tensor, *, is_gated: bool) -> Tensor:
    """Let gate and up rows alternate."""
    if not is_gated:
        return at_rest
    return at_rest.view(2, len(at_rest) // 2, -1).transpose(0, 1).reshape(at_rest.shape)


def _rows_at_rest(rows: Tensor, *, is_gated: bool) -> Tensor:
    if not is_gated:
        return rows.contiguous()
    return rows.reshape(len(rows) // 2, 2, -1).transpose(0, 1).reshape(rows.shape)
