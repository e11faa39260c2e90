"""How keys and values are kept: precision, copies, settings."""

from __future__ import annotations

import pytest
import torch

from model.cache.store import MemoryConfig, Store
from model.errors import ConfigError


def make_store(precision: str = "full", num_pages: int = 4) -> Store:
    """Return a store of pages of 3 steps, filled with noise."""
    store = Store(
        2,
        2,
        8,
        num_pages=num_pages,
        config=MemoryConfig(precision=precision, page_steps=3),  # type: ignore[arg-type]  # of a test's parameter
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    rng = torch.Generator().manual_seed(0)
    if store.scale is None:
        store.kv.normal_(generator=rng)
    else:
        store.kv.random_(-127, 128, generator=rng)
        store.scale.uniform_(generator=rng)
    return store


def test_eight_bits_take_a_quarter_of_fp32() -> None:
    """And two bytes for each step and head, with a page for what is not remembered."""
    full, small = make_store(), make_store("int8")
    assert full.num_bytes == (4 + 1) * full.page_bytes == 5 * (2 * 2 * 2 * 3 * 8 * 4)
    assert small.num_bytes == 5 * (2 * 2 * 2 * 3 * (8 + 2))


@pytest.mark.parametrize("precision", ["full", "int8"])
def test_pages_are_copied_whole(precision: str) -> None:
    """Into another page or out to the host and back; others keep what they hold."""
    store = make_store(precision)
    before = store.read(range(4))
    taken = store.read([3, 1])
    assert taken.num_bytes == 2 * store.page_bytes
    store.fill(0, 3)
    store.fill(1, None)
    store.write([2, 3], taken)
    after = store.read(range(4))
    for old, new in ((before.kv, after.kv), (before.scale, after.scale)):
        if old is None or new is None:
            assert precision == "full"
            continue
        assert torch.equal(new[:, :, :, 0], old[:, :, :, 3])
        assert not new[:, :, :, 1].any()
        assert torch.equal(new[:, :, :, 2], old[:, :, :, 3])
        assert torch.equal(new[:, :, :, 3], old[:, :, :, 1])


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"page_steps": 0}, "page_steps: must be at least 1, got 0"),
        ({"num_pages": 0}, "num_pages: must be at least 1, got 0"),
        ({"precision": "int4"}, "precision: expected one of full, int8, got 'int4'"),
        ({"reading": "fast"}, "reading: expected one of views, reference.*, got 'fast'"),
    ],
)
def test_refuses_settings_that_cannot_work(setting: dict[str, object], match: str) -> None:
    """By name."""
    with pytest.raises(ConfigError, match=match):
        MemoryConfig(**setting)  # type: ignore[arg-type]  # wrong on purpose
