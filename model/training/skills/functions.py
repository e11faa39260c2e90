"""Functions: call what the session offers, with names and values copied from prompt and question.

Some functions are everyday ones under many names. The others are put together from any verb and any
noun, so that nothing but the words of prompt and question says what is meant. One name in eight is
kept out of training; what is asked of it in eval is then asked of a function never seen.

What a function returns is spoken as it is; see `spoken_result`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from model.messages import Tool
from model.prompts import result_text
from model.training.skills import unknown
from model.training.skills.capitals import CAPITALS
from model.training.skills.memory import COLOURS, NAMES
from model.training.skills.numbers import number_words
from model.training.skills.phrasing import (
    HELD_OUT_ONE_IN,
    Called,
    Core,
    Mood,
    Split,
    Turn,
    choose_wording,
    make_cores,
    word_list,
)
from model.training.skills.repeat import ADJECTIVES, NOUNS, WORDS
from model.training.skills.sequence import DAYS

SKILL = "functions"
DONE = "okay that is done"
FAILED = "sorry that did not work"
WAIT = "one moment please"
REFUSED = unknown.REPLY
MOST_TOOLS = 4
LONGEST_RESULT = 14  # words

_ERROR_SHARE = 0.16
_TRY_AGAIN_SHARE = 0.5  # of these
_SLOW_SHARE = 0.3
_DESCRIBED_SHARE = 0.7
_ANY_NAME_SHARE = 0.5  # of the functions put together from any words

# What functions return when they have nothing to say, in the forms that programmers use. All of
# these mean the same and have the same reply.
_DONE_RESULTS = ("done", "ok", "true", '{"ok": true}', '{"success": true}', '{"status": "ok"}', "")
_BROKEN = (
    '{"ok": false}',
    '{"error": "not found"}',
    '{"error": "not allowed"}',
    "error",
    "error it is broken",
)
_BUSY = ('{"error": "busy try again"}', '{"error": "try again"}', "error try again later")
_SLOW = ("slow", "it takes a while", "this takes some time", "it takes a moment", "may take long")

_ROOMS = word_list("kitchen bedroom garage garden office hall bathroom attic cellar lounge")
_CITIES = (
    *sorted(CAPITALS.values()),
    *("new york", "atlanta", "san francisco", "chicago", "boston", "seattle", "miami"),
    *("manchester", "liverpool", "oxford", "hamburg", "munich", "barcelona", "milan", "naples"),
    *("venice", "geneva", "sydney", "melbourne", "toronto", "shanghai", "denver", "dubai"),
)
_SKIES = word_list("sunny cloudy rainy windy snowy foggy dry stormy")
_VERBS = word_list(
    """
    open close start stop check clean lock move find sell hide paint fill wash cook feed water
    polish repair park print charge ring lift shake mix bake order book show cancel save measure
    test warm cool load empty fold hang light send pack rent share draw record
    """
)
_KEYS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "room": _ROOMS,
    "day": DAYS,
    "name": NAMES,
    "size": word_list("small big tiny giant short tall thin thick"),
    "shape": word_list("circle triangle square diamond"),
    "word": WORDS,
}
_NUMBER_KEYS = word_list("number speed level count amount")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        keys: names it may have.
        values: what it may be; integers in `low` to `high` if there are none.
        is_enum: whether the schema lists all values.
        is_truth: whether it is a boolean; `values` are then no and yes in the user's words.
    """

    slot: str
    keys: tuple[str, ...]
    values: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    is_enum: bool = False
    is_truth: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """Functions for one purpose, whatever their names.

    Attributes:
        names: in words.
        cores: how a user asks.
        purpose: what descriptions say.
        returns: draws what it returns in words; None if nothing.
    """

    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    cores: tuple[Core, ...]
    purpose: tuple[str, ...]
    returns: Callable[[Random], str] | None = None


def _cores(templates: dict[Mood, tuple[str, ...]]) -> tuple[Core, ...]:
    return tuple(c for mood, texts in templates.items() for c in make_cores(SKILL, mood, texts))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _weather(rng: Random) -> str:
    sky, degrees = rng.choice(_SKIES), rng.randint(0, 35)
    return rng.choice(
        (
            f"{sky} and {degrees} degrees",
            json.dumps({"sky": sky, "temperature": degrees}),
            json.dumps({"temperature": degrees, "weather": sky}),
            f"it is {sky}",
            f"it is {sky} and {degrees} degrees in {rng.choice(_CITIES)}",
            json.dumps({"degrees": degrees}),
        )
    )


