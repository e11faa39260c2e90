"""Kernels: plain PyTorch references and their fast versions, one folder an operation."""
