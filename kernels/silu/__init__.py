"""The gate of a gated MLP."""

from kernels.silu.op import gated_silu

__all__ = ["gated_silu"]