def _time(rng: Random) -> str:
    hour, minute = rng.randint(1, 12), rng.choice((5, 10, 15, 20, 25, 30, 40, 45, 50))
    return rng.choice((f"it is {hour} {minute}", json.dumps({"hour": hour, "minute": minute})))


def _price(rng: Random) -> str:
    price = rng.randint(2, 99)
    return rng.choice((f"{price} dollars", json.dumps({"price": price}), f"it costs {price} euros"))


def _words(rng: Random) -> str:
    words = rng.sample(WORDS, rng.randint(1, 4))
    return rng.choice((" ".join(words), json.dumps({rng.choice(("result", "answer")): words[0]})))


_CITY = Parameter("x", word_list("city location place town"), _CITIES)
_PERSON = Parameter("n", word_list("name person contact who"), NAMES)
_THING = Parameter("x", word_list("item thing product object"), NOUNS)

KINDS: tuple[Kind, ...] = (
    Kind(
        _names(
            "get weather, weather, check weather, get forecast, current weather, fetch weather, "
            "weather report, weather now, find weather, look up weather"
        ),
        (_CITY,),
        _cores(
            {
                "question": (
                    "what is the weather in {x}",
                    "what's the weather in {x}",
                    "how is the weather in {x}",
                    "what is the weather like in {x}",
                    "is it raining in {x}",
                    "will it rain in {x}",
                    "how warm is it in {x}",
                ),
                "command": ("check the weather in {x}", "get me the weather for {x}"),
            }
        ),
        ("get the weather of a city", "tells the weather", "the weather at a place"),
        _weather,
    ),
    Kind(
        _names("set timer, start timer, timer, create timer, new timer, add timer, run timer"),
        (Parameter("x", word_list("minutes duration length time"), low=2, high=60),),
        _cores(
            {
                "command": (
                    "set a timer for {x} minutes",
                    "start a timer for {x} minutes",
                    "set a {x} minute timer",
                    "give me a timer of {x} minutes",
                    "time {x} minutes",
                ),
                "statement": ("i need a timer for {x} minutes", "wake me in {x} minutes"),
            }
        ),
        ("set a timer in minutes", "starts a timer", "a timer that rings after some minutes"),
    ),
    Kind(
        _names("set light, switch light, control light, light, change light, set lamp, lights"),
        (
            Parameter("r", word_list("room place where"), _ROOMS),
            Parameter("s", word_list("state power mode"), ("on", "off"), is_enum=True),
        ),
        _cores(
            {
                "command": (
                    "turn {s} the light in the {r}",
                    "turn the light in the {r} {s}",
                    "switch {s} the {r} light",
                    "switch the {r} light {s}",
                    "turn the {r} lights {s}",
                )
            }
        ),
        ("turn a light on or off", "switches the lights of a room"),
    ),
    Kind(
        _names("timer seconds, count seconds, second timer, short timer"),
        (Parameter("x", word_list("seconds duration length"), low=5, high=59),),
        _cores(
            {
                "command": (
                    "set a timer for {x} seconds",
                    "start a timer for {x} seconds",
                    "time {x} seconds",
                )
            }
        ),
        ("set a timer in seconds", "a timer of seconds"),
    ),
    Kind(
        _names("turn light, all lights, house light, main light, toggle light"),
        (Parameter("s", word_list("state power mode"), ("on", "off"), is_enum=True),),
        _cores(
            {
                "command": (
                    "turn {s} the light",
                    "turn the light {s}",
                    "turn {s} the lights",
                    "turn the lights {s}",
                    "switch {s} the light",
                    "switch the lights {s}",
                )
            }
        ),
        ("turn the light on or off", "switches all lights"),
    ),
    Kind(
        _names("turn on light, light on, lights on, switch on light"),
        (),
        _cores({"command": ("turn on the light", "turn the light on", "switch on the lights")}),
        ("turn the light on",),
    ),
    Kind(
        _names("turn off light, light off, lights off, switch off light"),
        (),
        _cores({"command": ("turn off the light", "turn the light off", "switch off the lights")}),
        ("turn the light off",),
    ),
    Kind(
        _names("set fan, fan, switch fan, control fan"),
        (Parameter("s", word_list("on active running"), ("off", "on"), is_truth=True),),
        _cores({"command": ("turn {s} the fan", "turn the fan {s}", "switch the fan {s}")}),
        ("turn the fan on or off", "switches the fan"),
    ),
    Kind(
        _names("play music, play song, play, start music, music player, play track"),
        (
            Parameter(
                "x",
                word_list("song title track music"),
                tuple(f"{a} {n}" for a in ADJECTIVES for n in NOUNS[::5]),
            ),
        ),
        _cores(
            {
                "command": ("play {x}", "play the song {x}", "play me {x}", "put on {x}"),
                "statement": ("i want to hear {x}", "i want to listen to {x}"),
            }
        ),
        ("play a song", "plays music"),
    ),
    Kind(
        _names("call contact, call, phone, make call, call person, dial, phone contact"),
        (_PERSON,),
        _cores({"command": ("call {n}", "phone {n}", "give {n} a call", "ring {n}")}),
        ("call a person", "makes a phone call"),
    ),
    Kind(
        _names("send message, message, text, write message, send text, send note"),
        (
            _PERSON,
            Parameter(
                "t",
                word_list("message text content words"),
                tuple(f"the {n} is {a}" for n in NOUNS[::3] for a in ADJECTIVES[::2]),
            ),
        ),
        _cores(
            {"command": ("send {n} the message {t}", "tell {n} that {t}", "write to {n} that {t}")}
        ),
        ("send a message to a person", "sends a text"),
    ),
    Kind(
        _names("set alarm, alarm, wake me, new alarm, create alarm, alarm clock"),
        (Parameter("x", word_list("hour time at"), low=1, high=12),),
        _cores(
            {
                "command": ("wake me up at {x}", "set an alarm for {x}", "set the alarm to {x}"),
                "statement": ("i want to get up at {x}",),
            }
        ),
        ("set an alarm", "wakes the user at an hour"),
    ),
    Kind(
        _names("get time, time, local time, current time, clock, time in city"),
        (_CITY,),
        _cores({"question": ("what time is it in {x}", "what is the time in {x}")}),
        ("the time in a city", "tells the local time"),
        _time,
    ),
    Kind(
        _names("add item, add to list, shopping list, put on list, list item, save item"),
        (_THING,),
        _cores({"command": ("add {x} to my list", "put {x} on the list", "write {x} on my list")}),
        ("add something to the list", "the shopping list"),
    ),
    Kind(
        _names("get price, price, check price, find price, cost, look up price"),
        (_THING,),
        _cores(
            {
                "question": (
                    "how much does the {x} cost",
                    "what is the price of the {x}",
                    "how much is the {x}",
                )
            }
        ),
        ("the price of a thing", "finds out what something costs"),
        _price,
    ),
    Kind(
        _names("set volume, volume, change volume, sound level"),
        (Parameter("x", word_list("level volume value"), low=0, high=10),),
        _cores({"command": ("set the volume to {x}", "change the volume to {x}")}),
        ("set the volume", "how loud it is"),
    ),
    Kind(
        _names("find person, where is, locate person, find friend, get position"),
        (_PERSON,),
        _cores({"question": ("where is {n}", "where is {n} now"), "command": ("find {n}",)}),
        ("where a person is", "finds a person"),
        lambda rng: f"in the {rng.choice(_ROOMS)}",
    ),
)


