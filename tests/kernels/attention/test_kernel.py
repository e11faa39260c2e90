"""Paged attention: what a row sees is what counts, wherever it lies and whoever its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import paged_attention
from tests.kernels.triton_cases import Guarded, assert_as_exact, on_device, poison

PAGE = 16


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
    num_pages: int = 9,
    dtype: torch.dtype = torch.float32,
    is_int8: bool = False,
) -> Case:
    """Make rows that see `lengths[row]`, with everything that nobody sees poisoned."""
    rows = len(lengths)
    num_spans = max(len(each) for each in lengths)
    padded = [each + [(5, 5)] * (num_spans - len(each)) for each in lengths]
    spans = torch.tensor(padded, dtype=torch.int32)[:, None].repeat(1, q_len, 1, 1)
    total = rows * num_pages + 3
    pages = torch.randn(2, total, kv_heads, PAGE, head_dim)
    table = torch.randperm(total)[: rows * num_pages].view(rows, num_pages).int()
    seen = torch.zeros(total, PAGE, dtype=torch.bool)
    for row, ranges in enumerate(lengths):
        for start, stop in ranges:
            for column in range(start, stop):
                seen[table[row, column // PAGE], column % PAGE] = True
    for row, page in (~seen[table.long()].any(-1)).nonzero().tolist():
        table[row, page] = -1
    hidden = ~seen[:, None, :].expand(total, kv_heads, PAGE)
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


def _to(device: str, case: Case) -> Case:
    return Case(
        *(
            None if each is None else each.to(device)
            for each in (
                case.q,
                case.k_pages,
                case.v_pages,
                case.table,
                case.spans,
                case.k_scale,
                case.v_scale,
            )
        )
    )


def _laid_out(pages: Tensor, scale: Tensor | None, table: Tensor) -> Tensor:
    held = pages[table.clamp(min=0).long()].float()
    if scale is not None:
        held = held * scale[table.clamp(min=0).long()].float()[..., None]
    return held.transpose(1, 2).flatten(2, 3)


# A lone column; a short row; a ring that has wrapped, behind a pinned prefix.
ROWS = [[(7, 8)], [(0, 37)], [(0, 3), (16, 40), (43, 144)]]


@pytest.mark.parametrize("backend", ["reference", pytest.param("triton")])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "q_len", "head_dim"), [(2, 2, 1, 16), (6, 2, 1, 24), (2, 1, 3, 16)]
)
@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
@on_device
def test_as_exact_as_pytorch(
    device: str, form: str, heads: int, kv_heads: int, q_len: int, head_dim: int, backend: str
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
    with Guarded() if backend == "triton" else torch.enable_grad():
        got = case.run(backend)
    assert got.dtype == dtype
    assert got.shape == case.q.shape
    assert_as_exact(got, case.dense(dtype), case.dense(torch.float64))
