"""Mimi, Kyutai's codec: a stream of 24 kHz audio to codes and back."""

from model.codec.mimi.codec import Mimi
from model.codec.mimi.config import MimiConfig
from model.codec.mimi.load import check_mimi, load_mimi
from model.codec.mimi.state import MimiState, Rows, session_bytes

__all__ = ["Mimi", "MimiConfig", "MimiState", "Rows", "check_mimi", "load_mimi", "session_bytes"]
