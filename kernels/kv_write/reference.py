"""The meaning of a write into the paged cache, in plain PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.reference import quantize


def rotate_and_write(
    qkv: Tensor,
    rope: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    columns: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    """Rotate and store; arguments as `kernels.kv_write.op.rotate_and_write`."""
    kv_heads, page_size = k_pages.shape[1:3]
    q, k, v = torch.split(qkv, [qkv.shape[2] - 2 * kv_heads, kv_heads, kv_heads], dim=2)
    q, k = _rotate(q, rope), _rotate(k, rope)
    page = table.gather(1, (columns.clamp(min=0) // page_size).long())  # [R, T]
    kept = (columns >= 0) & (page >= 0)
    index = page[kept].long(), (columns[kept] % page_size).long()
    for new, pages, scale in ((k[kept], k_pages, k_scale), (v[kept], v_pages, v_scale)):
        if scale is None:
            pages[index[0], :, index[1]] = new.to(pages.dtype)
        else:
            pages[index[0], :, index[1]], scale[index[0], :, index[1]] = quantize(new)
    return q


def _rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate neighbouring pairs of `x: [R, T, H, head_dim]` in fp32."""
    pairs = torch.view_as_complex(torch.unflatten(x.float(), -1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rope).flatten(-2).to(x.dtype)
