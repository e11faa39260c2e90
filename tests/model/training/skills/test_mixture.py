"""Whole conversations and what is known about all of them."""

import re
from collections import Counter
from random import Random

import pytest

from model.training.skills import (
    SKILLS,
    corpus,
    memory,
    mixture,
    reply_texts,
    sample_dialogue,
    vocabulary,
)
from model.training.skills.phrasing import Dialogue, Split


@pytest.fixture(scope="module")
def train() -> list[Dialogue]:
    """Draw conversations of the training split."""
    rng = Random(1)
    return [sample_dialogue(rng, "train") for _ in range(20_000)]


@pytest.fixture(scope="module")
def held_out() -> list[Dialogue]:
    """Draw conversations of the eval split."""
    rng = Random(2)
    return [sample_dialogue(rng, "eval") for _ in range(5_000)]


def test_no_user_text_is_in_both_splits(train: list[Dialogue], held_out: list[Dialogue]) -> None:
    """What eval asks was never said in training."""
    trained = {turn.user for dialogue in train for turn in dialogue}
    asked = {turn.user for dialogue in held_out for turn in dialogue}
    assert not trained & asked


def test_no_template_is_in_both_splits() -> None:
    """Stronger than sampling: no skill has a wording in both splits, in whole."""
    for skill, families in mixture.FAMILIES.items():
        trained = {w for f in families for c in f.cores for w in (c.text, *c.train)}
        asked = {w for f in families for c in f.cores for w in c.held_out}
        assert not trained & asked, skill


def test_reply_is_a_function_of_the_conversation(
    train: list[Dialogue], held_out: list[Dialogue]
) -> None:
    """The same words before it lead to the same reply, over all skills and both splits."""
    replies: dict[tuple[str, ...], str] = {}
    for dialogue in (*train, *held_out):
        history: tuple[str, ...] = ()
        for turn in dialogue:
            history = (*history, turn.user)
            assert replies.setdefault(history, turn.reply) == turn.reply, history


def test_replies_follow_from_what_was_told(train: list[Dialogue]) -> None:
    """Answers about the user are worked out a second time, from the acknowledgements alone."""
    asked = 0
    for dialogue in train:
        known: dict[str, str] = {}
        for turn in dialogue:
            words = turn.reply.split()
            if turn.skill != memory.SKILL:
                continue
            if turn.reply.startswith(("nice to meet you ", "okay i will call you ")):
                known["name"] = words[-1]
            elif turn.reply.startswith(("i will remember that", "okay your favourite colour is")):
                known["colour"] = words[-1]
            else:
                subject = "colour" if "colour" in words else "name"
                asked += 1
                if subject in known:
                    assert words[-1] == known[subject]
                    assert turn.reply.startswith("your ")
                else:
                    assert turn.reply.startswith("you have not told me your ")
    assert asked > 1000


def test_texts_are_plain_lower_case_words(train: list[Dialogue], held_out: list[Dialogue]) -> None:
    """Single spaces, apostrophes allowed, no punctuation and no digits."""
    plain = re.compile(r"[a-z']+( [a-z']+)*")
    for dialogue in (*train, *held_out):
        for turn in dialogue:
            assert plain.fullmatch(turn.user), turn
            assert plain.fullmatch(turn.reply), turn


def test_vocabulary_is_bounded_and_complete(
    train: list[Dialogue], held_out: list[Dialogue]
) -> None:
    """A small model can learn the words, and no text holds another one."""
    words = vocabulary()
    assert words == sorted(set(words))
    assert 900 <= len(words) <= 1_300
    used = {w for d in (*train, *held_out) for t in d for w in f"{t.user} {t.reply}".split()}
    assert used <= set(words)


def test_reply_texts_hold_every_reply_but_repeat(train: list[Dialogue]) -> None:
    """Their speech can be made ahead: nothing else is ever said, and all are short."""
    replies = set(reply_texts())
    said = {t.reply for d in train for t in d if t.skill != "repeat"}
    assert said <= replies
    assert len(replies) < 2_500
    assert max(len(reply.split()) for reply in replies) <= 12


def test_mixture_has_its_shares(train: list[Dialogue]) -> None:
    """Most conversations are one turn; every skill occurs; none has more than four turns."""
    turns = Counter(len(dialogue) for dialogue in train)
    assert set(turns) == {1, 2, 3, 4}
    assert turns[1] / len(train) == pytest.approx(0.6, abs=0.02)
    skills = Counter(turn.skill for dialogue in train for turn in dialogue)
    assert set(skills) == set(SKILLS)
    assert skills["small_talk"] < min(skills[s] for s in ("sums", "repeat", "sequence", "memory"))


def test_same_seed_same_dialogues() -> None:
    """Chance comes from the generator that is passed, and from nowhere else."""
    one, two = Random(7), Random(7)
    assert [sample_dialogue(one, "train") for _ in range(50)] == [
        sample_dialogue(two, "train") for _ in range(50)
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("skill", SKILLS)
def test_skill_can_be_chosen(skill: str, split: Split) -> None:
    """One turn of the skill; for memory a dialogue that ends with its question."""
    rng = Random(3)
    for _ in range(100):
        dialogue = sample_dialogue(rng, split, skill)
        assert dialogue[-1].skill == skill
        if skill == "memory":
            assert 2 <= len(dialogue) <= 4
        else:
            assert len(dialogue) == 1


def test_unknown_skill_is_refused() -> None:
    """The error names what there is."""
    with pytest.raises(ValueError, match=r"no such skill: 'poetry'.*sums"):
        sample_dialogue(Random(0), "train", "poetry")


def test_corpus_is_repeatable_and_has_every_word() -> None:
    """The text tokenizer sees the whole vocabulary."""
    lines = list(corpus(50, seed=4))
    assert lines == list(corpus(50, seed=4))
    assert set(vocabulary()) <= {word for line in lines for word in line.split()}
