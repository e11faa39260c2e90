"""What attention over pages means, in plain PyTorch.

Keys carry their rotary embedding already, so the order of columns does not matter: a query attends
to a set of columns of its slot, given as a few ranges. A ring that has wrapped is two ranges, a
pinned prefix is one.

    out = softmax over the columns that are seen of (scale * q . k)  times  v

Source: Vaswani et al. 2017, "Attention is all you need", equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_LEVEL = 127


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise vectors along the last axis, symmetrically, one scale each.

    Returns:
        levels: int8 as `x`; scale: float16 without the last axis. `x` is about
        `levels * scale[..., None]`.
    """
    x = x.float()
    # Levels are computed with the scale as it is stored (float16), so its rounding adds no further
    # error. A vector too small for a float16 scale is zero.
    scale = (x.abs().amax(-1) / _MAX_LEVEL).to(torch.float16)  # [...]
    divisor = scale.float().masked_fill(scale == 0, torch.inf)[..., None]  # [..., 1]
    levels = (x / divisor).round().clamp(-_MAX_LEVEL, _MAX_LEVEL).to(torch.int8)
    return levels, scale


def paged_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    spans: Tensor,
    scale: float,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    """Attend; arguments as `kernels.attention.op.paged_attention`."""
    groups, dtype = q.shape[2] // k_pages.shape[1], torch.promote_types(q.dtype, torch.float32)
    k = _gather(k_pages, k_scale, table, dtype).repeat_interleave(groups, dim=1)  # [R, H, C, D]
    v = _gather(v_pages, v_scale, table, dtype).repeat_interleave(groups, dim=1)  # [R, H, C, D]
    seen = visible(spans, k.shape[2])[:, None]  # [R, 1, T, C]
    # What nobody may see can hold anything, NaN too: it is replaced, not multiplied by zero.
    scores = (q.to(dtype).transpose(1, 2) * scale) @ k.transpose(-1, -2)  # [R, H, T, C]
    scores = torch.where(seen, scores, -torch.inf)  # [R, H, T, C]
    v = torch.where(seen.any(dim=2)[..., None], v, 0.0)  # [R, H, C, D]
    weights = torch.where(seen.any(dim=-1, keepdim=True), scores.softmax(-1), 0.0)
    return (weights @ v).transpose(1, 2).to(q.dtype)


def visible(spans: Tensor, num_columns: int) -> Tensor:
    """Return bool [rows, q_len, columns] of `spans: int32 [rows, q_len, spans, 2]`."""
    column = torch.arange(num_columns, device=spans.device)  # [C]
    start, stop = spans[..., :1], spans[..., 1:]
    return ((column >= start) & (column < stop)).any(dim=2)


def _gather(pages: Tensor, scale: Tensor | None, table: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [rows, kv_heads, columns, head_dim] of `dtype`; any page where there is none."""
    index = table.clamp(min=0).long()  # [R, P]
    x = pages[index].to(dtype)  # [R, P, H, S, D]
    if scale is not None:
        x = x * scale[index].to(dtype)[..., None]  # [R, P, H, S, D]
    return x.transpose(1, 2).flatten(2, 3)
