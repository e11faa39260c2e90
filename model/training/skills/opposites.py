"""Opposites of common words, asked either way round."""

from __future__ import annotations

from model.training.skills.phrasing import Fact, Family, make_cores

SKILL = "opposites"

PAIRS = (
    ("hot", "cold"),
    ("big", "small"),
    ("tall", "short"),
    ("fast", "slow"),
    ("up", "down"),
    ("left", "right"),
    ("in", "out"),
    ("open", "closed"),
    ("happy", "sad"),
    ("young", "old"),
    ("light", "dark"),
    ("wet", "dry"),
    ("clean", "dirty"),
    ("full", "empty"),
    ("hard", "soft"),
    ("high", "low"),
    ("loud", "quiet"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("thick", "thin"),
    ("wide", "narrow"),
    ("early", "late"),
    ("easy", "difficult"),
    ("first", "last"),
    ("good", "bad"),
    ("inside", "outside"),
    ("above", "below"),
    ("near", "far"),
    ("day", "night"),
    ("black", "white"),
    ("yes", "no"),
    ("true", "false"),
    ("start", "finish"),
    ("push", "pull"),
    ("win", "lose"),
    ("love", "hate"),
    ("laugh", "cry"),
    ("buy", "sell"),
    ("give", "take"),
    ("always", "never"),
    ("before", "after"),
    ("asleep", "awake"),
    ("alive", "dead"),
    ("front", "back"),
    ("top", "bottom"),
    ("north", "south"),
    ("east", "west"),
    ("summer", "winter"),
    ("sweet", "sour"),
    ("smooth", "rough"),
    ("brave", "afraid"),
    ("more", "less"),
    ("friend", "enemy"),
    ("question", "answer"),
    ("cheap", "expensive"),
    ("safe", "dangerous"),
    ("remember", "forget"),
)

_QUESTIONS = (
    "what is the opposite of {word}",
    "what's the opposite of {word}",
    "what word is the opposite of {word}",
    "which word is the opposite of {word}",
    "what is the opposite word for {word}",
    "what would be the opposite of {word}",
    "what do you call the opposite of {word}",
    "what word means the opposite of {word}",
    "what is the reverse of {word}",
    "what is not {word} but the opposite",
)
_COMMANDS = (
    "tell me the opposite of {word}",
    "give me the opposite of {word}",
    "say the opposite of {word}",
    "name the opposite of {word}",
    "find the opposite of {word}",
)
_FRAGMENTS = ("the opposite of {word}", "the opposite of {word} is", "opposite of {word}")

# Every pair is asked either way round, so 57 pairs are 114 facts.
FAMILIES = (
    Family(
        SKILL,
        (
            *make_cores(SKILL, "question", _QUESTIONS),
            *make_cores(SKILL, "command", _COMMANDS),
            *make_cores(SKILL, "fragment", _FRAGMENTS),
        ),
        tuple(
            Fact(f"the opposite of {word} is {opposite}", {"word": word}, opposite)
            for pair in PAIRS
            for word, opposite in (pair, pair[::-1])
        ),
    ),
)
