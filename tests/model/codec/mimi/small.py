"""A codec so small that a frame takes a millisecond, with a window of three frames."""

from model.codec.mimi import MimiConfig

TINY = MimiConfig(
    filters=2, dim=16, num_layers=2, num_heads=2, ff_dim=32, window=6, codebook_size=16,
    codebook_dim=8, num_codebooks=4,
)  # fmt: skip
