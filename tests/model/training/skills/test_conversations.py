"""Conversations that are led by instructions and functions, shown pictures, or not understood."""

import json
from collections import Counter
from random import Random

import pytest

from model.messages import Tool
from model.prompts import plain_words, required_parameters, result_text
from model.training.pictures.scene import Scene
from model.training.skills import (
    ALL_SKILLS,
    Conversation,
    Split,
    control,
    functions,
    instructions,
    pictures,
    reply_texts,
    sample_conversation,
    unheard,
    vocabulary,
)


@pytest.fixture(scope="module")
def train() -> list[Conversation]:
    """Draw conversations of the training split."""
    rng = Random(1)
    return [sample_conversation(rng, "train") for _ in range(12_000)]


@pytest.fixture(scope="module")
def held_out() -> list[Conversation]:
    """Draw conversations of the eval split."""
    rng = Random(2)
    return [sample_conversation(rng, "eval") for _ in range(6_000)]


def test_reply_follows_from_prompt_and_conversation(
    train: list[Conversation], held_out: list[Conversation]
) -> None:
    """The same instructions, functions, words, pictures and results lead to the same reply."""
    replies: dict[tuple[object, ...], tuple[object, ...]] = {}
    for talk in (*train, *held_out):
        history: tuple[object, ...] = (talk.instructions, talk.tools)
        for turn in talk.turns:
            heard = "" if turn.spoilt else turn.user
            results = tuple((call.name, result_text(call.result)) for call in turn.calls)
            history = (*history, heard, bool(turn.spoilt), turn.picture, results)
            made = (turn.reply, turn.first, turn.style, turn.calls and turn.calls[0].arguments)
            assert replies.setdefault(history, made) == made, history


def test_functions_of_eval_were_never_offered_in_training(
    train: list[Conversation], held_out: list[Conversation]
) -> None:
    """Not one name is in both splits."""
    offered, new = (
        {plain_words(t.name) for talk in talks for t in talk.tools} for talks in (train, held_out)
    )
    assert len(new) > 300
    assert not offered & new


def test_calls_are_of_what_is_offered(train: list[Conversation]) -> None:
    """Names are offered ones, arguments those that their schemas demand, and said by the user."""
    calls = 0
    for talk in train:
        tools: dict[str, Tool] = {tool.name: tool for tool in talk.tools}
        for turn in talk.turns:
            for call in turn.calls:
                calls += 1
                arguments = json.loads(call.arguments)
                assert list(arguments) == list(required_parameters(tools[call.name].parameters))
                said = [value for value in arguments.values() if isinstance(value, str)]
                assert all(value in turn.user for value in said)
    assert calls > 2_000


def test_replies_to_results(train: list[Conversation]) -> None:
    """An error is said to be one after at most one more try; the rest is spoken as it is."""
    tries, seen = Counter[int](), Counter[str]()
    for turn in (turn for talk in train for turn in talk.turns if turn.calls):
        words = result_text(turn.calls[-1].result)
        tries[len(turn.calls)] += 1
        if turn.reply == functions.FAILED:
            assert words.startswith("error") or words == "false"
            seen["failed"] += 1
        elif turn.reply == functions.DONE:
            seen["done"] += 1
        else:
            assert words == turn.reply
            seen["spoken"] += 1
        if len(turn.calls) == 2:
            assert "try again" in result_text(turn.calls[0].result)
            assert turn.calls[0].arguments == turn.calls[1].arguments
    assert set(tries) == {1, 2}
    assert min(seen.values()) > 100


def test_instructions_decide_replies() -> None:
    """One word, a name, a greeting and a subject each do what they say."""
    rng = Random(5)
    told = [sample_conversation(rng, "train", "instructions") for _ in range(3_000)]
    seen = Counter[str]()
    for talk in told:
        for turn in talk.turns:
            if turn.reply.startswith("i may only talk about"):
                seen["subject"] += 1
                assert turn.reply.removeprefix("i may only ") in talk.instructions + (
                    f" talk about {turn.reply.split()[-1]}"
                )
                assert turn.reply.split()[-1] in talk.instructions
            elif turn.skill == instructions.SKILL and not turn.user:
                seen["greeting"] += 1
                assert talk.instructions.endswith(turn.reply)
            elif turn.reply.startswith("i am ") and turn.skill == instructions.SKILL:
                seen["name"] += 1
                assert turn.reply.split()[-1] in talk.instructions.split()
            elif turn.short and turn.reply == turn.short:
                seen["one word"] += 1
                assert "word" in talk.instructions
    assert min(seen[rule] for rule in ("subject", "greeting", "name", "one word")) > 200


