"""Wordings: how cores are dressed, and which of them training never sees."""

from random import Random

import pytest

from model.training.skills.phrasing import (
    Fact,
    Family,
    Mood,
    choose_family,
    choose_wording,
    is_held_out,
    make_cores,
)

CORES = make_cores("sums", "question", ("what is {a} plus {b}", "how much is {a} and {b}"))


def test_splits_share_no_wording_and_hold_out_about_one_in_eight() -> None:
    """A wording is in one split; the held-out share is what the hash promises."""
    train = {w for core in CORES for w in (core.text, *core.train)}
    held_out = {w for core in CORES for w in core.held_out}
    assert not train & held_out
    assert 1 / 16 < len(held_out) / (len(train) + len(held_out)) < 1 / 4


def test_the_split_is_the_hash_of_skill_and_wording() -> None:
    """Membership never moves between runs, versions or machines."""
    assert [n for n in range(40) if is_held_out("sums", f"wording {n}")] == [1, 15, 22, 29, 36]


def test_bare_core_always_trains() -> None:
    """No core is missing from training, whatever the hash says of its bare form."""
    rng = Random(0)
    drawn = {choose_wording(rng, "train", CORES) for _ in range(500)}
    assert {core.text for core in CORES} <= drawn
    assert not drawn & {w for core in CORES for w in core.held_out}


def test_eval_draws_held_out_wordings_only() -> None:
    """Eval never falls back to a wording that trained, also not for cores without any held out."""
    rng = Random(0)
    bare = make_cores("small_talk", "social", ("hello",))[0]
    without = type(bare)(text="hello", train=("hello parley",), held_out=())
    drawn = {choose_wording(rng, "eval", (without, *CORES)) for _ in range(300)}
    assert drawn <= {w for core in CORES for w in core.held_out}


@pytest.mark.parametrize("word", ["please", "parley", "okay"])
def test_no_courtesy_at_both_ends(word: str) -> None:
    """An opener and a closer never repeat each other."""
    moods: tuple[Mood, ...] = (
        "question",
        "command",
        "statement",
        "fragment",
        "social",
        "repeat",
    )
    wordings = [
        w
        for mood in moods
        for c in make_cores("sums", mood, ("core",))
        for w in (*c.train, *c.held_out)
    ]
    assert any(word in w.split() for w in wordings)
    assert all(w.split().count(word) <= 1 for w in wordings)


def test_family_fills_wording_and_keeps_the_reply() -> None:
    """A turn is a wording filled with a fact; the fact alone decides the reply."""
    family = Family("sums", CORES, (Fact("one plus two is three", {"a": "one", "b": "two"}),))
    turn = family.sample(Random(1), "eval")
    assert turn.reply == "one plus two is three"
    assert "one" in turn.user.split()
    assert "two" in turn.user.split()
    assert "{" not in turn.user


def test_families_are_drawn_by_weight() -> None:
    """A family of weight zero is never drawn."""
    never = Family("sums", CORES, (Fact("never"),), weight=0.0)
    always = Family("sums", CORES, (Fact("always"),), weight=0.1)
    rng = Random(0)
    assert {choose_family(rng, (never, always)).facts[0].reply for _ in range(50)} == {"always"}
