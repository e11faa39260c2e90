"""Conversations in turns: their program, and the engine that runs many of them."""
