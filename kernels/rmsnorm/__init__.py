"""RMSNorm, with the residual added on the way."""

from kernels.rmsnorm.op import rms_norm

__all__ = ["rms_norm"]
