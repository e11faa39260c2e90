"""Define what a text model is asked, and what comes back.

As with MCP servers (`server.protocol.mcp.outcomes`): the protocol puts a `DelegateCommand` among
its reactions, and takes the outcome as an input, whenever it comes. A question that was dropped
meanwhile has no outcome, or one that is ignored.
"""

from dataclasses import dataclass
from typing import TypeAlias

from model.messages import Tool, ToolChoice
from server.protocol.wire.checks import JsonObject

# A worked example of an answer that calls a function first:
#
#     AskModel ask_1, [system, user "will it rain in oslo"], tools (get_weather)
#     AnswerText ask_1 "let me"    AnswerText ask_1 " look"
#     AnswerCall ask_1 get_weather {"city":"oslo"}
#     AnswerDone ask_1
#
# The client returns something and asks for a response, and the model is asked again:
#
#     AskModel ask_2, [system, user, assistant with the call, tool "rain"]


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the text model for an answer.

    Attributes:
        ask_id: names the question in what comes back.
        messages: of the conversation, as the Chat Completions API takes them.
        tools: that it may call.
        tool_choice: as in `Respond`.
        max_tokens: of the answer.
    """

    ask_id: str
    messages: tuple[JsonObject, ...]
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    max_tokens: int


@dataclass(frozen=True, slots=True)
class DropAsk:
    """Give up a question: nobody waits for its answer any more."""

    ask_id: str


DelegateCommand: TypeAlias = AskModel | DropAsk


@dataclass(frozen=True, slots=True)
class AnswerText:
    """Add words to an answer, spaces included."""

    ask_id: str
    text: str


@dataclass(frozen=True, slots=True)
class AnswerCall:
    """Call a tool of those that were offered; the arguments follow its schema.

    Attributes:
        name: of the tool, one of `AskModel.tools`.
        arguments: a JSON object as text.
    """

    ask_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """End an answer.

    Attributes:
        is_cut: whether it had more to say, and `max_tokens` were used up.
        input_tokens: that the text model has read, cached ones included.
        cached_tokens: those input tokens that it had in its cache.
        output_tokens: that it has written.
    """

    ask_id: str
    is_cut: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """End an answer that could not be had, or not as a whole.

    Attributes:
        message: why, for a person; nothing secret is in it.
    """

    ask_id: str
    message: str


@dataclass(frozen=True, slots=True)
class AnswerRefused:
    """End an answer that a check has refused; see `server.protocol.filters.answers`."""

    ask_id: str


DelegateOutcome: TypeAlias = AnswerText | AnswerCall | AnswerDone | AnswerFailed | AnswerRefused
