"""Mimi, Kyutai's codec: a stream of 24 kHz audio to codes and back."""

from model.codec.mimi.codec import Mimi
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.load import load_mimi
from model.codec.mimi.state import MimiState

__all__ = ["Mimi", "MimiConfig", "MimiState", "load_mimi"]
