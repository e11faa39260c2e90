"""Attention from new steps to a paged cache of keys and values."""

from kernels.attention.op import paged_attention

__all__ = ["paged_attention"]
