"""Attention over a paged cache of keys and values: the checked public call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.attention import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def paged_attention(  # noqa: PLR0913 - two pools, where they are read, and their scales
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
    """Attend from new steps to what each of them may see of its row's columns.

    A row's columns are virtual: column c is entry `c % page_size` of page
    `table[row, c // page_size]`. What is outside a query's spans is not read and may hold anything.

    Args:
        q: float32, float16 or bfloat16 [rows, q_len, heads, head_dim], rotated.
        k_pages: keys [num_pages, kv_heads, page_size, head_dim], of the type of `q`, or int8;
            `heads` is a multiple of `kv_heads`, and query head h reads key head
            `h // (heads // kv_heads)`.
        v_pages: values, as `k_pages`.
        table: int32 [rows, pages_per_slot], pages of each row; -1 where there is none.
        spans: int32 [rows, q_len, num_spans, 2], ranges [start, stop) of visible columns, in any
            order; empty if start >= stop. A query that sees nothing gets zeros.
        scale: multiplies the scores, usually head_dim ** -0.5.
        k_scale: float16 [num_pages, kv_heads, page_size], of int8 keys; None for other keys.
        v_scale: the same of values.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        [rows, q_len, heads, head_dim] of the type of `q`, contiguous.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.
    """
    _check_shapes(q, k_pages, v_pages, table, spans)
    _check_types(q, k_pages, v_pages, table, spans)
    _check_scales(k_pages, k_scale, v_scale)
    arguments = (q, k_pages, v_pages, table, spans, scale, k_scale, v_scale)
    if backend == "reference":
        return reference.paged_attention(*arguments)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(q, k_pages, v_pages, table, spans, k_scale, v_scale)
    _check_strides(k_pages, v_pages, "keys and values")
    if k_scale is not None and v_scale is not None:
        _check_strides(k_scale, v_scale, "their scales")
    from kernels.attention import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.paged_attention(*arguments)


def _check_shapes(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, table: Tensor, spans: Tensor
) -> None:
    is_fitting = (
        q.ndim == 4
        and k_pages.ndim == 4
        and v_pages.shape == k_pages.shape
        and q.shape[3] == k_pages.shape[3]
        and k_pages.shape[1] > 0
        and q.shape[2] % k_pages.shape[1] == 0
        and table.ndim == 2
        and spans.ndim == 4
        and len(table) == len(q)
        and spans.shape[:2] == q.shape[:2]
        and spans.shape[3] == 2
    )
    if not is_fitting or min(q.shape) == 0:
        raise ValueError(
            "expected q [rows, q_len, heads, head_dim], pages [num_pages, kv_heads, page_size, "
            "head_dim], table [rows, pages_per_slot], spans [rows, q_len, num_spans, 2], got "
            f"{list(q.shape)}, {list(k_pages.shape)}, {list(v_pages.shape)}, {list(table.shape)}, "
            f"{list(spans.shape)}"
        )


def _check_types(q: Tensor, k_pages: Tensor, v_pages: Tensor, table: Tensor, spans: Tensor) -> None:
    if q.dtype not in _DTYPES or k_pages.dtype not in {q.dtype, torch.int8}:
        raise ValueError(
            f"expected q in fp32, fp16 or bf16 and pages of its type or int8, got {q.dtype} and "
            f"{k_pages.dtype}"
        )
    if v_pages.dtype != k_pages.dtype:
        raise ValueError(f"expected values in {k_pages.dtype} as keys, got {v_pages.dtype}")
    if table.dtype != torch.int32 or spans.dtype != torch.int32:
        raise ValueError(f"expected int32 table and spans, got {table.dtype}, {spans.dtype}")


def _check_scales(k_pages: Tensor, k_scale: Tensor | None, v_scale: Tensor | None) -> None:
    expected = list(k_pages.shape[:3]) if k_pages.dtype == torch.int8 else None
    for name, scale in (("k_scale", k_scale), ("v_scale", v_scale)):
        got = None if scale is None else list(scale.shape)
        if got != expected or (scale is not None and scale.dtype != torch.float16):
            raise ValueError(
                f"expected {name} {expected} in float16 for {k_pages.dtype} pages, got {got}"
                + ("" if scale is None else f" in {scale.dtype}")
            )


def _check_strides(keys: Tensor, values: Tensor, what: str) -> None:
    """Refuse pools that do not lie alike: one offset finds an entry in both."""
    if keys.stride() != values.stride() or keys.stride(-1) != 1:
        raise ValueError(
            f"backend triton: expected {what} to lie alike, contiguous in the last axis, got "
            f"strides {keys.stride()} and {values.stride()}"
        )
