"""Choose what to answer: the script's first reply that fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from model.errors import ScriptError
from model.messages import Respond
from model.scripted.memory import Memory
from model.scripted.script import Pace, Rule, Script, ScriptedCall, When
from model.scripted.sight import Seen
from model.scripted.template import NAMES, filled


@dataclass(frozen=True, slots=True)
class Check:
    """Arguments that a function must take before they are sent.

    Attributes:
        place: in the script.
        function: name of it.
        parameters: its JSON schema, as JSON text.
        arguments: as JSON text.
    """

    place: str
    function: str
    parameters: str
    arguments: str

    def refused(self, misfit: str) -> str:
        """Say that it does not take them, and why, as the checker says it."""
        colon = "" if misfit.startswith("[") else ": "
        return (
            f"{self.place}: the function {self.function!r} does not take arguments{colon}{misfit}"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response consists of.

    Attributes:
        rule: index of the script's reply; None for what is recited.
        words: to say or to write.
        calls: name and arguments of functions to call after that, arguments as compact JSON.
        fail: message with which the response fails at its end, None to complete it.
        lose_session: message with which the session is lost at its end, None to keep it.
        pace: how fast it is made.
        checks: that must be passed first, one a call.
    """

    rule: int | None
    words: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]
    fail: str | None
    lose_session: str | None
    pace: Pace
    checks: tuple[Check, ...] = ()


def choose(
    script: Script, memory: Memory, request: Respond, instructions: str, uses: Counter[int]
) -> Answer:
    """Return what to answer, and count the use of the reply.

    Args:
        script: to follow.
        memory: of the conversation.
        request: to be answered.
        instructions: in force for it.
        uses: how often each reply of the script was given in this session.

    Raises:
        ScriptError: no reply fits.
    """
    # A worked example of two replies:
    #
    #     0   when: {user: weather}, at_most: 1     say: it is sunny
    #     1                                         say: i do not know
    #
    # The first question about the weather gets reply 0, which is then used up. The second gets
    # reply 1, and so does everything else. Without reply 1 the second would be an error that names
    # what was said.
    for index, rule in enumerate(script.reply):
        if rule.at_most is not None and uses[index] >= rule.at_most:
            continue
        groups = _match(rule.when, memory, instructions)
        if groups is None or not _is_allowed(rule, request):
            continue
        values = {**dict.fromkeys(NAMES, ""), **_values(memory, instructions), **groups}
        uses[index] += 1
        return _answer(rule, index, values, request, script.pace)
    raise ScriptError(
        f"no reply of the script fits {memory.last_user!r} with tool_choice "
        f"{request.tool_choice!r}: add one without 'when' at its end"
    )


def _match(when: When, memory: Memory, instructions: str) -> Mapping[str, str] | None:
    """Return the named groups of the patterns; None if something given does not hold."""
    returned = memory.returned
    # What is given must hold, all of it; a pattern that is not found is a None in the list. What is
    # not given adds nothing to it.
    found: list[re.Match[str] | None] = []
    if when.user is not None:
        # Once a function has returned something, that is what is answered.
        found.append(None if returned else when.user.search(memory.last_user))
    if when.output is not None:
        found.append(when.output.search(_outputs(memory)) if returned else None)
    if when.history is not None:
        found.append(when.history.search(memory.history))
    if when.instructions is not None:
        found.append(when.instructions.search(instructions))
    if when.image is not None:
        found.append(when.image.search(_images(memory)))
    if when.function is not None and when.function not in {item.name for item in returned}:
        return None
    if when.turn is not None and when.turn != memory.num_turns:
        return None
    groups: dict[str, str] = {}
    for match in found:
        if match is None:
            return None
        groups |= match.groupdict(default="")
    return groups


def _is_allowed(rule: Rule, request: Respond) -> bool:
    """Tell whether a reply makes the calls it must, and only such as it can."""
    # A reply without a call cannot serve a response that demands one. A reply with calls can only
    # call what the response offers.
    if not rule.call:
        return request.tool_choice != "required"
    offered = {tool.name for tool in request.tools}
    return request.tool_choice != "none" and all(call.name in offered for call in rule.call)


def _values(memory: Memory, instructions: str) -> dict[str, str]:
    return {
        "last_user": memory.last_user,
        "last_reply": memory.last_reply,
        "history": memory.history,
        "output": _outputs(memory),
        "instructions": instructions,
        "turn": str(memory.num_turns),
        "images": _images(memory),
        **_image(memory.last_image),
    }


def _images(memory: Memory) -> str:
    return "; ".join(map(str, memory.images))


def _image(seen: Seen | None) -> dict[str, str]:
    """Say what there is to say about the last picture, nothing if there was none."""
    if seen is None:
        return {}
    return {
        "image.width": str(seen.width),
        "image.height": str(seen.height),
        "image.colour": seen.colour,
        "image.rgb": seen.hexadecimal,
    }


def _outputs(memory: Memory) -> str:
    return "; ".join(item.output for item in memory.returned)


def _answer(
    rule: Rule, index: int, values: Mapping[str, str], request: Respond, pace: Pace
) -> Answer:
    tools = {tool.name: tool for tool in request.tools}
    checks = tuple(
        Check(
            f"reply[{index}].call[{number}]",
            call.name,
            tools[call.name].parameters,
            _arguments(call, values),
        )
        for number, call in enumerate(rule.call)
    )
    calls = tuple((check.function, check.arguments) for check in checks)
    words = tuple(str(filled(rule.say, values)).split())
    return Answer(index, words, calls, rule.fail, rule.lose_session, rule.pace.of(pace), checks)


def _arguments(call: ScriptedCall, values: Mapping[str, str]) -> str:
    return json.dumps(filled(call.arguments, values), ensure_ascii=False, separators=(",", ":"))
