"""The write into the paged cache: what the reference writes and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.kv_write import rotate_and_write
from tests.kernels.triton_cases import Guarded, on_device, poison

PAGE = 8
ROWS, STEPS, NUM_PAGES = 3, 2, 5


def _inputs(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    qkv = (torch.randn(ROWS, STEPS, heads + 2 * kv_heads, head_dim) * 3).to(dtype)
    qkv[0, 0, heads] = 0  # a key that has no scale
    angle = torch.rand(ROWS, STEPS, 1, head_dim // 2) * 7
    return qkv, torch.polar(torch.ones_like(angle), angle)


def _places() -> Tensor:
    """Return places in a pool of `NUM_PAGES`, the first and the last among them."""
    return torch.tensor([[0, NUM_PAGES * PAGE - 1], [26, 9], [25, 8]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 2, 16), (9, 3, 24), (1, 1, 2)])
@on_device
def test_writes_what_the_reference_writes(
    device: str, heads: int, kv_heads: int, head_dim: int, is_int8: bool, dtype: torch.dtype
) -> None:
    """Pages, scales and queries are the reference's up to the last bit, untouched places included.

    A device may contract a product and a sum where PyTorch does not, which moves a value by a bit
    of its type, or a level by one.
    """
    torch.manual_seed(0)
    qkv, rope = (x.to(device) for x in _inputs(heads, kv_heads, head_dim, dtype))
    places = _places().to(device)
    written: dict[str, list[Tensor]] = {}
    for backend in ("reference", "triton"):
        shape = (NUM_PAGES, kv_heads, PAGE, head_dim)
        pages = [
            poison(torch.empty(shape, dtype=torch.int8 if is_int8 else dtype, device=device))
            for _ in range(2)
        ]
        scales = [
            poison(torch.empty(shape[:3], dtype=torch.float16, device=device)) for _ in range(2)
        ]
        k_scale, v_scale = scales if is_int8 else (None, None)
        with Guarded() if backend == "triton" else torch.enable_grad():
            q = rotate_and_write(
                qkv,
                rope,
                pages[0],
                pages[1],
                places,
                k_scale=k_scale,
                v_scale=v_scale,
                backend=backend,
            )
        written[backend] = [q, *pages, *scales]
    for got, expected in zip(written["triton"], written["reference"], strict=True):
        if got.dtype == torch.int8:
            assert (got.int() - expected.int()).abs().max() <= 1
        else:
            bit = 4 * torch.finfo(got.dtype).eps
            torch.testing.assert_close(got, expected, rtol=bit, atol=bit, equal_nan=True)
    stored = written["triton"][1]
    lowest = poison(torch.empty((), dtype=stored.dtype, device=device))
    is_touched = ~torch.isclose(stored.double(), lowest.double(), equal_nan=True).all(-1)
    assert is_touched.sum() == ROWS * STEPS * kv_heads


@on_device
def test_offsets_beyond_int32(device: str) -> None:
    """A pool of more than 2**31 entries is written where it should be."""
    stride = 2**31
    store = torch.empty(stride + 64, dtype=torch.int8, device=device)  # most is never touched
    store[:64], store[stride:] = -128, -128
    pages = store.as_strided((2, 1, 4, 4), (stride, 16, 4, 1))
    scale = torch.zeros((2, 1, 4), dtype=torch.float16, device=device)
    qkv = torch.tensor([[[[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 127]]]], device=device)
    rotate_and_write(
        qkv,
        torch.ones((1, 1, 1, 2), dtype=torch.complex64, device=device),
        pages,
        pages,
        torch.tensor([[4 + 2]], dtype=torch.int32, device=device),
        k_scale=scale,
        v_scale=scale.clone(),
        backend="triton",
    )
    assert pages[1, 0, 2].tolist() == [1, 2, 3, 127]
    assert (store[:64] == -128).all()


def test_refusals() -> None:
    """Sizes, types and backends that do not fit are told, got and expected."""
    qkv, rope = _inputs(2, 2, 16, torch.float32)
    places = _places()
    pages = torch.zeros(NUM_PAGES, 2, PAGE, 16)
    with pytest.raises(ValueError, match=r"got \[3, 2, 6, 16\], \[3, 1, 1, 8\]"):
        rotate_and_write(qkv, rope[:, :1], pages, pages, places, backend="reference")
    half, levels = pages.half(), pages.to(torch.int8)
    with pytest.raises(ValueError, match=r"got torch\.float32 and torch\.float16"):
        rotate_and_write(qkv, rope, half, half, places, backend="reference")
    with pytest.raises(ValueError, match=r"expected k_scale \[5, 2, 8\] in float16 .* got None"):
        rotate_and_write(qkv, rope, levels, levels, places, backend="reference")
    with pytest.raises(ValueError, match=r"places, got torch\.float32"):
        rotate_and_write(qkv, rope, pages, pages, places.float(), backend="reference")
    with pytest.raises(ValueError, match="out of reference, triton, got fast"):
        rotate_and_write(qkv, rope, pages, pages, places, backend="fast")  # type: ignore[arg-type]  # the point
