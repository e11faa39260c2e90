"""Noise that is made where it is used, from a key and a count."""

from kernels.noise.op import exponential_noise

__all__ = ["exponential_noise"]
