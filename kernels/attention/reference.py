"""The meaning of paged attention, in plain PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Attend in fp32; arguments as `kernels.attention.op.paged_attention`."""
    kv_heads = k_pages.shape[1]
    seen = _visible(table, spans, k_pages.shape[2])  # [R, T, C]
    is_read = seen.any(1)[:, None, :, None]
    # A column that nobody sees may hold anything, and zero times NaN is NaN.
    k = _gather(k_pages, k_scale, table).where(is_read, 0)  # [R, H, C, D]
    v = _gather(v_pages, v_scale, table).where(is_read, 0)
    grouped = torch.unflatten(q.float(), 2, (kv_heads, -1))  # [R, T, H, G, D]
    scores = torch.einsum("rthgd,rhcd->rthgc", grouped, k) * scale
    scores = scores.masked_fill(~seen[:, :, None, None], float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0)  # a query that sees nothing gets zeros
    return torch.einsum("rthgc,rhcd->rthgd", weights, v).flatten(2, 3).to(q.dtype)


def _visible(table: Tensor, spans: Tensor, page_size: int) -> Tensor:
    columns = torch.arange(table.shape[1] * page_size, device=table.device)
    start, stop = spans[..., 0, None], spans[..., 1, None]  # [R, T, S, 1]
    seen = ((columns >= start) & (columns < stop)).any(2)
    has_page = (table >= 0).repeat_interleave(page_size, dim=1)
    return seen & has_page[:, None]


def _gather(pages: Tensor, scale: Tensor | None, table: Tensor) -> Tensor:
    """Return float32 [rows, kv_heads, columns, head_dim] of the rows' pages."""
    index = table.clamp(min=0).long()
    held = pages[index].float()  # [R, P, H, page, D]
    if scale is not None:
        held *= scale[index].float()[..., None]
    return held.transpose(1, 2).flatten(2, 3)
