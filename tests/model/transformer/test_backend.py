"""The model on Triton's kernels: the same outputs, codes and tokens as in plain PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.cache.state import Kind, Steps
from model.cache.store import MemoryConfig
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.quantize import SplitCodes
from model.config import LMConfig
from model.errors import ConfigError
from model.precision import Precision
from model.sampling import Sampling
from model.transformer.backend import use_backend
from model.transformer.lm import LM
from tests.kernels.triton_cases import on_device

CONFIG = LMConfig(
    dim=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ff_dim=48,
    text_vocab=20,
    num_codebooks=2,
    codebook_size=11,
    audio_rank=6,
    delays=(0, 1),
    audio_entry_layer=1,
    text_window=3,
    audio_window=4,
    prefix_steps=2,
    rewind_steps=2,
    depth_dim=16,
    depth_layers=1,
    depth_heads=2,
    depth_ff=24,
)
KINDS = [Kind.PREFIX, *[Kind.TEXT, Kind.LISTEN, Kind.SPEAK] * 3]


def _make(device: str) -> tuple[LM, Steps]:
    torch.manual_seed(0)
    lm = LM(CONFIG).eval().requires_grad_(requires_grad=False)
    lm.set_codebook_vectors(torch.randn(2, 11, 6))
    kind = torch.tensor([[int(k) for k in KINDS]] * 2)
    user, assistant = torch.randint(0, 11, (2, *kind.shape, 2))
    user[kind != Kind.LISTEN], assistant[kind != Kind.SPEAK] = -1, -1
    position = torch.arange(len(KINDS)).expand(kind.shape).contiguous()
    text = torch.randint(0, 20, kind.shape)
    parts = (text, user, assistant, kind, position)
    return lm.to(device), Steps(*(part.to(device) for part in parts))


@pytest.mark.parametrize("precision", ["full", "int8"])
@on_device
def test_a_model_computes_the_same(device: str, precision: Precision) -> None:
    """Steps on kernels, memory included, are those in plain PyTorch, whatever the call sizes."""
    lm, steps = _make(device)
    outputs = []
    for reading in ("reference", "triton"):
        assert use_backend(lm, "triton" if reading == "triton" else "reference") > 0
        memory = MemoryConfig(precision=precision, page_steps=4, reading=reading)
        state = lm.init_state(3, memory)
        calls = [steps.columns(start, stop) for start, stop in ((0, 1), (1, 3), (3, 4), (4, 7))]
        outputs.append(torch.cat([lm.step(call, state, [2, 0]) for call in calls], dim=1))
    torch.testing.assert_close(outputs[1], outputs[0], atol=2e-5, rtol=1e-4)


@on_device
def test_a_frame_has_the_same_codes(device: str) -> None:
    """The depth transformer draws the same codes with the same noise."""
    lm, _ = _make(device)
    hidden = torch.randn(2, CONFIG.dim, device=device)
    text = torch.tensor([3, 7], device=device)
    noise = torch.empty(2, 2, 4, device=device).exponential_()
    sampling = Sampling(0.9, 4)
    expected = lm.depth.generate(hidden, text, sampling, noise)
    use_backend(lm, "triton")
    for chosen, given in ((replace(sampling, backend="triton"), noise), (sampling, noise)):
        assert torch.equal(lm.depth.generate(hidden, text, chosen, given), expected)
    greedy = lm.depth.generate(hidden, text)
    on_triton = lm.depth.generate(hidden, text, Sampling(backend="triton"))
    assert torch.equal(on_triton, greedy)


@on_device
def test_a_quantiser_has_the_same_codes(device: str) -> None:
    """Mimi's semantic and acoustic codes are the same."""
    torch.manual_seed(0)
    config = MimiConfig(dim=24, codebook_size=70, codebook_dim=16, num_codebooks=3, num_heads=2)
    codes = SplitCodes(config).to(device).requires_grad_(requires_grad=False)
    latent = torch.randn(1, 5, 24, device=device)
    expected = codes.encode(latent)
    assert use_backend(codes, "triton") == 2
    assert torch.equal(codes.encode(latent), expected)


def test_a_backend_that_cannot_run_is_refused() -> None:
    """One that does not exist, with those there are; one that is not for the module's device."""
    with pytest.raises(ConfigError, match="one of reference, triton, got 'fast'"):
        use_backend(LM(CONFIG), "fast")  # type: ignore[arg-type]  # the point
    with pytest.raises(ConfigError, match="expected tensors on cuda, got meta"):
        use_backend(LM(CONFIG).to("meta"), "triton")
