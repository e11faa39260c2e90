"""Language models of published sizes with random weights, made on the device that they are for."""

from __future__ import annotations

import zlib
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.reference_sizes import Values
from kernels.int8 import Int8Linear
from kernels.nf4 import NF4Linear
from model.cache.rotary import rope_frequencies
from model.duplex.accelerate import use_kernels
from model.kyutai.config import KyutaiConfig
from model.kyutai.weights import skeleton
from model.transformer.linears import hot_linears
from model.transformer.lm import LM

Form = Literal["bf16", "int8", "nf4"]

_STD = 0.02
# Tables of which a step reads a few rows, in Kyutai's package and in ours.
_GATHERED = (
    "emb.", "text_emb.", "depformer_emb.", "depformer_text_emb.",
    "user_emb.", "assistant_emb.", "codebooks.", "depth.text_emb.",
)  # fmt: skip
# Of quantised linears: what holds two levels a byte, and what scales them.
_LEVELS = {"packed", "words"}
_SCALES = {"absmax", "scales", "code", "coarse", "offset", "scale"}
_NOT_WEIGHTS = {"arrived", "rope_frequencies"}


@torch.no_grad()
def random_lm(values: Values, form: Form, device: str) -> LM:
    """Make a language model in bf16, on the kernels of its device.

    Args:
        values: as a published `config.json` has them.
        form: of the linears that a step spends its time in. They are quantised one after the
            other, so that the whole is never there in both forms.
        device: where.
    """
    lm = skeleton(KyutaiConfig.from_dict(values)).to(torch.bfloat16)
    if form != "bf16":
        quantised = NF4Linear if form == "nf4" else Int8Linear
        for name, linear in hot_linears(lm).items():
            # On "meta" it has a shape and no memory; the weight is put in on the next line.
            dense = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
            dense.weight = _drawn(f"{name}.weight", linear.weight, device)
            lm.set_submodule(name, quantised.from_linear(dense, backend="reference").to(device))
    for name, parameter in list(lm.named_parameters()):
        owner, _, last = name.rpartition(".")
        lm.get_submodule(owner).register_parameter(last, _drawn(name, parameter, device))
    # In float32 whatever the weights are in.
    lm.rope_frequencies = rope_frequencies(lm.config.head_dim, lm.config.rope_base).to(device)
    use_kernels(lm)
    return lm.eval()


def _drawn(name: str, like: Tensor, device: str) -> nn.Parameter:
    weight = nn.Parameter(torch.empty_like(like, device=device), requires_grad=False)
    fill(name, weight)
    return weight


@torch.no_grad()
def fill(name: str, weight: Tensor) -> None:
    """Draw a weight, in place, the same one for a name every time; norms scale by one."""
    if name.endswith("alpha") or "norm" in name:
        weight.fill_(1.0)
        return
    # `hash` of a text differs from process to process; this one does not.
    seed = zlib.crc32(name.encode())
    weight.normal_(std=_STD, generator=torch.Generator(weight.device).manual_seed(seed))


def streamed(module: nn.Module) -> tuple[int, int]:
    """Return the bytes of weights that a step reads, and how many numbers they stand for."""
    num_bytes = num_numbers = 0
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        last = name.rpartition(".")[2]
        if name.startswith(_GATHERED) or last in _NOT_WEIGHTS:
            continue
        num_bytes += tensor.nbytes
        if last in _LEVELS:
            # Two levels of four bits in a byte.
            num_numbers += 2 * tensor.nbytes
        elif last not in _SCALES:
            num_numbers += tensor.numel()
    return num_bytes, num_numbers
