"""Rotary positions: neighbouring pairs turn, each at its own pace."""

from __future__ import annotations

import torch

from model.cache.rotary import rope_frequencies, rope_table, rotate, rotate_


def test_rotation_turns_neighbouring_pairs() -> None:
    """Pair i of a head at step t turns by t * base ** (-2 i / width), in place and out of place."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 8)
    position = torch.tensor([[5, 44_000]])
    got = rotate(x, rope_table(position, rope_frequencies(8, 100.0)))
    for step, at in enumerate((5, 44_000)):
        for pair in range(4):
            angle = torch.tensor(at * 100.0 ** (-2 * pair / 8))
            a, b = x[0, step, :, 2 * pair], x[0, step, :, 2 * pair + 1]
            expected = torch.stack(
                (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1
            )
            pairs = got[0, step, :, 2 * pair : 2 * pair + 2]
            # fp32 angles of an hour-long call are only exact to about 1e-2 of a radian.
            torch.testing.assert_close(pairs, expected, atol=2e-2 if step else 1e-5, rtol=0)
    rotate_(x, rope_table(position, rope_frequencies(8, 100.0)))
    assert torch.equal(x, got)