def is_held_out_name(name: str) -> bool:
    """Say whether functions of this name, in words, are kept out of training."""
    # A hash and not a draw: whether a name is held out depends on the name alone, today and in any
    # later recipe.
    return zlib.crc32(f"function|{name}".encode()) % HELD_OUT_ONE_IN == 0


def _any_kind(rng: Random) -> Kind:
    """Make a function of any two words; its name says what it does."""
    verb, noun = rng.choice(_VERBS), rng.choice(NOUNS)
    name = f"{verb} {noun}"
    parameters: tuple[Parameter, ...] = ()
    texts = [f"{verb} the {noun}"]
    # A worked example: "polish" and "lamp" are the function polish_lamp, with the parameter
    # "colour" here. A user asks "polish the blue lamp", and the call is polish_lamp with {"colour":
    # "blue"}. As verbs and nouns are combined freely, there are over ten thousand of such
    # functions: nobody can learn them by heart, only how to read them off the prompt.
    if rng.random() < 0.65:
        if rng.random() < 0.35:
            key = rng.choice(_NUMBER_KEYS)
            parameters = (Parameter("x", (key,), low=0, high=60),)
        else:
            key = rng.choice(tuple(_KEYS))
            values = _KEYS[key]
            is_enum = len(values) <= 12 and rng.random() < 0.3
            parameters = (Parameter("x", (key,), values, is_enum=is_enum),)
        texts = [f"{verb} the {noun} with {key} {{x}}", f"{verb} the {noun} for {key} {{x}}"]
        if key == "room":
            texts = [f"{verb} the {noun} in the {{x}}"]
        elif key == "day":
            texts = [f"{verb} the {noun} on {{x}}", *texts]
        elif key == "name":
            texts = [f"{verb} the {noun} for {{x}}", *texts]
        elif key in ("colour", "size"):
            texts = [f"{verb} the {{x}} {noun}", *texts]
    else:
        texts += [f"use {name}", f"run {name}", f"do {name}", f"call the function {name}"]
    core = Core(rng.choice(texts), (), ())
    returns = _words if rng.random() < 0.4 else None
    return Kind((name,), parameters, (core,), (f"{verb} a {noun}", f"for the {noun}"), returns)


