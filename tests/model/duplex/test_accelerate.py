"""What runs where: kernels and graphs follow from the device alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from kernels.int8 import Int8Linear
from kernels.nf4 import NF4Linear, PlanarNF4Gated
from model.config import LMConfig
from model.duplex.accelerate import drive_on, has_kernels, reading_on, use_kernels, use_linears
from model.duplex.driver import DuplexConfig
from model.errors import ConfigError
from model.transformer.attention import GatedMLP, RMSNorm
from model.transformer.linears import hot_linears
from model.transformer.lm import LM

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_only_cuda_has_kernels() -> None:
    """Draws and the reading of memory are those of the device."""
    drive = DuplexConfig(delays=(0, 0, 1))
    assert not has_kernels(CPU)
    assert has_kernels(CUDA)
    assert drive_on(CPU, drive) is drive
    on_cuda = drive_on(CUDA, drive)
    assert {on_cuda.text_sampling.backend, on_cuda.audio_sampling.backend} == {"triton"}
    assert (reading_on(CPU), reading_on(CUDA)) == ("views", "triton")


def test_a_cpu_keeps_plain_modules() -> None:
    """There a model is left as it was loaded."""
    norm, linear = (
        RMSNorm(8, 1e-5),
        NF4Linear.from_linear(nn.Linear(64, 8, bias=False), "reference"),
    )
    model = nn.Sequential(norm, linear)
    use_kernels(model)
    assert norm.backend == "reference"
    assert model[1] is linear


CONFIG = LMConfig(
    dim=64, num_heads=2, num_kv_heads=2, ff_dim=128, depth_dim=64, depth_heads=2, depth_ff=128
)


def quantised(form: Callable[[nn.Linear], nn.Module]) -> LM:
    """Return a small language model whose hot linears are of some form."""
    torch.manual_seed(0)
    lm = LM(CONFIG).eval()
    for name, linear in hot_linears(lm).items():
        lm.set_submodule(name, form(linear))
    return lm


@torch.no_grad()
def test_gated_mlps_run_in_one_launch() -> None:
    """Gate, up and what multiplies them are one module, in depth too; the model says the same."""
    lm = quantised(partial(NF4Linear.from_linear, backend="reference"))
    hidden = torch.randn(3, CONFIG.dim)
    text = torch.tensor([1, 2, 3])
    codes = torch.randint(CONFIG.codebook_size, (3, CONFIG.num_codebooks))
    x = torch.randn(2, 5, CONFIG.dim)
    before = lm.depth(hidden, text, codes), lm.layers[0].mlp(x), lm.depth.generate(hidden, text)
    use_linears(lm, "reference")
    fused = [each for each in lm.modules() if isinstance(each, PlanarNF4Gated)]
    assert len(fused) == CONFIG.num_layers + CONFIG.depth_layers
    assert not any(isinstance(each, NF4Linear) for each in lm.modules())
    after = lm.depth(hidden, text, codes), lm.layers[0].mlp(x), lm.depth.generate(hidden, text)
    for got, expected in zip(after, before, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_fused_mlp_on_the_kernels() -> None:
    """The Triton kernels in the module give what the plain module gives."""
    torch.manual_seed(0)
    mlp = GatedMLP(64, 128)
    for name in ("gate_up", "down"):
        linear = mlp.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        mlp.set_submodule(name, NF4Linear.from_linear(linear, backend="reference"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mlp.to(device)
    x = torch.randn(3, 64, device=device)
    expected = mlp(x)
    use_linears(mlp, "triton")
    torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-6)


def test_int8_linears_follow_the_device() -> None:
    """They are switched in place: the weights stay where they are."""
    lm = quantised(partial(Int8Linear.from_linear, backend="aten"))
    weights = {name: tensor.data_ptr() for name, tensor in lm.state_dict().items()}
    use_linears(lm, "reference")
    switched = [each for each in lm.modules() if isinstance(each, Int8Linear)]
    assert {each.backend for each in switched} == {"reference"}
    assert {name: tensor.data_ptr() for name, tensor in lm.state_dict().items()} == weights


def test_what_a_kernel_cannot_do_is_named() -> None:
    """With the layer; the other linears have tests of their own."""
    int8 = nn.Sequential(Int8Linear(16, 4, "aten")).to("meta")
    with pytest.raises(ConfigError, match=r"int8 linears cannot be used: 0: .* got meta"):
        use_linears(int8, "triton")
