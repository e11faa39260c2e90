"""Choose what to answer: the script's first reply that fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from model.errors import ScriptError
from model.messages import Respond, Tool
from model.scripted.memory import Memory
from model.scripted.script import Pace, Rule, Script, ScriptedCall, When
from model.scripted.sight import Seen
from model.scripted.template import NAMES, filled


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response consists of.

    Attributes:
        words: to say or to write.
        calls: name and arguments of functions to call after that, arguments as compact JSON.
        fail: message with which the response fails at its end, None to complete it.
        lose_session: message with which the session is lost at its end, None to keep it.
        pace: how fast it is made.
    """

    words: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]
    fail: str | None
    lose_session: str | None
    pace: Pace


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
        ScriptError: no reply fits, or its calls are not what their functions take.
    """
    for index, rule in enumerate(script.reply):
        if rule.at_most is not None and uses[index] >= rule.at_most:
            continue
        groups = _match(rule.when, memory, instructions)
        if groups is None or not _is_allowed(rule, request):
            continue
        values = {**dict.fromkeys(NAMES, ""), **_values(memory, instructions), **groups}
        answer = _answer(rule, f"reply[{index}]", values, request, script.pace)
        uses[index] += 1
        return answer
    raise ScriptError(
        f"no reply of the script fits {memory.last_user!r} with tool_choice "
        f"{request.tool_choice!r}: add one without 'when' at its end"
    )


def _match(when: When, memory: Memory, instructions: str) -> Mapping[str, str] | None:
    """Return the named groups of the patterns; None if something given does not hold."""
    returned = memory.returned
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
    rule: Rule, place: str, values: Mapping[str, str], request: Respond, pace: Pace
) -> Answer:
    tools = {tool.name: tool for tool in request.tools}
    calls = tuple(
        (call.name, _arguments(call, f"{place}.call[{index}]", values, tools[call.name]))
        for index, call in enumerate(rule.call)
    )
    words = tuple(str(filled(rule.say, values)).split())
    return Answer(words, calls, rule.fail, rule.lose_session, rule.pace.of(pace))


def _arguments(call: ScriptedCall, place: str, values: Mapping[str, str], tool: Tool) -> str:
    """Write the arguments of a call, which the function must take.

    Raises:
        ScriptError: it does not take them.
    """
    arguments: Any = filled(call.arguments, values)  # Any: whatever JSON can hold
    validator = Draft202012Validator(json.loads(tool.parameters))
    error = best_match(validator.iter_errors(arguments))
    if error is not None:
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        raise ScriptError(
            f"{place}: the function {tool.name!r} does not take arguments{where}: {error.message}"
        )
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
