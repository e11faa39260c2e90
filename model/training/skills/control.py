"""What is said about the reply itself: again, slower, louder, stop."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from model.training.skills.phrasing import (
    Core,
    Mood,
    Split,
    Style,
    Turn,
    choose_wording,
    make_cores,
)

SKILL = "control"
NOTHING_SAID = "i have not said anything yet"
STOPPED = "okay"

_AGAIN: dict[Mood, tuple[str, ...]] = {
    "command": (
        "repeat that",
        "say that again",
        "say it again",
        "repeat it",
        "repeat your answer",
        "repeat what you said",
        "say that once more",
        "tell me again",
    ),
    "question": ("what did you say", "what was that"),
    "social": ("pardon", "once more", "again", "i did not hear you", "i did not hear that"),
}
_SLOWER: dict[Mood, tuple[str, ...]] = {
    "command": (
        "say that slower",
        "say that more slowly",
        "say it slowly",
        "repeat that slowly",
        "speak slower",
        "speak more slowly",
        "slow down",
    ),
    "social": ("slower", "slowly", "more slowly", "too fast", "that was too fast"),
}
_LOUDER: dict[Mood, tuple[str, ...]] = {
    "command": ("say that louder", "repeat that louder", "speak louder", "speak up", "be louder"),
    "social": ("louder", "too quiet", "that was too quiet", "i can not hear you"),
}
_STOP: dict[Mood, tuple[str, ...]] = {
    "command": ("stop", "stop it", "stop that", "stop talking", "be quiet", "shut up"),
    "social": ("stop", "enough", "that is enough", "quiet", "silence"),
}


def _cores(templates: dict[Mood, tuple[str, ...]]) -> tuple[Core, ...]:
    return tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))


_ACTS: dict[Style | None, tuple[Core, ...]] = {
    # Each act is named by how the reply is spoken then; None stands for silence, which has no
    # style.
    "plain": _cores(_AGAIN),
    "slow": _cores(_SLOWER),
    "loud": _cores(_LOUDER),
    None: _cores(_STOP),
}


def sample(rng: Random, split: Split, before: str) -> Turn:
    """Ask for the last reply once more, in some way, or for silence.

    Args:
        rng: the only source of chance.
        split: which wordings may occur.
        before: the last reply, empty if there was none.
    """
    style = rng.choices(tuple(_ACTS), (0.4, 0.25, 0.2, 0.15))[0]
    user = choose_wording(rng, split, _ACTS[style])
    if style is None:
        return Turn(user, STOPPED, SKILL)
    if not before:
        return Turn(user, NOTHING_SAID, SKILL)
    return Turn(user, before, SKILL, style=style)


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from (NOTHING_SAID, STOPPED)
    for cores in _ACTS.values():
        for core in cores:
            yield from (core.text, *core.train, *core.held_out)
