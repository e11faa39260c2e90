"""Repeat after me: strings of common words that sound unlike each other, and short phrases.

The words have no common homophones, so a transcript can be told from the sound alone; nor do they
occur in the templates around them, so where the string starts and ends is never in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from model.training.skills.phrasing import (
    Split,
    Turn,
    choose_wording,
    is_held_out,
    make_cores,
    word_list,
)

SKILL = "repeat"
MOST_WORDS = 5
PHRASE_SHARE = 0.15

NOUNS = word_list(
    """
    apple banana lemon cherry melon potato tomato onion garlic pepper butter cheese sugar
    coffee honey bottle basket bucket button candle camera castle chicken rabbit tiger lion monkey
    elephant zebra camel donkey dolphin turtle spider lizard dragon eagle parrot penguin pigeon
    puppy kitten dog cat fish bird duck pig wolf fox goat frog snake shark crab river mountain
    valley island forest desert ocean garden meadow jungle lake hill cave cloud storm thunder snow
    window table sofa pillow blanket carpet curtain mirror kitchen bedroom ceiling cupboard drawer
    hammer needle pencil pocket paper letter picture planet rocket robot engine tractor
    bicycle helicopter wagon bridge tunnel station ticket market village church school hospital
    library museum office palace tower street doctor teacher farmer soldier baker painter singer
    dancer driver pilot sailor captain king queen princess baby mother father sister brother
    cousin uncle family finger shoulder elbow stomach mouth tongue head neck chest hand foot bone
    skin brain hat coat shirt jacket glove sock boot belt scarf necklace clock minute month
    holiday birthday party music guitar piano trumpet violin drum song movie poem book puzzle
    balloon kite doll game football tennis circle triangle diamond copper cotton stone brick
    sand mud fire smoke water milk juice soup bread cake biscuit chocolate rice salt egg sandwich
    spoon fork knife cup box bag lamp lantern magnet rope boat anchor compass map magic secret
    shadow pattern problem helmet ribbon blossom feather pebble
    hotel airport traffic circus cinema theatre stadium farm barn fence garage attic chimney
    towel soap shovel screw wheel truck bus taxi ship submarine parachute
    tent backpack torch telescope diary magazine newspaper radio television telephone
    computer keyboard
    """
)
ADJECTIVES = word_list(
    """
    happy angry funny silly clever lazy gentle brave careful noisy quiet simple big small tall
    short long thin thick heavy empty deep flat sharp smooth rough soft hard warm cold hot wet dry
    clean dirty fresh rich young old early perfect royal tiny giant dark bright pretty strange
    yellow purple orange green pink brown black silver golden
    """
)
OTHERS = word_list(
    """
    jump run walk dance sleep laugh smile drink swim climb carry catch push kick listen whisper
    shout travel gather draw paint cook wash brush think finish begin borrow escape
    yesterday together always never maybe almost under between behind sometimes tomorrow enough
    north south spring autumn evening monday friday january october
    """
)
WORDS = tuple(sorted({*NOUNS, *ADJECTIVES, *OTHERS}))

_PHRASES = (
    "the {adjective} {noun}",
    "my {noun} is {adjective}",
    "i like the {adjective} {noun}",
    "the {noun} and the {other}",
    "{noun} and {other}",
    "i see the {adjective} {noun}",
    "we want the {noun}",
    "the {noun} is very {adjective}",
)

_TEMPLATES = (
    "say {x}",
    "repeat {x}",
    "repeat after me {x}",
    "say after me {x}",
    "say this {x}",
    "repeat this {x}",
    "say these words {x}",
    "repeat these words {x}",
    "say the words {x}",
    "repeat the words {x}",
    "repeat the following {x}",
    "say the following words {x}",
    "repeat back to me {x}",
    "say back to me {x}",
    "try to say {x}",
    "try to repeat {x}",
    "repeat what i say {x}",
)
_ONE_WORD = ("say the word {x}", "repeat the word {x}")

_CORES = make_cores(SKILL, "repeat", _TEMPLATES)
_ONE_WORD_CORES = (*_CORES, *make_cores(SKILL, "repeat", _ONE_WORD))


def _draw_string(rng: Random) -> str:
    if rng.random() < PHRASE_SHARE:
        noun, other = rng.sample(NOUNS, 2)
        adjective = rng.choice(ADJECTIVES)
        return rng.choice(_PHRASES).format(noun=noun, other=other, adjective=adjective)
    return " ".join(rng.sample(WORDS, rng.randint(1, MOST_WORDS)))


def sample(rng: Random, split: Split) -> Turn:
    """Draw a string of the split, in any wording: here the string is held out, not the wording."""
    # Words are repeated that nothing foretells: the only way to be right is to hear them. So this
    # skill tells most about the ears of a model.
    string = _draw_string(rng)
    while is_held_out(SKILL, string) != (split == "eval"):
        string = _draw_string(rng)
    # Wordings are shared by both splits: an eval string already makes the whole utterance new.
    cores = _CORES if " " in string else _ONE_WORD_CORES
    return Turn(choose_wording(rng, "train", cores).format(x=string), string, SKILL)


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from WORDS
    for text in (*_PHRASES, *(w for core in _ONE_WORD_CORES for w in (core.text, *core.train))):
        yield " ".join(word for word in text.split() if not word.startswith("{"))
