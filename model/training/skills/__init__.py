"""What the starter can talk about: the texts of its skills, as conversations.

Texts are lower-case words separated by single spaces; apostrophes may occur, punctuation and
digits never do.
"""

from model.training.skills.mixture import (
    ALL_SKILLS,
    SKILLS,
    WEIGHTS,
    corpus,
    reply_texts,
    sample_conversation,
    sample_dialogue,
    vocabulary,
)
from model.training.skills.phrasing import Called, Conversation, Dialogue, Split, Turn

__all__ = [
    "ALL_SKILLS",
    "SKILLS",
    "WEIGHTS",
    "Called",
    "Conversation",
    "Dialogue",
    "Split",
    "Turn",
    "corpus",
    "reply_texts",
    "sample_conversation",
    "sample_dialogue",
    "vocabulary",
]
