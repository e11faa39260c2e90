"""The facts of the skills: right answers, worked out here a second time."""

import pytest

from model.training.skills import capitals, counting, opposites, sequence, small_talk, sums, unknown
from model.training.skills.numbers import number_words

NUMBER = {number_words(n): n for n in range(200)}


def test_sums_are_right_and_complete() -> None:
    """Every reply is true arithmetic, and every sum that is claimed is there."""
    told = set()
    for family in sums.FAMILIES:
        for fact in family.facts:
            left, result = fact.reply.split(" is ")
            sign = next(s for s in ("plus", "minus", "times") if f" {s} " in left)
            a, b = (NUMBER[part] for part in left.split(f" {sign} "))
            assert NUMBER[result] == {"plus": a + b, "minus": a - b, "times": a * b}[sign]
            assert (fact.slots["a"], fact.slots["b"]) == (number_words(a), number_words(b))
            told.add((a, sign, b))
    within = range(21)
    claimed = {(a, "plus", b) for a in within for b in within if a + b <= 20}
    claimed |= {(a, "minus", b) for a in within for b in within if a >= b}
    claimed |= {(a, "times", b) for a in range(13) for b in range(13)}
    assert told == claimed


def test_minus_templates_keep_the_order() -> None:
    """Whatever the wording, the number taken away is {b}: "take {b} from {a}"."""
    minus = sums.FAMILIES[1]
    for core in minus.cores:
        first = "b" if any(w in core.text for w in ("subtract", "take {b}")) else "a"
        assert core.text.index(f"{{{first}}}") == min(
            core.text.index("{a}"), core.text.index("{b}")
        )


def test_sequences_step_by_one() -> None:
    """After and before are one apart; days and months close to a ring."""
    for family in sequence.FAMILIES:
        for fact in family.facts:
            relation, rest = fact.reply.split(" ", 1)
            given, answer = rest.split(" comes ")
            step = 1 if relation == "after" else -1
            if given in NUMBER and family.facts[0].slots["kind"] == "number":
                assert NUMBER[answer] == NUMBER[given] + step
            else:
                ring = sequence.DAYS if given in sequence.DAYS else sequence.MONTHS
                assert ring[(ring.index(given) + step) % len(ring)] == answer


def test_counting_names_every_number_once() -> None:
    """Counting goes in steps of one from the first to the last number asked for, ten at most."""
    for family in counting.FAMILIES:
        for fact in family.facts:
            numbers = [NUMBER[word] for word in fact.reply.split()]
            assert 2 <= len(numbers) <= 10
            step = 1 if numbers[0] < numbers[-1] else -1
            assert numbers == list(range(numbers[0], numbers[-1] + step, step))
            assert NUMBER[fact.slots["a"]] == numbers[0]
            assert NUMBER[fact.slots["b"]] == numbers[-1]


def test_no_word_has_two_opposites() -> None:
    """A word occurs in one pair only, or its opposite would be a matter of taste."""
    words = [word for pair in opposites.PAIRS for word in pair]
    assert len(words) == len(set(words))
    assert {f.reply for f in opposites.FAMILIES[0].facts} >= {
        "the opposite of hot is cold",
        "the opposite of cold is hot",
    }


def test_capitals_are_named_with_their_country() -> None:
    """Spot checks; every capital belongs to one country."""
    replies = {fact.reply for fact in capitals.FAMILIES[0].facts}
    assert {"the capital of france is paris", "the capital of australia is canberra"} <= replies
    assert len(set(capitals.CAPITALS.values())) == len(capitals.CAPITALS) >= 60


def test_small_talk_has_one_reply_per_wording() -> None:
    """No two intents can be said in the same words."""
    said = [
        w for f in small_talk.FAMILIES for c in f.cores for w in (c.text, *c.train, *c.held_out)
    ]
    assert len(said) == len(set(said))
    assert len(small_talk.FAMILIES) >= 30


@pytest.mark.parametrize("family", unknown.FAMILIES)
def test_unknown_never_knows(family: object) -> None:
    """Questions out of scope get one reply."""
    assert {fact.reply for fact in family.facts} == {"sorry i do not know that"}  # type: ignore[attr-defined]


def test_unknown_asks_no_opposite_that_is_known() -> None:
    """The nouns asked about have no opposite among the pairs."""
    paired = {word for pair in opposites.PAIRS for word in pair}
    nouns = {f.slots["x"] for f in unknown.FAMILIES[1].facts}
    assert not nouns & paired
