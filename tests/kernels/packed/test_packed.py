"""Packed weights: the same product, however many rows there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernels.int8 import Int8Linear
from kernels.packed import MIN_ROWS, PackedLinear, can_pack, use_packed

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this machine's library packs nothing"
)


@pytest.mark.parametrize("shape", [(1, 48), (MIN_ROWS - 1, 48), (MIN_ROWS, 48), (3, 5, 48)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_is_plain(shape: tuple[int, ...], *, bias: bool) -> None:
    """Whether it is worth packing or not, the numbers are the same."""
    torch.manual_seed(0)
    plain = nn.Linear(48, 40, bias=bias)
    x = torch.randn(shape)
    torch.testing.assert_close(PackedLinear(plain)(x), plain(x), rtol=1e-5, atol=1e-5)


def test_only_plain_linears_in_fp32_are_packed() -> None:
    """What is something else, or of another type, stays what it is; a state is saved as before."""
    module = nn.Sequential(
        nn.Linear(16, 16),
        nn.Sequential(nn.Linear(16, 8, bias=False), nn.LayerNorm(8)),
        Int8Linear(16, 16, "aten"),
        nn.Linear(16, 16).double(),
    )
    names = module.state_dict().keys()
    assert use_packed(module) == 2
    assert [type(each) for each in (module[0], module[3])] == [PackedLinear, nn.Linear]
    assert module.state_dict().keys() == names
    assert use_packed(module) == 0


def test_gradients_flow_as_ever() -> None:
    """Where something is trained, a packed layer is a plain one."""
    layer = PackedLinear(nn.Linear(16, 8))
    layer(torch.randn(9, 16)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this machine has no fast bf16 product")
@pytest.mark.parametrize("num_rows", [1, 31, 32, 64, 65])
@torch.inference_mode()
def test_int8_of_many_rows_is_that_of_few(num_rows: int) -> None:
    """However many rows, int8 levels are multiplied exactly and scaled before they are rounded."""
    torch.manual_seed(num_rows)
    layer = Int8Linear.from_linear(nn.Linear(256, 96, bias=False), "aten")
    layer.pack()
    x = torch.randn(num_rows, 256).bfloat16()
    exact = (x.double() @ layer.levels.double().T * layer.scale.double()).bfloat16()
    made = layer(x)
    assert made.shape == (num_rows, 96)
    # Sums in another order may round to the other neighbour, once in a thousand.
    assert (made == exact).float().mean() > 0.99
    torch.testing.assert_close(made.float(), exact.float(), rtol=2**-7, atol=1e-4)
