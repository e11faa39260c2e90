"""Play golden transcripts: what goes into the machine, and what must come out.

Those in `beta/` are in the beta dialect, those in `duplex/` with a model that listens and speaks
all the time. One JSON object a line. The first may be the session's `policy` of tools, which words
are checked by its `filters`, how many items it keeps (`max_items`), and what the text model answers
(`delegate`, with `recites` where the engine can say any words). Inputs: `client` (a frame as sent),
`heard` (by the session's ears), `engine` (an output), `no_slot` (a session that the engine cannot
open), `tool` (an outcome of an MCP server's), `answer` (of the text model), `verdict` (of a check),
`park` and `unpark` (a client that is away gives its slot back, and returns), `end` (of the
session's time), `clock_s` (sets the time, and lets happen what is due). Results: `server` (an event
on the wire), `command` (to the engine), with audio shown by its length, `asked` (of whoever speaks
to MCP servers or to the text model, or keeps the audit log) and `to_check` (words).

To write the results of all transcripts anew, and then review the difference:

    python -m tests.server.protocol.transcripts
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from model import messages
from model.messages import EngineInfo
from server.errors import ClientError
from server.protocol.delegate import outcomes as delegate_outcomes
from server.protocol.delegate.outcomes import AskModel, DelegateCommand, DelegateOutcome
from server.protocol.delegate.policy import DelegatePolicy, plain_phrases
from server.protocol.dialects.beta import BetaDialect
from server.protocol.dialects.ga import Dialect, GaDialect
from server.protocol.events import (
    Hangup,
    Heard,
    InputAudio,
    NoSlot,
    Reaction,
    SpeechBegan,
    SpeechEnded,
    SpeechPaused,
    SpeechResumed,
)
from server.protocol.filters.verdicts import CheckWords, FilterPlan, Verdict
from server.protocol.items.mcp import ListedTool, McpError
from server.protocol.machine import Limits, SessionMachine
from server.protocol.mcp import outcomes
from server.protocol.mcp.outcomes import ToolCommand, ToolOutcome
from server.protocol.mcp.policy import Rule, ToolPolicy
from server.protocol.server_events import ErrorEvent, ServerEvent
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.settings.mcp import McpTool
from server.protocol.user.hearing import Hearing
from server.protocol.wire.client_events import InputAudioBufferAppend
from server.protocol.wire.parse import decode, event_id_of, parse
from tests.server import oracle
from tests.server.fakes import CountingIds, PlainEars

GOLDEN = Path(__file__).parent / "golden"
Line = dict[str, Any]

_INPUTS = (
    *("client", "heard", "engine", "no_slot", "clock_s", "tool", "answer", "verdict"),
    *("park", "unpark", "end"),
)
_OF_SESSION = ("policy", "delegate", "filters", "max_items")  # in the first line
_RATE_HZ = 16_000
PHRASES = ("sorry i do not know that",)
VOICES = VoiceMap({"alloy": "amber", "echo": "birch"}, "alloy")


_LIMITS = Limits()


def new_machine(
    ears: Hearing | None = None,
    *,
    is_duplex: bool = False,
    limits: Limits = _LIMITS,
    recites: bool = False,
    **changes: Any,
) -> SessionMachine:
    """Make a machine with ids that count."""
    config = SessionConfig(
        id="sess_1", model="starter", voice="alloy", expires_at=2_000_000_000, **changes
    )
    info = EngineInfo("m", _RATE_HZ, 80, (), 1, is_duplex, recites=recites)
    return SessionMachine(config, info, VOICES, CountingIds(), limits, ears or PlainEars())


class Player:
    """Play inputs to a machine and write down what comes out."""

    def __init__(
        self,
        *,
        is_beta: bool = False,
        is_duplex: bool = False,
        policy: Line | None = None,
        delegate: Line | None = None,
        filters: Line | None = None,
        max_items: int = _LIMITS.max_items,
    ) -> None:
        given = {**(delegate or {})}
        recites = given.pop("recites", False)
        phrases = plain_phrases(given.pop("phrases", PHRASES))
        limits = Limits(
            max_items,
            policy=_policy(policy or {}),
            delegate=None if delegate is None else DelegatePolicy(phrases=phrases, **given),
            filters=FilterPlan(**(filters or {})),
        )
        self._ears = PlainEars()
        self.machine = new_machine(self._ears, is_duplex=is_duplex, limits=limits, recites=recites)
        self._is_beta = is_beta
        self._dialect: Dialect = BetaDialect() if is_beta else GaDialect()
        self._event_ids = CountingIds()
        self._now_s = 0.0

    def start(self) -> list[Line]:
        """Open the session."""
        return self._lines(self.machine.start())

    def play(self, line: Line) -> list[Line]:  # noqa: PLR0911 - a case each
        """Play one input line."""
        match line:
            case {"client": frame}:
                return self._lines(self.client(frame))
            case {"heard": heard}:
                return self._lines(self.machine.receive(_heard(heard), self._now_s))
            case {"engine": output}:
                return self._lines(self.machine.receive(_output(output), self._now_s))
            case {"tool": outcome}:
                return self._lines(self.machine.receive(_outcome(outcome), self._now_s))
            case {"verdict": verdict}:
                return self._lines(self.machine.receive(Verdict(**verdict), self._now_s))
            case {"answer": answer}:
                return self._lines(self.machine.receive(_answer(answer), self._now_s))
            case {"park": True}:
                self.machine.park()
                return []
            case {"unpark": True}:
                return self._lines(self.machine.unpark(self._now_s))
            case {"end": True}:
                return self.end()
            case {"no_slot": session_id}:
                return self._lines(self.machine.receive(NoSlot(session_id), self._now_s))
            case {"clock_s": now_s}:
                self._now_s = now_s
                return self._lines(self.machine.tick(now_s))
            case _:
                raise AssertionError(f"not an input: {line}")

    def end(self) -> list[Line]:
        """End the session as it ends when its time is over."""
        return self._lines(
            self.machine.end("session_expired", "Your session is over.", self._now_s)
        )

    def client(self, frame: Any) -> list[Reaction]:
        """Play a client's frame, as the session does."""
        raw: Line | None = None
        try:
            raw = decode(json.dumps(frame))
            event = parse(self._dialect.read(raw))
            if isinstance(event, InputAudioBufferAppend):
                self._ears.hear(event.audio)
                return self.machine.listen(self._now_s)
            return self.machine.receive(event, self._now_s)
        except ClientError as error:
            event_id = event_id_of(raw) if raw else None
            return [ErrorEvent(error.kind, error.code, error.message, error.param, event_id)]

    def _lines(self, reactions: list[Reaction]) -> list[Line]:
        lines: list[Line] = []
        for reaction in reactions:
            if isinstance(reaction, Hangup):
                lines.append({"hangup": reaction.reason, "text": reaction.text})
            elif isinstance(reaction, messages.Command):
                lines.append({"command": written_command(reaction)})
            elif isinstance(reaction, ToolCommand):
                lines.append({"asked": _written_tool(reaction)})
            elif isinstance(reaction, CheckWords):
                lines.append({"to_check": asdict(reaction)})
            elif isinstance(reaction, DelegateCommand):
                lines.append({"asked": _written_question(reaction)})
            else:
                event = self._dialect.write(
                    cast("ServerEvent", reaction), self._event_ids.new("event")
                )
                # What goes over the wire is what is checked, not the Python objects.
                if event is not None:
                    written = json.loads(json.dumps(event))
                    oracle.check(written, is_beta=self._is_beta)
                    lines.append({"server": _short(written)})
        return lines