def _theme(kind: Kind) -> str:
    """Return what functions are about, as far as one of them could be taken for another."""
    name = kind.names[0]
    return next((theme for theme in ("light", "timer") if theme in name), name)


@dataclass(frozen=True, slots=True)
class Offered:
    """A function as one session names it."""

    kind: Kind
    name: str
    keys: tuple[str, ...]
    tool: Tool
    is_slow: bool


def _written(rng: Random, words: str) -> str:
    """Write a name of words as programmers do."""
    if rng.random() < 0.25:
        # "set timer" is setTimer or set_timer. To the model both are the same words: see
        # `model.prompts.plain_words`.
        first, *rest = words.split()
        return first + "".join(word.capitalize() for word in rest)
    return words.replace(" ", "_")


def offer(rng: Random, split: Split, but: tuple[Offered, ...] = ()) -> Offered:
    """Draw a function that is not for the purpose of another one."""
    while True:
        kind = _any_kind(rng) if rng.random() < _ANY_NAME_SHARE else rng.choice(KINDS)
        # A worked example: "set timer" is offered. "timer seconds" has the same theme and "shake
        # timer" a word in common: asked for "a timer for ten", nobody could say which one is meant.
        # A right answer must be the only one.
        taken = {word for other in but for name in other.kind.names for word in name.split()}
        names = [n for n in kind.names if is_held_out_name(n) == (split == "eval")]
        # Two functions for lights could both be meant; so could two with a word in common.
        clashes = any(_theme(kind) == _theme(other.kind) for other in but) or (
            len(kind.names) == 1 and taken & set(kind.names[0].split())
        )
        if names and not clashes:
            break
    name = rng.choice(names)
    keys = tuple(rng.choice(p.keys) for p in kind.parameters)
    is_slow = rng.random() < _SLOW_SHARE
    said = rng.choice(kind.purpose) if rng.random() < _DESCRIBED_SHARE else ""
    description = f"{said} {rng.choice(_SLOW)}".strip() if is_slow else said
    schema = {
        "type": "object",
        "properties": {key: _schema(p) for key, p in zip(keys, kind.parameters, strict=True)},
        "required": list(keys),
    }
    tool = Tool(_written(rng, name), description, json.dumps(schema))
    return Offered(kind, name, keys, tool, is_slow)


def _schema(parameter: Parameter) -> dict[str, object]:
    if parameter.is_truth:
        return {"type": "boolean"}
    if not parameter.values:
        return {"type": "integer"}
    if parameter.is_enum:
        return {"type": "string", "enum": list(parameter.values)}
    return {"type": "string"}


