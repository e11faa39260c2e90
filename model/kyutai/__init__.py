"""Checkpoints of the Kyutai family: what their files say, and what must be in them."""
