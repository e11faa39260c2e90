"""Int8 weights: one scale a row, eight bits a weight."""

from kernels.int8.op import Int8Linear, int8_linear, quantize_int8, tile_counters, use_int8

__all__ = ["Int8Linear", "int8_linear", "quantize_int8", "tile_counters", "use_int8"]