def _heard(line: Line) -> Heard:
    match line:
        case {"audio_ms": audio_ms}:
            return InputAudio(np.zeros(audio_ms * _RATE_HZ // 1000, dtype=np.float32))
        case {"began_ms": start_ms}:
            return SpeechBegan(start_ms)
        case {"ended_ms": end_ms}:
            return SpeechEnded(end_ms)
        case {"paused": True}:
            return SpeechPaused()
        case {"resumed": True}:
            return SpeechResumed()
        case _:
            raise AssertionError(f"nothing to hear: {line}")


def _output(line: Line) -> messages.Output | messages.News:
    kind = getattr(messages, line["type"])
    is_news = kind in messages.News.__args__
    values = {**line} if is_news else {"session_id": "sess_1", **line}
    del values["type"]
    if "audio_ms" in values and kind is messages.ResponseAudio:
        num_samples = values.pop("audio_ms") * _RATE_HZ // 1000
        values["pcm"] = np.zeros(num_samples, dtype=np.float32)
    if "usage" in values:
        values["usage"] = messages.Usage(**values["usage"])
    output: messages.Output | messages.News = kind(**values)
    return output


def _policy(given: Line) -> ToolPolicy:
    rules = tuple(
        Rule(
            **{
                **rule,
                "arguments": {
                    path: re.compile(pattern) for path, pattern in rule.get("arguments", {}).items()
                },
            }
        )
        for rule in given.get("rules", ())
    )
    return ToolPolicy(**{**given, "rules": rules})


def _outcome(line: Line) -> ToolOutcome:
    values = {key: value for key, value in line.items() if key != "type"}
    if "error" in values:
        values["error"] = McpError(**values["error"])
    if "tools" in values:
        values["tools"] = tuple(ListedTool(**tool) for tool in values["tools"])
    outcome: ToolOutcome = getattr(outcomes, line["type"])(**values)
    return outcome


def _written_tool(command: ToolCommand) -> Line:
    written: Line = {"type": type(command).__name__}
    for each in fields(command):
        value = getattr(command, each.name)
        written[each.name] = value.label if isinstance(value, McpTool) else value
    return written


def _answer(line: Line) -> DelegateOutcome:
    values = {key: value for key, value in line.items() if key != "type"}
    outcome: DelegateOutcome = getattr(delegate_outcomes, line["type"])(**values)
    return outcome


def _written_question(command: DelegateCommand) -> Line:
    written: Line = {"type": type(command).__name__, **asdict(command)}
    if isinstance(command, AskModel):
        written["messages"] = [*command.messages]
        written["tools"] = [tool.name for tool in command.tools]
    return written


def written_command(command: messages.Command) -> Line:
    """Write a command down; what is not said of it is as by default."""
    written: Line = {"type": type(command).__name__}
    if command.session_id != "sess_1":
        written["session_id"] = command.session_id
    for each in fields(command):
        value = getattr(command, each.name)
        if each.name == "pcm":
            written["audio_ms"] = len(value) * 1000 / _RATE_HZ
        elif each.name == "tools":
            written |= {"tools": [tool.name for tool in value]} if value else {}
        elif each.name != "session_id" and value != each.default:
            written[each.name] = value
    return written


def _short(event: Line) -> Line:
    """Show audio by its length."""
    if event["type"] in ("response.output_audio.delta", "response.audio.delta"):
        return {**event, "delta": _length(event["delta"])}
    if event["type"] == "conversation.item.retrieved" and "content" in event["item"]:
        for part in event["item"]["content"]:
            if "audio" in part:
                part["audio"] = _length(part["audio"])
    return event


def _length(audio: str) -> str:
    num_bytes = len(base64.b64decode(audio, validate=True))
    # Of G.711 every byte is a sample, of PCM every other.
    return f"{num_bytes} bytes" if num_bytes % 2 else f"{num_bytes // 2} samples"


def paths() -> list[Path]:
    """List all transcripts."""
    return sorted(GOLDEN.rglob("*.jsonl"))


def read(path: Path) -> list[Line]:
    """Read a transcript."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def inputs(lines: list[Line]) -> Iterator[Line]:
    """Yield what is played."""
    return (line for line in lines if any(kind in line for kind in _INPUTS))


def played(path: Path) -> list[Line]:
    """Play the inputs of a transcript and return it with the results that come out now."""
    lines = read(path)
    folder = path.parent.name
    given = {key: value for key, value in lines[0].items() if key in _OF_SESSION}
    player = Player(is_beta=folder == "beta", is_duplex=folder == "duplex", **given)
    result = [*([given] if given else []), *player.start()]
    for line in inputs(lines):
        result += [line, *player.play(line)]
    return result


def main() -> None:
    """Write all transcripts anew."""
    for path in paths():
        lines = played(path)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.write_text(text)


if __name__ == "__main__":
    main()
