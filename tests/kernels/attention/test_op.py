"""Attention over pages: equal to plain attention over what is seen, blind to the rest."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kernels.attention.op import paged_attention, quantize_kv

HEADS, KV_HEADS, PAGE, DIM = 6, 2, 5, 8
TABLE = torch.tensor([[3, 0, -1], [5, -1, 4]], dtype=torch.int32)
# Two queries a row, three spans each: wrapped, pinned, empty.
SPANS = torch.tensor(
    [
        [[[0, 2], [4, 9], [0, 0]], [[0, 3], [6, 6], [4, 9]]],
        [[[1, 4], [11, 15], [3, 1]], [[0, 0], [0, 0], [0, 0]]],
    ],
    dtype=torch.int32,
)


def make_pages(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, key pages and value pages, the pages strided as in a pool."""
    rng = torch.Generator().manual_seed(seed)
    q = torch.randn((2, 2, HEADS, DIM), generator=rng)
    pool = torch.randn((2, KV_HEADS, 7, PAGE, DIM), generator=rng)
    return q, pool[0].transpose(0, 1), pool[1].transpose(0, 1)


def seen_columns(row: int, query: int) -> list[tuple[int, int]]:
    """Return page and column in it of everything that a query sees."""
    columns = [c for a, b in SPANS[row, query].tolist() for c in range(a, b)]
    return [(int(TABLE[row, c // PAGE]), c % PAGE) for c in columns]


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Call the op on the table and spans above."""
    return paged_attention(q, k, v, TABLE, SPANS, scale=0.3, backend="reference")


def test_equals_attention_over_what_is_seen() -> None:
    """Each query, taken alone with its columns copied out, gives the same."""
    q, k_pages, v_pages = make_pages()
    got = attend(q, k_pages, v_pages)
    for row, query in ((0, 0), (0, 1), (1, 0)):
        where = seen_columns(row, query)
        k = torch.stack([k_pages[page, :, column] for page, column in where], dim=1)
        v = torch.stack([v_pages[page, :, column] for page, column in where], dim=1)
        expected = F.scaled_dot_product_attention(
            q[row, query][None, :, None], k[None], v[None], scale=0.3, enable_gqa=True
        )
        torch.testing.assert_close(got[row, query], expected[0, :, 0])


def test_who_sees_nothing_gets_zeros() -> None:
    """Not NaN, as a softmax over nothing would give."""
    assert not attend(*make_pages())[1, 1].any()


def test_what_is_not_seen_may_hold_anything() -> None:
    """NaN in other pages, and in the rest of one's own, changes nothing."""
    q, k_pages, v_pages = make_pages()
    expected = attend(q, k_pages, v_pages)
    seen = [place for row in range(2) for query in range(2) for place in seen_columns(row, query)]
    hidden = torch.ones((7, PAGE), dtype=torch.bool)
    for place in seen:
        hidden[place] = False
    for pages in (k_pages, v_pages):
        pages.transpose(1, 2)[hidden] = torch.nan
    assert torch.equal(attend(q, k_pages, v_pages), expected)


def test_eight_bits_mean_levels_times_scales() -> None:
    """Attention over int8 pages is attention over what they stand for."""
    q, k_pages, v_pages = make_pages()
    (k, k_scale), (v, v_scale) = quantize_kv(k_pages), quantize_kv(v_pages)
    got = paged_attention(
        q, k, v, TABLE, SPANS, scale=0.3, k_scale=k_scale, v_scale=v_scale, backend="reference"
    )
    expected = attend(q, k * k_scale[..., None].float(), v * v_scale[..., None].float())
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e4])
def test_eight_bits_are_off_by_half_a_level(size: float) -> None:
    """Of each vector's own scale, whatever its size; zero stays zero."""
    x = torch.randn((40, DIM), generator=torch.Generator().manual_seed(1)) * size
    x[0] = 0
    levels, scale = quantize_kv(x)
    error = (levels * scale[:, None].float() - x).abs().amax(-1)
    assert not levels[0].any()
    assert (error <= 0.51 * scale.float() + 4e-6).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"q": torch.zeros(2, 2, 5, DIM)}, "divisor of 5"),
        ({"v_pages": torch.zeros(6, KV_HEADS, PAGE, DIM)}, "expected values"),
        ({"k_pages": torch.zeros(7, KV_HEADS, DIM, PAGE).mT}, "contiguous keys"),
        ({"k_pages": torch.zeros(7, KV_HEADS, PAGE, DIM).half()}, "pages of torch.float32"),
        ({"table": TABLE[:1]}, r"table \[2, pages_per_slot\]"),
        ({"table": TABLE.long()}, "int32"),
        ({"spans": SPANS[:, :1]}, r"spans \[2, 2, num_spans, 2\]"),
        ({"k_scale": torch.zeros(7, KV_HEADS, PAGE).half()}, "pages of torch.int8"),
        ({"backend": "fast"}, "out of reference.*got fast"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, object], match: str) -> None:
    """Sizes and types are checked, and the message names got and expected."""
    q, k_pages, v_pages = make_pages()
    arguments = {
        "q": q,
        "k_pages": k_pages,
        "v_pages": v_pages,
        "table": TABLE,
        "spans": SPANS,
        "scale": 1.0,
        "backend": "reference",
    }
    with pytest.raises(ValueError, match=match):
        paged_attention(**{**arguments, **change})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("v_scale", "match"),
    [(None, "both"), (torch.zeros(7, KV_HEADS, PAGE), "scales float16")],
)
def test_refuses_scales_that_do_not_fit(v_scale: torch.Tensor | None, match: str) -> None:
    """Eight-bit pages need both scales, in float16."""
    q, k_pages, v_pages = make_pages()
    (k, k_scale), (v, _) = quantize_kv(k_pages), quantize_kv(v_pages)
    with pytest.raises(ValueError, match=match):
        paged_attention(
            q, k, v, TABLE, SPANS, scale=1.0, k_scale=k_scale, v_scale=v_scale, backend="reference"
        )
