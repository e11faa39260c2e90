"""Paged attention in Triton: as exact as PyTorch, and blind to what a query does not see."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import paged_attention
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device, poison

PAGE = 16  # half a turn of the kernel's loop


@dataclass(frozen=True)
class Case:
    """Arguments of one call."""

    q: Tensor
    k_pages: Tensor
    v_pages: Tensor
    table: Tensor
    spans: Tensor
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def run(self, backend: str) -> Tensor:
        """Attend."""
        scale = self.q.shape[-1] ** -0.5
        return paged_attention(
            self.q,
            self.k_pages,
            self.v_pages,
            self.table,
            self.spans,
            scale=scale,
            k_scale=self.k_scale,
            v_scale=self.v_scale,
            backend=backend,  # type: ignore[arg-type]  # parametrised
        )

    def row(self, index: int) -> Case:
        """Return the case of one row alone."""
        rows = slice(index, index + 1)
        return replace(self, q=self.q[rows], table=self.table[rows], spans=self.spans[rows])

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Attend with PyTorch's own kernel over the same keys and values laid out in a row."""
        keys, values = (
            _laid_out(pages, scale, self.table).to(dtype)
            for pages, scale in ((self.k_pages, self.k_scale), (self.v_pages, self.v_scale))
        )
        column = torch.arange(keys.shape[2], device=self.q.device)
        start, stop = self.spans[..., 0, None], self.spans[..., 1, None]
        mask = ((column >= start) & (column < stop)).any(2)[:, None]
        group = self.q.shape[2] // self.k_pages.shape[1]
        keys, values = (x.nan_to_num(0).repeat_interleave(group, 1) for x in (keys, values))
        q = self.q.to(dtype).transpose(1, 2)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2)


