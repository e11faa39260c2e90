"""Rotation of queries and keys, and the write of keys and values into pages."""

from kernels.kv_write.op import rotate_and_write

__all__ = ["rotate_and_write"]
