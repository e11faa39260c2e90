"""Rotary embedding and the write into the paged cache: the checked public call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.kv_write import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def rotate_and_write(
    qkv: Tensor,
    rope: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    places: Tensor,
    *,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    backend: Backend,
) -> Tensor:
    """Rotate queries and keys of new steps, and write keys and values into their rows' pages.

    Args:
        qkv: [rows, steps, heads + 2 * kv_heads, head_dim], floating point, for "triton" of 32 or
            16 bits: queries, keys, values.
        rope: complex [rows, steps, 1, head_dim / 2], of neighbouring pairs; for "triton" complex64.
        k_pages: [num_pages, kv_heads, page_size, head_dim], of the type of `qkv` or int8; written.
        v_pages: the same of values.
        places: int32 or int64 [rows, steps], where each step is written to: entry `p % page_size`
            of page `p // page_size`. If two steps write to one place, its content is undefined;
            such places must never be read.
        k_scale: float16 [num_pages, kv_heads, page_size], of int8 pages; written. Levels and scales
            are those of `kernels.attention.op.quantize_kv`.
        v_scale: the same of values.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        The rotated queries, [rows, steps, heads, head_dim] of the type of `qkv`.

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: Su et al. 2021, RoFormer, equation 34.
    """
    _check_shapes(qkv, rope, k_pages, v_pages, places)
    _check_types(qkv, rope, k_pages, v_pages, places)
    _check_scales(k_pages, k_scale, v_scale)
    if backend == "reference":
        return reference.rotate_and_write(qkv, rope, k_pages, v_pages, places, k_scale, v_scale)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    check_triton(qkv, rope, k_pages, v_pages, places, k_scale, v_scale)
    if qkv.dtype not in _DTYPES or rope.dtype != torch.complex64:
        raise ValueError(
            f"backend triton: expected qkv in fp32, fp16 or bf16 and rope in complex64, got "
            f"{qkv.dtype} and {rope.dtype}"
        )
    # Heads, pages and steps may have any stride; what one program reads in one go may not.
    written = (k_pages, v_pages, k_scale, v_scale)
    if any(each is not None and each.stride(-1) != 1 for each in written):
        raise ValueError("backend triton: expected pages and scales contiguous in the last axis")
    from kernels.kv_write import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    return kernel.rotate_and_write(qkv, rope, k_pages, v_pages, places, k_scale, v_scale)


def _check_shapes(
    qkv: Tensor, rope: Tensor, k_pages: Tensor, v_pages: Tensor, places: Tensor
) -> None:
    is_fitting = (
        qkv.ndim == 4
        and k_pages.ndim == 4
        and v_pages.shape == k_pages.shape
        and qkv.shape[3] == k_pages.shape[3]
        and qkv.shape[3] % 2 == 0
        and qkv.shape[2] > 2 * k_pages.shape[1] > 0
        and rope.shape == (*qkv.shape[:2], 1, qkv.shape[3] // 2)
        and places.shape == qkv.shape[:2]
    )
    if not is_fitting or min(qkv.shape) == 0:
        raise ValueError(
            "expected qkv [rows, steps, heads + 2 * kv_heads, head_dim], rope [rows, steps, 1, "
            "head_dim / 2], pages [num_pages, kv_heads, page_size, head_dim], places [rows, steps],"
            f" got {list(qkv.shape)}, {list(rope.shape)}, {list(k_pages.shape)}, "
            f"{list(v_pages.shape)}, {list(places.shape)}"
        )


def _check_types(
    qkv: Tensor, rope: Tensor, k_pages: Tensor, v_pages: Tensor, places: Tensor
) -> None:
    if not qkv.is_floating_point() or k_pages.dtype not in {qkv.dtype, torch.int8}:
        raise ValueError(
            f"expected floating qkv and pages of its type or int8, got {qkv.dtype} and "
            f"{k_pages.dtype}"
        )
    if v_pages.dtype != k_pages.dtype or not rope.is_complex():
        raise ValueError(
            f"expected values in {k_pages.dtype} and a complex rope, got {v_pages.dtype} and "
            f"{rope.dtype}"
        )
    if places.dtype not in {torch.int32, torch.int64}:
        raise ValueError(f"expected int32 or int64 places, got {places.dtype}")


def _check_scales(k_pages: Tensor, k_scale: Tensor | None, v_scale: Tensor | None) -> None:
    expected = list(k_pages.shape[:3]) if k_pages.dtype == torch.int8 else None
    for name, scale in (("k_scale", k_scale), ("v_scale", v_scale)):
        got = None if scale is None else list(scale.shape)
        if got != expected or (scale is not None and scale.dtype != torch.float16):
            raise ValueError(
                f"expected {name} {expected} in float16 for {k_pages.dtype} pages, got {got}"
                + ("" if scale is None else f" in {scale.dtype}")
            )
