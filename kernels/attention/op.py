"""Attention over a paged cache of keys and values: checked public calls.

A slot's columns are virtual: column c is column `c % page_size` of page `table[row, c //
page_size]`. Which of them a query sees is said in ranges, so that the cost is that of what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from kernels.attention import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

# A worked example of `table` and `spans`. Pages hold 16 columns. A slot has a prefix of 3 steps,
# pinned in columns 0-2, and a ring of 32 columns, 16-47. It has written 40 steps to the ring, so
# the last 8 of them went over the first 8: the oldest that is left is step 8 of the ring, in column
# 24.
#
#     table = [5, 9, 2]                      columns 0-15, 16-31 and 32-47
#     spans = [[0, 3], [16, 24], [24, 48]]   the prefix, what is after the wrap, what is before it
#
# Keys carry their position already, so the last two may be given in either order, or as one range.

_Attention = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, float, Tensor | None, Tensor | None], Tensor
]


def _triton_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    spans: Tensor,
    scale: float,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    check_triton(q, k_pages, v_pages, table, spans, k_scale, v_scale)
    if q.dtype not in _TRITON_TYPES:
        raise ValueError(f"backend triton: expected queries in fp32, fp16 or bf16, got {q.dtype}")
    _check_strides(k_pages, v_pages, "keys and values")
    if k_scale is not None and v_scale is not None:
        _check_strides(k_scale, v_scale, "their scales")
    from kernels.attention import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.paged_attention(q, k_pages, v_pages, table, spans, scale, k_scale, v_scale)


_TRITON_TYPES = (torch.float32, torch.float16, torch.bfloat16)

_ATTENTION: Mapping[str, _Attention] = {
    "reference": reference.paged_attention,
    "triton": _triton_attention,
}


def quantize_kv(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise keys or values to eight bits, one scale for each token and head.

    Args:
        x: floating point [..., head_dim], finite and below 8e6.

    Returns:
        levels: int8 [..., head_dim] in [-127, 127]; scale: float16 [...]. `x` is about
        `levels * scale[..., None]`, off by at most 0.51 scales; vectors whose largest number is
        below 4e-6 become zero.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", section 2.1, with a zero point of 0.
    """
    return reference.quantize(x)


def paged_attention(  # noqa: PLR0913 - all of these are tensors that it reads
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    spans: Tensor,
    *,
    scale: float,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    backend: Backend,
) -> Tensor:
    """Attend from new steps to the columns of their slots that they may see.

    Args:
        q: floating point [rows, q_len, heads, head_dim], rotated.
        k_pages: [num_pages, kv_heads, page_size, head_dim] of the type of `q`, or int8; rotated.
            The last two axes are contiguous, the others may have any stride. `kv_heads` divides
            `heads`: query head h reads key head `h // (heads // kv_heads)`.
        v_pages: as `k_pages`; for "triton" of the same strides.
        table: int32 [rows, pages_per_slot], page ids, -1 where there is none.
        spans: int32 [rows, q_len, num_spans, 2], disjoint ranges [start, stop) of columns that the
            query sees; empty ones (start >= stop) anywhere among them. Pages in them must exist.
        scale: what scores are multiplied with, as a rule `head_dim ** -0.5`.
        k_scale: float16 [num_pages, kv_heads, page_size], any strides; with int8 pages only.
        v_scale: as `k_scale`; for "triton" of the same strides, the last axis contiguous.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        [rows, q_len, heads, head_dim] of the type of `q`; exact zeros for a query that sees
        nothing. Columns that no query of a row sees may hold anything, NaN too.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: Kwon et al. 2023, "Efficient memory management for large language model serving with
    PagedAttention", section 4.1; Ainslie et al. 2023, "GQA" (heads that share keys).
    """
    _check_sizes(q, k_pages, v_pages, table, spans)
    _check_types(q, k_pages, v_pages, k_scale, v_scale)
    if table.dtype != torch.int32 or spans.dtype != torch.int32:
        raise ValueError(f"expected table and spans int32, got {table.dtype}, {spans.dtype}")
    implementation = _ATTENTION.get(backend)
    if implementation is None:
        raise ValueError(f"expected a backend out of {', '.join(_ATTENTION)}, got {backend}")
    return implementation(q, k_pages, v_pages, table, spans, scale, k_scale, v_scale)


def _check_sizes(q: Tensor, k_pages: Tensor, v_pages: Tensor, table: Tensor, spans: Tensor) -> None:
    rows, q_len, heads, head_dim = q.shape
    if k_pages.dim() != 4 or k_pages.shape[3] != head_dim or heads % k_pages.shape[1]:
        raise ValueError(
            f"expected pages [num_pages, a divisor of {heads}, page_size, {head_dim}], "
            f"got {list(k_pages.shape)}"
        )
    if v_pages.shape != k_pages.shape:
        raise ValueError(f"expected values {list(k_pages.shape)}, got {list(v_pages.shape)}")
    for name, pages in (("keys", k_pages), ("values", v_pages)):
        if pages.stride(3) != 1 or pages.stride(2) != head_dim:
            raise ValueError(f"expected contiguous {name} in a page, got strides {pages.stride()}")
    if table.shape[:1] != (rows,) or table.dim() != 2:
        raise ValueError(f"expected table [{rows}, pages_per_slot], got {list(table.shape)}")
    if spans.dim() != 4 or spans.shape[:2] != (rows, q_len) or spans.shape[3] != 2:
        raise ValueError(f"expected spans [{rows}, {q_len}, num_spans, 2], got {list(spans.shape)}")


def _check_types(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, k_scale: Tensor | None, v_scale: Tensor | None
) -> None:
    expected = q.dtype if k_scale is None else torch.int8
    if k_pages.dtype != expected or v_pages.dtype != expected:
        raise ValueError(f"expected pages of {expected}, got {k_pages.dtype}, {v_pages.dtype}")
    if (k_scale is None) != (v_scale is None):
        raise ValueError("expected scales for both keys and values, or for neither")
    for scale in (k_scale, v_scale):
        if scale is None:
            continue
        if scale.dtype != torch.float16 or scale.shape != k_pages.shape[:3]:
            raise ValueError(
                f"expected scales float16 {list(k_pages.shape[:3])}, "
                f"got {scale.dtype} {list(scale.shape)}"
            )


def _check_strides(keys: Tensor, values: Tensor, what: str) -> None:
    """Refuse pools that do not lie alike: one offset finds an entry in both."""
    if keys.stride() != values.stride() or keys.stride(-1) != 1:
        raise ValueError(
            f"backend triton: expected {what} to lie alike, contiguous in the last axis, got "
            f"strides {keys.stride()} and {values.stride()}"
        )
