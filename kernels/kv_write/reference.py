"""The meaning of a write into the paged cache, in plain PyTorch, on any device.

Source: Su et al. 2021, "RoFormer", equation 34 (rotation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.reference import quantize


def rotate_and_write(
    qkv: Tensor,
    rope: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    """Rotate and store; arguments as `kernels.kv_write.op.rotate_and_write`."""
    kv_heads, page_size = k_pages.shape[1:3]
    q, k, v = torch.split(qkv, [qkv.shape[2] - 2 * kv_heads, kv_heads, kv_heads], dim=2)
    q, k = _rotate(q, rope), _rotate(k, rope)  # [R, T, H, D] each
    page, entry = (places // page_size).long(), (places % page_size).long()  # [R, T] each
    for new, pages, scale in ((k, k_pages, k_scale), (v, v_pages, v_scale)):
        if scale is None:
            pages[page, :, entry] = new
        else:
            pages[page, :, entry], scale[page, :, entry] = quantize(new)
    return q


def _rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate neighbouring pairs of `x: [R, T, H, head_dim]` in fp32."""
    pairs = torch.view_as_complex(torch.unflatten(x.float(), -1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rope).flatten(-2).to(x.dtype)
