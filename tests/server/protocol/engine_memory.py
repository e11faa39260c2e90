"""Remember a conversation as an engine does, from the commands and its own outputs."""

from dataclasses import dataclass, field
from typing import Any

Line = dict[str, Any]


@dataclass
class _Remembered:
    item_id: str
    words: list[str] = field(default_factory=list)  # or what was called and returned
    starts_ms: list[int] = field(default_factory=list)  # of the words that were spoken


class EngineMemory:
    """Follow one session of the engine."""

    def __init__(self) -> None:
        self._items: list[_Remembered] = []
        self._replies: dict[int, _Remembered] = {}

    @property
    def words(self) -> list[str]:
        """Return what is remembered of each item, in no order that means anything."""
        said = (" ".join(item.words) for item in self._items)
        return sorted(text for text in said if text)

    def told(self, command: Line) -> None:
        """Take a command."""
        item_id = command.get("item_id", "")
        match command["type"]:
            case "Open":
                self._items.clear()
                self._replies.clear()
            case "AppendText":
                self._items.append(_Remembered(item_id, command["text"].split()))
            case "AppendCall":
                called = f"{command['name']}({command['arguments']})"
                self._items.append(_Remembered(item_id, [called]))
            case "AppendCallOutput":
                self._items.append(_Remembered(item_id, [command["name"], command["output"]]))
            case "CommitAudio":
                self._items.append(_Remembered(item_id))
            case "Reopen":
                place = [item.item_id for item in self._items].index(item_id)
                del self._items[place:]
            case "Respond":
                self._replies[command["turn"]] = _Remembered(item_id)
                self._items.append(self._replies[command["turn"]])
            case "Truncate":
                self._truncate(item_id, command["heard_ms"])
            case _:
                pass

    def made(self, output: Line) -> None:
        """Take an output of the engine's own."""
        if output["type"] == "InputTranscript":
            for item in self._items:
                if item.item_id == output["item_id"]:
                    item.words = output["text"].split()
            return
        reply = self._replies.get(output.get("turn", -1))
        if reply is None:
            return
        match output["type"]:
            case "ResponseText":
                reply.words += output["text"].split()
            case "ResponseWord":
                reply.starts_ms.append(output["start_ms"])
            case "CallStarted":
                call = _Remembered("a call", [f"{output['name']}("])
                self._items.append(call)
                self._replies[output["turn"]] = call
            case "CallArguments":
                reply.words[-1] += output["text"]
            case "CallDone":
                is_empty = reply.words[-1].endswith("(")
                reply.words[-1] += "{})" if is_empty else ")"
            case _:
                pass

    def _truncate(self, item_id: str, heard_ms: int) -> None:
        for item in self._items:
            if item.item_id == item_id:
                heard = sum(start_ms < heard_ms for start_ms in item.starts_ms)
                item.words = item.words[:heard]