def test_said_again_is_what_was_said() -> None:
    """Slower and louder repeat the words; without words before there is nothing to repeat."""
    rng = Random(6)
    styles = Counter[str]()
    for _ in range(1_000):
        turns = sample_conversation(rng, "train", "control").turns
        at = next(i for i, turn in enumerate(turns) if turn.skill == control.SKILL)
        styles[turns[at].style] += 1
        if turns[at].style != "plain":
            assert turns[at].reply == turns[at - 1].reply
        else:
            assert turns[at].reply in {turns[at - 1].reply, control.STOPPED, control.NOTHING_SAID}
    assert min(styles[style] for style in ("plain", "slow", "loud")) > 100


@pytest.mark.parametrize("split", ["train", "eval"])
def test_what_is_not_understood(split: Split) -> None:
    """Every way occurs, one reply is right, and languages are split."""
    rng, ways = Random(7), Counter[str]()
    for _ in range(2_000):
        turns = sample_conversation(rng, split, "unheard").turns
        spoilt = next(turn for turn in turns if turn.spoilt)
        ways[spoilt.spoilt] += 1
        assert spoilt.reply == unheard.REPLY
    languages = {way.split()[1] for way in ways if way.startswith("foreign")}
    assert set(unheard.WAYS) < set(ways)
    assert (languages == set(unheard.HELD_OUT_LANGUAGES)) == (split == "eval")
    assert not languages & set(unheard.HELD_OUT_LANGUAGES) or split == "eval"


def test_pictures_are_answered_from_what_they_show() -> None:
    """Count, colour, direction and digit come from the scene; the rest is not to be told."""
    rng, cannot = Random(8), 0
    for _ in range(2_000):
        turns = [
            t
            for t in sample_conversation(rng, "train", "pictures").turns
            if t.skill == pictures.SKILL
        ]
        scene = Scene.read(turns[0].picture) if turns[0].picture else None
        for turn in turns:
            cannot += turn.reply == pictures.CANNOT_TELL
            if scene is None or scene.kind == "other":
                assert turn.reply == pictures.CANNOT_TELL
            elif turn.reply in ("one", "two", "three"):
                assert ("one", "two", "three").index(turn.reply) + 1 == len(scene.shapes)
            elif turn.reply.startswith(("it points", "the number")):
                assert turn.reply.split()[-1] == scene.value
    assert cannot > 200


def test_every_skill_occurs_and_can_be_chosen(train: list[Conversation]) -> None:
    """The mixture has them all, and asking for one gives it."""
    skills = Counter(turn.skill for talk in train for turn in talk.turns)
    assert set(skills) == set(ALL_SKILLS)
    for skill in ALL_SKILLS:
        talks = [sample_conversation(Random(i), "eval", skill) for i in range(60)]
        assert any(turn.skill == skill for talk in talks for turn in talk.turns)
    with pytest.raises(ValueError, match="no such skill: 'poetry'"):
        sample_conversation(Random(0), "train", "poetry")


def test_words_are_known(train: list[Conversation], held_out: list[Conversation]) -> None:
    """Every word that is said or answered is in the vocabulary."""
    words = set(vocabulary())
    for talk in (*train, *held_out):
        for turn in talk.turns:
            said = "" if turn.spoilt else turn.user
            assert set(f"{said} {turn.reply} {turn.first}".split()) <= words, turn
            assert len(turn.reply.split()) <= functions.LONGEST_RESULT


def test_shared_replies_are_listed(train: list[Conversation]) -> None:
    """Most of what is said again and again is among the replies that are all spoken."""
    shared = set(reply_texts())
    often = Counter(turn.reply for talk in train for turn in talk.turns)
    assert all(reply in shared for reply, count in often.items() if count >= 25)


def test_scripts_of_a_seed_are_the_same() -> None:
    """Chance comes from the generator that is passed, and from nowhere else."""
    one, two = Random(9), Random(9)
    assert [sample_conversation(one, "train") for _ in range(200)] == [
        sample_conversation(two, "train") for _ in range(200)
    ]
