"""How weights and memory may be kept, and what computes. Names only: settings need no torch."""

from typing import Literal, TypeAlias

# The language model's linears: full precision, packed NF4, NF4 that bitsandbytes multiplies by, or
# int8.
Linears: TypeAlias = Literal["dense", "nf4", "bitsandbytes", "int8"]
# Keys and values: as the model computes them, or eight bits with a scale.
Precision: TypeAlias = Literal["full", "int8"]
# Which implementation of the kernels: "reference" is plain PyTorch and runs anywhere; "triton"
# needs a CUDA device.
Backend: TypeAlias = Literal["reference", "triton"]
