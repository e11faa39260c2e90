"""Whole conversations: which skills follow each other, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from model.training.skills import (
    capitals,
    counting,
    memory,
    opposites,
    repeat,
    sequence,
    small_talk,
    sums,
    unknown,
)
from model.training.skills.memory import Remembered
from model.training.skills.phrasing import Dialogue, Family, Split, Turn, choose_family

ONE_TURN_SHARE = 0.6
MOST_TURNS = 4
MEMORY_DIALOGUE_SHARE = 0.35
"""Share of the longer conversations that are about what the user told earlier."""

WEIGHTS: Mapping[str, float] = {
    "small_talk": 0.12,
    "sums": 0.19,
    "capitals": 0.09,
    "repeat": 0.18,
    "sequence": 0.14,
    "counting": 0.06,
    "opposites": 0.08,
    "memory": 0.08,
    "unknown": 0.06,
}
SKILLS = tuple(WEIGHTS)

FAMILIES: Mapping[str, tuple[Family, ...]] = {
    module.SKILL: module.FAMILIES
    for module in (small_talk, sums, capitals, sequence, counting, opposites, unknown)
}


def _memory_turn(rng: Random, split: Split, known: Remembered) -> tuple[Turn, Remembered]:
    subject = rng.choice(memory.SUBJECTS)
    if rng.random() < 0.5:
        return memory.ask(rng, split, subject, known), known
    return memory.tell(rng, split, subject, known)


def _turn(rng: Random, split: Split, skill: str, known: Remembered) -> tuple[Turn, Remembered]:
    if skill == memory.SKILL:
        return _memory_turn(rng, split, known)
    if skill == repeat.SKILL:
        return repeat.sample(rng, split), known
    return choose_family(rng, FAMILIES[skill]).sample(rng, split), known


def _any_skill(rng: Random, *, but: str | None = None) -> str:
    names = [name for name in SKILLS if name != but]
    return rng.choices(names, [WEIGHTS[name] for name in names])[0]


def _memory_dialogue(rng: Random, split: Split) -> Dialogue:
    """Tell one or two facts (or none, or correct one), talk of something else, then ask."""
    subjects = rng.sample(memory.SUBJECTS, 2)
    told = rng.choices(
        ((), (subjects[0],), (subjects[0], subjects[0]), tuple(subjects)), (0.08, 0.52, 0.15, 0.25)
    )[0]
    asked = rng.choice(told or tuple(subjects))
    asked_too = len(told) < 3 and told == tuple(subjects) and rng.random() < 0.5
    spare = MOST_TURNS - len(told) - 1 - asked_too
    num_other = rng.randint(1 if not told else 0, min(2, spare))
    plan: list[tuple[str, memory.Subject | None]] = [("tell", subject) for subject in told]
    for _ in range(num_other):
        # Other talk may stand anywhere before the question, also between two facts.
        plan.insert(rng.randint(min(1, len(plan)), len(plan)), ("other", None))
    plan.append(("ask", asked))
    if asked_too:
        plan.append(("ask", next(s for s in subjects if s != asked)))

    known, turns = Remembered(), []
    for act, subject in plan:
        if subject is None:
            turn, known = _turn(rng, split, _any_skill(rng, but=memory.SKILL), known)
        elif act == "tell":
            turn, known = memory.tell(rng, split, subject, known)
        else:
            turn = memory.ask(rng, split, subject, known)
        turns.append(turn)
    return tuple(turns)


def _mixed_dialogue(rng: Random, split: Split, num_turns: int) -> Dialogue:
    known, turns = Remembered(), []
    for _ in range(num_turns):
        turn, known = _turn(rng, split, _any_skill(rng), known)
        turns.append(turn)
    return tuple(turns)


def sample_dialogue(rng: Random, split: Split, skill: str | None = None) -> Dialogue:
    """Draw a conversation of one to four turns.

    The splits are disjoint by a hash of the wording (``opener core closer``, with the facts left
    as slots, together with the skill's name): one wording in eight is heard only in eval. Facts
    are never held out: every sum, capital, opposite and number is in training. Three exceptions
    and their reasons:

    - a core without opener and closer always trains, so no core is missing from training and the
      plainest way to ask is always known;
    - for ``repeat`` the string of words is hashed instead of the wording, so an eval string was
      never asked for in training, in any wording (a string of one word may have been part of a
      longer one);
    - a whole dialogue is in the split of its turns: eval dialogues hold eval turns only.

    So no user text of one split occurs in the other.

    Args:
        rng: the only source of chance; the same state gives the same dialogue.
        split: which wordings and strings may occur.
        skill: one turn of this skill (for ``memory``: a dialogue of two to four turns that ends
            with a question about what was told); by default the training mixture.

    Raises:
        ValueError: there is no such skill.
    """
    if skill is not None:
        if skill not in WEIGHTS:
            message = f"no such skill: {skill!r}; there are {', '.join(SKILLS)}"
            raise ValueError(message)
        if skill == memory.SKILL:
            return _memory_dialogue(rng, split)
        return (_turn(rng, split, skill, Remembered())[0],)
    if rng.random() < ONE_TURN_SHARE:
        return _mixed_dialogue(rng, split, 1)
    if rng.random() < MEMORY_DIALOGUE_SHARE:
        return _memory_dialogue(rng, split)
    return _mixed_dialogue(rng, split, rng.randint(2, MOST_TURNS))


def reply_texts() -> list[str]:
    """List every distinct reply except those of ``repeat``, sorted; the same in both splits."""
    replies = {
        f.reply for families in FAMILIES.values() for family in families for f in family.facts
    }
    return sorted(replies.union(memory.replies()))


def vocabulary() -> list[str]:
    """List every word that a user or a reply can hold, sorted."""
    words: set[str] = set()
    for families in FAMILIES.values():
        for family in families:
            for text in family.texts():
                words.update(text.split())
    for text in (*repeat.texts(), *memory.texts()):
        words.update(text.split())
    return sorted(words)


def corpus(num_dialogues: int, seed: int) -> Iterator[str]:
    """Yield the lines of training dialogues, user and reply in turn, then every single word.

    Made for training the text tokenizer: with the words at the end none is unseen.
    """
    rng = Random(seed)
    for _ in range(num_dialogues):
        for turn in sample_dialogue(rng, "train"):
            yield turn.user
            yield turn.reply
    yield from vocabulary()
