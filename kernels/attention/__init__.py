"""Attention over a paged cache of keys and values."""

from kernels.attention.op import paged_attention, quantize_kv

__all__ = ["paged_attention", "quantize_kv"]
