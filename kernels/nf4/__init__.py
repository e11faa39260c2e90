"""NF4: four bits a weight, one scale per 64 weights."""

from kernels.nf4.layout import PlanarWeight
from kernels.nf4.op import (
    NF4Linear,
    dequantize_nf4,
    nest_nf4,
    nf4_linear,
    planar_gated,
    planar_linear,
    quantize_nf4,
    repack_nf4,
    use_library,
)
from kernels.nf4.planar import PlanarNF4Gated, PlanarNF4Linear, use_planar
from kernels.nf4.reference import NestedScales

__all__ = [
    "NF4Linear",
    "NestedScales",
    "PlanarNF4Gated",
    "PlanarNF4Linear",
    "PlanarWeight",
    "dequantize_nf4",
    "nest_nf4",
    "nf4_linear",
    "planar_gated",
    "planar_linear",
    "quantize_nf4",
    "repack_nf4",
    "use_library",
    "use_planar",
]
