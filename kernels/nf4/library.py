"""The linear layer over NF4 weights as bitsandbytes computes it, on a CPU or a CUDA device.

Our storage at rest is the library's, so its product reads our weights as they are:

    y[m, n] = sum_k x[m, k] * LEVELS[packed[n, k]] * absmax[n, k // 64]

Source: bitsandbytes, `matmul_4bit`; Dettmers et al. 2023, QLoRA, section 3 (NF4).
"""

import importlib
from functools import cache

import torch
from torch import Tensor

from kernels.nf4.reference import BLOCK_SIZE


@cache
def load_library() -> None:
    """Let the library register its operations.

    Raises:
        ValueError: it is not installed.
    """
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(f"the package bitsandbytes cannot be loaded ({error})") from None


def linear(x: Tensor, packed: Tensor, absmax: Tensor, out_features: int) -> Tensor:
    """Multiply `x: [..., in_features]` by a quantised weight; arguments as `nf4_linear`.

    Raises:
        ValueError: the library is not installed, or a block of the weight would straddle rows.
    """
    load_library()
    in_features = x.shape[-1]
    if in_features % BLOCK_SIZE:
        # The library's CPU kernel returns wrong numbers without a word.
        raise ValueError(f"expected rows a multiple of {BLOCK_SIZE} wide, got {in_features}")
    product: Tensor = torch.ops.bitsandbytes.gemm_4bit.default(
        x,  # [..., in_features]
        packed.view(-1, 1),  # [out_features * in_features / 2, 1]
        (out_features, in_features),
        absmax,  # [out_features * in_features / 64]
        BLOCK_SIZE,
        "nf4",
    )
    return product  # [..., out_features]
