"""Attention: the visibility rule key by key, rotary positions, grouped heads."""

from __future__ import annotations

import pytest
import torch

from model.cache.rotary import rope_frequencies, rope_table
from model.cache.state import Kind
from model.config import LMConfig
from model.transformer.attention import Attention, RMSNorm, visibility

CONFIG = LMConfig(text_window=5, audio_window=7)


@pytest.mark.parametrize("seed", range(3))
def test_visibility_is_the_rule(seed: int) -> None:
    """Masks equal the rule spelled out key by key."""
    rng = torch.Generator().manual_seed(seed)
    kinds = [Kind(1 + int(k)) for k in torch.randint(4, (40,), generator=rng)]
    got = visibility(torch.tensor([[int(k) for k in kinds]]), CONFIG)[0]
    audio = {Kind.LISTEN, Kind.SPEAK}
    for query in range(40):
        past = kinds[: query + 1]
        for key in range(40):
            group = {Kind.TEXT} if kinds[key] == Kind.TEXT else audio
            window = CONFIG.text_window if kinds[key] == Kind.TEXT else CONFIG.audio_window
            newer = sum(kind in group for kind in past[key + 1 :])
            pinned = kinds[key] == Kind.PREFIX
            expected = key <= query and (pinned or newer < window or key == query)
            assert bool(got[query, key]) == expected, (query, key)


def test_padding_is_seen_by_itself_only() -> None:
    """Filler at the end of a row is no key for anyone else, and its own row stays finite."""
    kind = torch.tensor([[Kind.TEXT, Kind.PAD, Kind.TEXT, Kind.PAD]])
    got = visibility(kind, CONFIG)[0].int().tolist()
    assert got == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_scores_depend_on_distance_only() -> None:
    """Shifting all positions changes no attention output."""
    torch.manual_seed(0)
    attention = Attention(32, 4, 2)
    x = torch.randn(1, 6, 32)
    frequencies = rope_frequencies(8, 10_000.0)
    position = torch.arange(6)[None]
    near = attention(x, rope_table(position, frequencies), None, is_causal=True)
    far = attention(x, rope_table(position + 500, frequencies), None, is_causal=True)
    other = attention(x, rope_table(position * 3, frequencies), None, is_causal=True)
    torch.testing.assert_close(near, far, atol=1e-4, rtol=0)
    assert (near - other).abs().max() > 1e-3


def test_grouped_heads_share_keys() -> None:
    """Two query heads per key head equal full attention with its key heads repeated."""
    torch.manual_seed(0)
    grouped, full = Attention(32, 4, 2), Attention(32, 4, 4)
    q, k, v = grouped.qkv.weight.split((32, 16, 16))
    repeat = lambda w: w.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)  # noqa: E731
    full.qkv.weight.data = torch.cat((q, repeat(k), repeat(v)))
    full.out.weight.data = grouped.out.weight.data
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(
        grouped(x, None, None, is_causal=True), full(x, None, None, is_causal=True)
    )


def test_norm_divides_by_the_root_mean_square() -> None:
    """With eps inside the root, so that zeros stay zero."""
    norm = RMSNorm(4, 1e-2)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = torch.tensor([[2.0, -2.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    expected = x / 4.01**0.5 * norm.weight
    torch.testing.assert_close(norm(x), expected)


def test_bf16_attention_on_a_cpu_equals_the_fused_kernel() -> None:
    """The path that training takes on a CPU computes the same function, grouped heads included."""
    torch.manual_seed(0)
    attention = Attention(32, 4, 2).bfloat16()
    x = torch.randn(2, 9, 32, dtype=torch.bfloat16)
    mask = torch.rand(2, 1, 9, 9) < 0.5
    mask |= torch.eye(9, dtype=torch.bool)
    expected = attention.float()(x.float(), None, mask)
    got = attention.bfloat16()(x, None, mask)
    torch.testing.assert_close(got.float(), expected, atol=2e-2, rtol=2e-2)
