"""Sampling with given noise: the checked public call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kernels.sampling import reference
from kernels.triton_device import check_triton

Backend = Literal["reference", "triton"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def sample_tokens(
    logits: Tensor,
    temperature: float | Tensor,
    noise: Tensor | None,
    mask: Tensor | None = None,
    *,
    backend: Backend,
) -> Tensor:
    """Choose one token per row.

    Candidates are the tokens of the greatest logits, in falling order, of equal ones the lower
    token first. The probability of the r-th, over all tokens, is divided by the r-th noise, and the
    largest quotient wins: with Exp(1) noise that is an exact draw from the candidates.

    Args:
        logits: float32, float16 or bfloat16 [..., vocab].
        temperature: divides the logits; float32 [...] for one a row. 0 takes the greatest logit.
        noise: float32 [..., num_candidates], positive; None takes the greatest logit in every row.
        mask: bool [..., vocab], tokens that may be chosen, one a row at least; None for all.
        backend: "reference" is plain PyTorch; "triton" needs a CUDA device.

    Returns:
        int64 [...].

    Raises:
        ValueError: if types, sizes or devices do not belong together or the backend cannot run.

    Source: the exponential race, e.g. Maddison et al. 2014, A* sampling, section 2.
    """
    _check(logits, temperature, noise, mask)
    if backend == "reference":
        return reference.sample_tokens(logits, temperature, noise, mask)
    if backend != "triton":
        raise ValueError(f"expected a backend out of reference, triton, got {backend}")
    per_row = temperature if isinstance(temperature, Tensor) else None
    check_triton(logits, per_row, noise, mask)
    from kernels.sampling import kernel  # noqa: PLC0415 - Triton is imported only where it is used

    num_candidates = 1 if noise is None else noise.shape[-1]
    num_merged = kernel.num_merged(logits.shape[-1], num_candidates)
    if num_merged > kernel.MAX_MERGED:
        raise ValueError(
            f"backend triton: {num_candidates} candidates of {logits.shape[-1]} tokens are too "
            f"many: expected at most {kernel.MAX_MERGED} to merge, got {num_merged}"
        )
    return kernel.sample_tokens(logits, temperature, noise, mask)


def _check(
    logits: Tensor, temperature: float | Tensor, noise: Tensor | None, mask: Tensor | None
) -> None:
    if logits.dtype not in _DTYPES or logits.ndim == 0 or logits.numel() == 0:
        raise ValueError(
            f"expected logits in fp32, fp16 or bf16 [..., vocab], got {logits.dtype} "
            f"{list(logits.shape)}"
        )
    rows, vocab = logits.shape[:-1], logits.shape[-1]
    if noise is not None and (
        noise.dtype != torch.float32
        or noise.shape[:-1] != rows
        or not 1 <= noise.shape[-1] <= vocab
    ):
        raise ValueError(
            f"expected float32 noise {[*rows, vocab]} or narrower, got {noise.dtype} "
            f"{list(noise.shape)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != logits.shape):
        raise ValueError(
            f"expected a mask of bool {list(logits.shape)}, got {mask.dtype} {list(mask.shape)}"
        )
    if isinstance(temperature, Tensor) and (
        temperature.dtype != torch.float32 or temperature.shape != rows
    ):
        raise ValueError(
            f"expected temperatures in float32 {list(rows)}, got {temperature.dtype} "
            f"{list(temperature.shape)}"
        )