def make_case(
    device: str,
    lengths: list[list[tuple[int, int]]],
    *,
    q_len: int = 1,
    heads: int = 2,
    kv_heads: int = 2,
    head_dim: int = 16,
    page: int = PAGE,
    dtype: torch.dtype = torch.float32,
    is_int8: bool = False,
) -> Case:
    """Make rows that see `lengths[row]`, with everything that nobody sees poisoned."""
    rows, num_pages = len(lengths), -(-144 // page)
    num_spans = max(len(each) for each in lengths)
    padded = [each + [(5, 5)] * (num_spans - len(each)) for each in lengths]
    spans = torch.tensor(padded, dtype=torch.int32)[:, None].repeat(1, q_len, 1, 1)
    total = rows * num_pages + 3
    pages = torch.randn(2, total, kv_heads, page, head_dim)
    table = torch.randperm(total)[: rows * num_pages].view(rows, num_pages).int()
    seen = torch.zeros(total, page, dtype=torch.bool)
    for row, ranges in enumerate(lengths):
        for start, stop in ranges:
            for column in range(start, stop):
                seen[table[row, column // page], column % page] = True
    table[~seen[table.long()].any(-1)] = -1
    hidden = ~seen[:, None, :].expand(total, kv_heads, page)
    q = torch.randn(rows, q_len, heads, head_dim).to(dtype)
    if not is_int8:
        pages = pages.to(dtype)
        poison_at(pages, hidden)
        return _to(device, Case(q, pages[0], pages[1], table, spans))
    scale = (pages.abs().amax(-1) / 127).half()
    levels = (pages / scale.float()[..., None]).round().clamp(-127, 127).to(torch.int8)
    levels[:, hidden] = -128
    poison_at(scale, hidden)
    return _to(device, Case(q, levels[0], levels[1], table, spans, scale[0], scale[1]))


def poison_at(x: Tensor, hidden: Tensor) -> None:
    """Poison the hidden places of keys and values alike."""
    x[:, hidden] = poison(torch.empty((), dtype=x.dtype))


def _tensors(case: Case) -> tuple[Any, ...]:
    return tuple(getattr(case, field.name) for field in fields(case))


def _to(device: str, case: Case) -> Case:
    parts: Any = (None if each is None else each.to(device) for each in _tensors(case))
    return Case(*parts)


def _laid_out(pages: Tensor, scale: Tensor | None, table: Tensor) -> Tensor:
    held = pages[table.clamp(min=0).long()].float()
    if scale is not None:
        held = held * scale[table.clamp(min=0).long()].float()[..., None]
    return held.transpose(1, 2).flatten(2, 3)


# A lone column; a short row; a ring that has wrapped, behind a pinned prefix.
ROWS = [[(7, 8)], [(0, 37)], [(0, 3), (16, 40), (43, 144)]]


@pytest.mark.parametrize(
    ("form", "heads", "kv_heads", "q_len", "head_dim"),
    [
        ("fp32", 2, 2, 1, 16),
        ("fp16", 2, 2, 1, 24),
        ("int8", 2, 2, 1, 16),
        ("fp32", 6, 2, 1, 24),
        ("fp16", 2, 1, 3, 16),
        ("int8", 6, 2, 1, 16),
        ("fp32", 1, 1, 17, 1),
    ],
)
@on_device
def test_as_exact_as_pytorch(
    device: str, form: str, heads: int, kv_heads: int, q_len: int, head_dim: int
) -> None:
    """The error is at most twice that of PyTorch's attention over the same keys in a row.

    Whatever no query sees is poisoned: foreign pages, columns outside spans, outputs beforehand.
    """
    torch.manual_seed(0)
    dtype = torch.float16 if form == "fp16" else torch.float32
    case = make_case(
        device,
        ROWS,
        q_len=q_len,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=dtype,
        is_int8=form == "int8",
    )
    with Guarded():
        got = case.run("triton")
    assert got.dtype == dtype
    assert got.shape == case.q.shape
    assert_as_exact(got, case.dense(dtype), case.dense(torch.float64))


@on_device
def test_a_row_alone_gets_the_same_bits(device: str) -> None:
    """Nothing of a row depends on its batch, on the order of rows, or on which pages it has."""
    torch.manual_seed(0)
    for q_len in (1, 3):
        case = make_case(device, ROWS[1:], q_len=q_len, heads=1, kv_heads=1)
        got = case.run("triton")
        for row in range(2):
            assert torch.equal(case.row(row).run("triton")[0], got[row])
        order = torch.randperm(len(case.k_pages), device=device)
        table = torch.where(case.table < 0, case.table, order.argsort()[case.table.long()].int())
        moved = replace(case, k_pages=case.k_pages[order], v_pages=case.v_pages[order], table=table)
        assert torch.equal(moved.run("triton"), got)


@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("q_len", [1, 3])
@on_device
def test_pages_of_a_whole_turn(device: str, q_len: int, is_int8: bool) -> None:
    """Where a page holds a multiple of what a turn of the loop reads, the result is the same."""
    torch.manual_seed(0)
    case = make_case(device, ROWS[1:], q_len=q_len, page=32, is_int8=is_int8)
    torch.testing.assert_close(case.run("triton"), case.run("reference"), atol=1e-5, rtol=1e-5)


@on_device
def test_bf16(device: str) -> None:
    """Queries and pages in bf16 give what fp32 arithmetic on the same numbers gives.

    Triton's interpreter cuts to bf16 where a device rounds, so a whole bit is allowed.
    """
    torch.manual_seed(0)
    for q_len in (1, 3):
        case = make_case(device, ROWS[1:], q_len=q_len, dtype=torch.bfloat16)
        exact = case.dense(torch.float64)
        error = (case.run("triton").double() - exact).abs().max()
        assert error <= 2.0**-7 * exact.abs().max()


@on_device
def test_a_query_that_sees_nothing(device: str) -> None:
    """It gets zeros, beside others of its tile and alone, in one chunk and in several."""
    torch.manual_seed(0)
    nothing = [(9, 9), (30, 20)]
    for q_len in (1, 2):
        case = make_case(device, [[(0, 5)], nothing], q_len=q_len)
        case.spans[0, q_len - 1] = case.spans[1, 0]
        for each in (case, replace(case, table=case.table[:, :2])):
            with Guarded():
                got = each.run("triton")
            assert not got[1].any()
            assert not got[0, q_len - 1].any()
            assert got[0, : q_len - 1].all()


@on_device
def test_offsets_beyond_int32(device: str) -> None:
    """A pool of more than 2**31 entries is read where it should be."""
    torch.manual_seed(0)
    case = make_case(device, [[(0, 16)]], kv_heads=1, is_int8=True)
    page = case.table[0, 0]
    stride = 2**31
    pools = []
    for pages in (case.k_pages, case.v_pages):
        store = torch.empty(stride + 256, dtype=torch.int8, device=device)  # hardly touched
        pool = store.as_strided((2, 1, PAGE, 16), (stride, 256, 16, 1))
        pool[1] = pages[page]
        pools.append(pool)
    assert case.k_scale is not None
    assert case.v_scale is not None
    far = replace(
        case,
        k_pages=pools[0],
        v_pages=pools[1],
        table=torch.ones_like(case.table[:, :1]),
        k_scale=case.k_scale[page].expand(2, 1, PAGE),
        v_scale=case.v_scale[page].expand(2, 1, PAGE),
    )
    near = replace(case, table=case.table[:, :1])
    assert torch.equal(far.run("triton"), near.run("triton"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("q_len", [1, 3])
@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_a_captured_call_follows_its_inputs(form: str, q_len: int) -> None:
    """A graph serves other lengths and queries than it was captured with, to the same bits."""
    torch.manual_seed(0)
    case = make_case(
        "cuda",
        ROWS,
        q_len=q_len,
        head_dim=128,
        dtype=torch.float32 if form == "int8" else torch.bfloat16,
        is_int8=form == "int8",
    )
    case.run("triton")  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = case.run("triton")
    case.q.normal_()
    case.spans[2] = torch.tensor([[0, 2], [20, 30], [50, 140]])
    case.spans[1] = 0
    expected = case.run("triton")
    for _ in range(100):
        graph.replay()
        assert torch.equal(got, expected)


def test_refusals() -> None:
    """Pools that do not lie alike, other types and other devices are told."""
    case = make_case("cpu", [[(0, 5)]])
    apart = replace(case, v_pages=torch.zeros(2 * len(case.v_pages), *case.v_pages.shape[1:])[::2])
    with pytest.raises(ValueError, match="expected keys and values to lie alike"):
        apart.run("triton")
    double = replace(
        case, **{name: getattr(case, name).double() for name in ("q", "k_pages", "v_pages")}
    )
    with pytest.raises(ValueError, match=r"fp32, fp16 or bf16, got torch\.float64"):
        double.run("triton")
    meta = _to("meta", case)
    with pytest.raises(ValueError, match="expected tensors on cuda, got meta"):
        meta.run("triton")
    with pytest.raises(ValueError, match="expected one device, got cpu, meta"):
        replace(case, q=case.q.to("meta")).run("triton")
