"""Whole conversations: which skills follow each other, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

from model.prompts import plain_words, result_text
from model.training.skills import (
    capitals,
    control,
    counting,
    functions,
    instructions,
    memory,
    opposites,
    pictures,
    repeat,
    sequence,
    small_talk,
    sums,
    unheard,
    unknown,
)
from model.training.skills.memory import Remembered
from model.training.skills.phrasing import (
    Conversation,
    Dialogue,
    Family,
    Split,
    Turn,
    choose_family,
)

ONE_TURN_SHARE = 0.6
MOST_TURNS = 4
MEMORY_DIALOGUE_SHARE = 0.35
"""Share of the longer conversations that are about what the user told earlier."""

# Shares follow how hard a skill is and not how often people would use it: sums and repeated words
# need most examples, small talk is a list of fixed answers.
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

# They sum to 0.64, so that 36 in a hundred conversations are plain dialogues.
NEW_WEIGHTS: Mapping[str, float] = {
    functions.SKILL: 0.24,
    instructions.SKILL: 0.14,
    pictures.SKILL: 0.12,
    control.SKILL: 0.06,
    unheard.SKILL: 0.08,
}
"""Share of the conversations that exercise more than answering; the rest are plain dialogues."""
ALL_SKILLS = (*SKILLS, *NEW_WEIGHTS)

# Skills that are asked about when functions are offered: none of these looks like a function.
_CLEAR = ("small_talk", "sums", "capitals", "repeat", "sequence", "counting", "opposites")

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
    # A worked example of a plan: told = (name,), one other turn, asked = name.
    #
    #     my name is anna                 nice to meet you anna
    #     what is two plus two            two plus two is four
    #     what is my name                 your name is anna
    #
    # In eight of a hundred nothing is told, and the right reply is that the user has not said.
    # Without those the model would learn to say some name whenever it is asked.
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
        # The first place is kept for what is told, if anything is: talk that comes before it asks
        # nothing of memory.
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


_NOTHING_OFFERED_SHARE = 0.06


def _clear_turn(rng: Random, split: Split, skill: str | None = None) -> Turn:
    names = _CLEAR if skill is None else (skill,)
    weights = [WEIGHTS[name] for name in names]
    return _turn(rng, split, rng.choices(names, weights)[0], Remembered())[0]


def _with_functions(rng: Random, split: Split) -> Conversation:
    """Offer functions, and ask for one of them, for another one, or for something else."""
    # Without functions the reply is that it is not known. So the model learns to look at the
    # offered functions before it calls.
    if rng.random() < _NOTHING_OFFERED_SHARE:
        return Conversation((functions.refuse(rng, split, ()),))
    offered: tuple[functions.Offered, ...] = ()
    for _ in range(rng.randint(1, functions.MOST_TOOLS)):
        offered = (*offered, functions.offer(rng, split, offered))
    turns = []
    for _ in range(rng.choices((1, 2, 3), (0.6, 0.28, 0.12))[0]):
        act = rng.choices(("ask", "refuse", "other"), (0.68, 0.1, 0.22))[0]
        if act == "ask":
            turns.append(functions.ask(rng, split, rng.choice(offered)))
        elif act == "refuse":
            turns.append(functions.refuse(rng, split, offered))
        else:
            turns.append(_clear_turn(rng, split))
    led = rng.random() < 0.3
    rules = instructions.written(rng, instructions.Rules()) if led else ""
    return Conversation(tuple(turns), rules, tuple(o.tool for o in offered))


def _controlled(rng: Random, split: Split) -> Conversation:
    """Say something about the reply before, or before there is one."""
    turns = [] if rng.random() < 0.1 else [_clear_turn(rng, split)]
    turns.append(control.sample(rng, split, turns[-1].reply if turns else ""))
    if rng.random() < 0.3:
        turns.append(_clear_turn(rng, split))
    return Conversation(tuple(turns))


def _unheard(rng: Random, split: Split) -> Conversation:
    """Be not understood, and then, mostly, be understood."""
    turns = [] if rng.random() < 0.6 else [_clear_turn(rng, split)]
    # The same question comes twice: first too unclear to be understood, then clearly. People do so
    # when they are asked to say it again.
    question = _clear_turn(rng, split)
    turns.append(unheard.sample(rng, split, question.user))
    if rng.random() < 0.5:
        turns.append(question)
    return Conversation(tuple(turns))


def _shown(rng: Random, split: Split) -> Conversation:
    """Show a picture among other talk, or ask about one that nobody showed."""
    if rng.random() < 0.08:
        return Conversation((pictures.blind(rng, split),))
    turns = pictures.sample(rng, split)
    if rng.random() < 0.15:
        turns = (_clear_turn(rng, split), *turns)
    return Conversation(turns)


_NEW: Mapping[str, Callable[[Random, Split], Conversation]] = {
    functions.SKILL: _with_functions,
    instructions.SKILL: lambda rng, split: instructions.sample(rng, split, _clear_or_unknown),
    pictures.SKILL: _shown,
    control.SKILL: _controlled,
    unheard.SKILL: _unheard,
}


def _clear_or_unknown(rng: Random, split: Split, skill: str) -> Turn:
    return _turn(rng, split, skill, Remembered())[0]


def sample_conversation(rng: Random, split: Split, skill: str | None = None) -> Conversation:
    """Draw a conversation, led by instructions and functions or by none.

    Wordings are split as in `sample_dialogue`. Names of functions, greetings and languages are
    split likewise: what eval offers, greets with and speaks was never in training.

    Args:
        rng: the only source of chance; the same state gives the same conversation.
        split: which wordings may occur.
        skill: one that it exercises; by default the training mixture.

    Raises:
        ValueError: there is no such skill.
    """
    if skill is None:
        names = (*NEW_WEIGHTS, "")
        weights = (*NEW_WEIGHTS.values(), 1.0 - sum(NEW_WEIGHTS.values()))
        skill = rng.choices(names, weights)[0]
        if not skill:
            return Conversation(sample_dialogue(rng, split))
    if skill in NEW_WEIGHTS:
        return _NEW[skill](rng, split)
    if skill not in WEIGHTS:
        message = f"no such skill: {skill!r}; there are {', '.join(ALL_SKILLS)}"
        raise ValueError(message)
    return Conversation(sample_dialogue(rng, split, skill))


def reply_texts() -> list[str]:
    """List every reply that conversations share, sorted; the same in both splits.

    Left out are those made of the conversation's own words: repeated ones, results of functions,
    greetings, several shapes.
    """
    replies = {
        f.reply for families in FAMILIES.values() for family in families for f in family.facts
    }
    for module in (memory, functions, instructions, pictures):
        replies.update(module.replies())
    facts = (f for families in FAMILIES.values() for family in families for f in family.facts)
    replies.update(f.short for f in facts if f.short)
    own = (control.NOTHING_SAID, control.STOPPED, unheard.REPLY)
    return sorted(replies.union(own))


def vocabulary() -> list[str]:
    """List every word that a user or a reply can hold, sorted."""
    words: set[str] = set()
    for families in FAMILIES.values():
        for family in families:
            for text in family.texts():
                words.update(text.split())
    for module in (repeat, memory, functions, instructions, control, unheard, pictures):
        for text in module.texts():
            words.update(text.split())
    return sorted(words)


def corpus(num_dialogues: int, seed: int) -> Iterator[str]:
    """Yield the lines of training dialogues, user and reply in turn, then every single word.

    Made for training the text tokenizer: with the words at the end none is unseen.
    """
    rng = Random(seed)
    for _ in range(num_dialogues):
        conversation = sample_conversation(rng, "train")
        yield conversation.instructions
        for tool in conversation.tools:
            yield f"{plain_words(tool.name)} {tool.description}"
        for turn in conversation.turns:
            if not turn.spoilt:
                yield turn.user
            yield turn.reply
            for call in turn.calls:
                yield result_text(call.result)
    # A word that no dialogue happened to have would be spelled letter by letter for ever.
    yield from vocabulary()
