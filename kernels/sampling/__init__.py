"""Choosing tokens from logits where the logits are."""

from kernels.sampling.op import sample_tokens

__all__ = ["sample_tokens"]
