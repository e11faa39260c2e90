"""Names and favourite colours: told, corrected and asked."""

from random import Random

import pytest

from model.training.skills import memory
from model.training.skills.memory import Remembered


@pytest.mark.parametrize("subject", memory.SUBJECTS)
def test_asked_without_being_told(subject: memory.Subject) -> None:
    """Nothing is made up."""
    turn = memory.ask(Random(0), "train", subject, Remembered())
    assert turn.reply.startswith("you have not told me your")


@pytest.mark.parametrize("subject", memory.SUBJECTS)
def test_told_then_asked(subject: memory.Subject) -> None:
    """What was told comes back, and only that."""
    rng = Random(0)
    told, known = memory.tell(rng, "train", subject, Remembered())
    value = known.name if subject == "name" else known.colour
    assert value is not None
    assert value in told.user.split()
    assert value in told.reply.split()
    assert memory.ask(rng, "train", subject, known).reply.split()[-1] == value
    other: memory.Subject = "colour" if subject == "name" else "name"
    assert memory.ask(rng, "train", other, known).reply.startswith("you have not told me")


@pytest.mark.parametrize("subject", memory.SUBJECTS)
def test_correction_changes_the_value(subject: memory.Subject) -> None:
    """Telling again is a correction: another value, another acknowledgement."""
    rng = Random(0)
    first, known = memory.tell(rng, "train", subject, Remembered())
    second, corrected = memory.tell(rng, "train", subject, known)
    assert known != corrected
    assert second.reply.startswith("okay ")
    assert not first.reply.startswith("okay ")
