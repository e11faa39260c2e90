"""What the starter can talk about: the texts of its skills, as conversations.

Texts are lower-case words separated by single spaces; apostrophes may occur, punctuation and
digits never do.
"""

from model.training.skills.mixture import (
    SKILLS,
    WEIGHTS,
    corpus,
    reply_texts,
    sample_dialogue,
    vocabulary,
)
from model.training.skills.phrasing import Dialogue, Split, Turn

__all__ = [
    "SKILLS",
    "WEIGHTS",
    "Dialogue",
    "Split",
    "Turn",
    "corpus",
    "reply_texts",
    "sample_dialogue",
    "vocabulary",
]
