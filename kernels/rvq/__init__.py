"""Nearest-code search of residual quantisers."""

from kernels.rvq.op import half_norms, nearest_codes

__all__ = ["half_norms", "nearest_codes"]
