"""Strings of words to repeat."""

from random import Random

from model.training.skills import repeat
from model.training.skills.phrasing import is_held_out, make_cores


def test_reply_is_the_string_that_was_asked() -> None:
    """The reply occurs word for word in what the user said."""
    rng = Random(0)
    for _ in range(300):
        turn = repeat.sample(rng, "train")
        assert f" {turn.reply} " in f" {turn.user} "
        assert 1 <= len(turn.reply.split()) <= 5


def test_split_is_by_the_string() -> None:
    """An eval string is never asked for in training, in whatever words around it."""
    rng = Random(0)
    for split in ("train", "eval"):
        for _ in range(300):
            turn = repeat.sample(rng, split)
            assert is_held_out("repeat", turn.reply) == (split == "eval")


def test_templates_share_no_word_with_the_strings() -> None:
    """Where a string starts and ends is never in doubt."""
    around = {
        word
        for text in (*repeat._TEMPLATES, *repeat._ONE_WORD)
        for core in make_cores("repeat", "repeat", (text,))
        for wording in (core.text, *core.train, *core.held_out)
        for word in wording.split()
    }
    assert not around & set(repeat.WORDS)


def test_every_word_is_drawn() -> None:
    """Training meets every word, also those whose one-word string is held out."""
    rng = Random(0)
    drawn = {w for _ in range(8000) for w in repeat.sample(rng, "train").reply.split()}
    assert set(repeat.WORDS) <= drawn