def spoken_result(results: list[str]) -> str:
    """Return the right reply to what a function returned, the newest last.

    What is an error is said to be one, after a second try if it asks for one; what says no more
    than that it was done is answered so; everything else is spoken as it is.
    """
    # {"status": "ok"} is "ok" in words and is answered "okay that is done". "sunny and 20 degrees"
    # is said as it is. {"error": "busy try again"} is an error.
    words = result_text(results[-1]).split()
    if words[:1] == ["error"] or words == ["false"]:
        return FAILED
    if " ".join(words) in _DONE_WORDS:
        return DONE
    return " ".join(words[:LONGEST_RESULT])


_DONE_WORDS = frozenset(result_text(result) for result in _DONE_RESULTS)


def ask(rng: Random, split: Split, offered: Offered) -> Turn:
    """Ask for an offered function: the turn with its calls, their results and the reply."""
    kind = offered.kind
    # A function put together from any words is held out by its name: its wordings are all new.
    wording = choose_wording(rng, "train" if len(kind.names) == 1 else split, kind.cores)
    slots: dict[str, str] = {}
    arguments: dict[str, object] = {}
    # A worked example: a timer with the parameter "minutes" of 2 to 60. 15 is drawn: the user says
    # "fifteen", and the call has the number 15. For a truth such as "turn off the fan" the user's
    # word is "off", and the call says false.
    for key, parameter in zip(offered.keys, kind.parameters, strict=True):
        if not parameter.values:
            number = rng.randint(parameter.low, parameter.high)
            slots[parameter.slot], arguments[key] = number_words(number), number
            continue
        value = rng.choice(parameter.values)
        slots[parameter.slot] = value
        is_yes = parameter.is_truth and value == parameter.values[1]
        arguments[key] = is_yes if parameter.is_truth else value
    given = json.dumps(arguments)
    results = _results(rng, kind)
    calls = tuple(Called(offered.tool.name, given, result) for result in results)
    return Turn(
        wording.format(**slots),
        spoken_result(results),
        SKILL,
        calls=calls,
        first=WAIT if offered.is_slow else "",
    )


def _results(rng: Random, kind: Kind) -> list[str]:
    if rng.random() < _ERROR_SHARE:
        # A function that says it is busy is called once more. What comes then is mostly a result,
        # and sometimes the same again.
        if rng.random() < _TRY_AGAIN_SHARE:
            again = rng.choice(_BUSY) if rng.random() < 0.3 else _result(rng, kind)
            return [rng.choice(_BUSY), again]
        return [rng.choice(_BROKEN)]
    return [_result(rng, kind)]


def _result(rng: Random, kind: Kind) -> str:
    if kind.returns is None or rng.random() < 0.1:
        return rng.choice(_DONE_RESULTS) if rng.random() < 0.9 else _words(rng)
    return kind.returns(rng)


def refuse(rng: Random, split: Split, but: tuple[Offered, ...]) -> Turn:
    """Ask for a function that is not offered."""
    return Turn(ask(rng, split, offer(rng, split, but)).user, REFUSED, SKILL)


def replies() -> Iterator[str]:
    """Yield the replies that do not depend on what a function returned."""
    yield from (DONE, FAILED, WAIT, REFUSED)


def texts() -> Iterator[str]:
    """Yield texts that together hold every word of the skill."""
    yield from replies()
    for kind in KINDS:
        yield from (*kind.names, *kind.purpose)
        for parameter in kind.parameters:
            yield from (*parameter.keys, *parameter.values)
        for core in kind.cores:
            for wording in (core.text, *core.train, *core.held_out):
                yield " ".join(word for word in wording.split() if "{" not in word)
    for key, values in _KEYS.items():
        yield from (key, *values)
    yield from (*_VERBS, *_NUMBER_KEYS, *_SKIES, *_SLOW)
    yield from (result_text(result) for result in (*_DONE_RESULTS, *_BROKEN, *_BUSY))
    yield from ("use run do call the function with for in the on a",)
    yield "degrees sky temperature weather hour minute dollars price euros costs result answer"
