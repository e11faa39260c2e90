"""NF4: four bits a weight, one scale per 64 weights."""

from kernels.nf4.op import NF4Linear, dequantize_nf4, nf4_linear, quantize_nf4

__all__ = ["NF4Linear", "dequantize_nf4", "nf4_linear", "quantize_nf4"]
