"""Run one response from its announcement to its end: a message, function calls, or both.

Every `added` that is sent gets its `done`, whatever way the response ends.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    ResponseAudio,
    ResponsePart,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    Usage,
)
from server.protocol.calls.calls import Calls
from server.protocol.events import Reaction
from server.protocol.items.items import Item, Status
from server.protocol.mcp.toolbox import Toolbox
from server.protocol.moves import ResponseMove, ResponseState, next_response_state
from server.protocol.reply.calling import Calling
from server.protocol.reply.delegated import Delegated
from server.protocol.reply.mcp_calling import McpCalling
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.speaking import Speaking
from server.protocol.response import Response, ResponseStatus
from server.protocol.server_events import (
    RateLimitsUpdated,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
)
from server.protocol.wire.checks import JsonObject


class Reply:
    """Hold a response in progress.

    Args:
        response: as announced, in progress.
        engine_id: under which the engine knows the memory that it answers from.
        turn: names the response to the engine.
        message: what it says or writes, if it does.
        outputs: what it has made.
        new_id: makes ids.
        toolbox: what it offers to the engine.
        calls: follow its calls when they go on after it; None out of band, where none does.

    Attributes:
        has_half_a_call: whether it ended within the arguments of a call.
        delegated: what a text model has to do with it; None for nothing.
        outputs: what it has made.
        is_open_aside: whether the engine was asked for a session of its own for it.
        voiced: the spoken message before the one in progress, which may still be played.
        recital: words that the engine is given to say, where they are not its own; empty else.
    """

    def __init__(
        self,
        response: Response,
        engine_id: str,
        turn: int,
        message: Speaking,
        outputs: OutputItems,
        new_id: Callable[[str], str],
        toolbox: Toolbox,
        calls: Calls | None,
    ) -> None:
        self.response = response
        self.engine_id = engine_id
        self.turn = turn
        self.message = message
        self.state = ResponseState.CREATED
        self.has_half_a_call = False
        self.delegated: Delegated | None = None
        self.voiced: Speaking | None = None
        self.is_open_aside = False
        self.recital = ""
        self.outputs = outputs
        self._new_id = new_id
        self.toolbox = toolbox
        self._calls = calls
        self._calling: Calling | McpCalling | None = None
        self._num_argument_texts = 0
        self._based_on = Usage()  # its input, once the engine has read it

    @property
    def has_called(self) -> bool:
        """Say whether it makes function calls."""
        return self.state in (ResponseState.CALLING, ResponseState.CALLED)

    def is_making(self, item_id: str) -> bool:
        """Say whether an item is open in it."""
        if isinstance(self._calling, Calling):
            return self._calling.item_id == item_id
        return self.message.is_open and self.message.item_id == item_id

    @property
    def items(self) -> tuple[Item, ...]:
        """Return what it has made, in order."""
        return self.outputs.items

    @property
    def based_on(self) -> Usage:
        """Return its input, as far as the engine has read it."""
        return self._based_on

    @property
    def is_the_engines(self) -> bool:
        """Say whether the engine is making it."""
        return self.delegated is None or self.delegated.is_at_engine

    def go_on(self, message: Speaking, turn: int) -> list[Reaction]:
        """Say what follows in another message.

        Args:
            message: that is not open yet.
            turn: what the engine makes from now on is named by; what it was asked before is stale.
        """
        closed = self.message.closed("completed", is_cut=False) if self.message.is_open else []
        if self.message.is_audio and self.message.audio_ms:
            self.voiced = self.message
        self.message, self.turn = message, turn
        return [*closed]

    def announced(self) -> list[ServerEvent]:
        """Say that the response exists."""
        return [ResponseCreated(self.response)]

    def take(self, made: ResponsePart, now_s: float) -> list[Reaction]:
        """Pass on what the engine has made."""
        match made:
            case ResponseStarted():
                self._based_on = made.usage
                return []
            case ResponseText():
                # Engines separate words by leading spaces; a message does not begin with one.
                text = made.text if self.message.has_text else made.text.lstrip()
                return [*self._speaking(), *self.message.text(text)] if text else []
            case ResponseAudio():
                if not self.message.is_audio:
                    return []
                return [*self._speaking(), *self.message.audio(made.pcm, now_s)]
            case ResponseWord():
                self.message.word(made.text, made.start_ms)
                return []
            case CallStarted():
                return self._call(made.name)
            case CallArguments():
                self._move(ResponseMove.ARGUMENTS)
                self._num_argument_texts += 1
                assert self._calling is not None
                return [*(self._calling.arguments(made.text) or ())]
            case CallDone():
                self._move(ResponseMove.CALL_DONE)
                return self._called("completed", now_s)
            case _:
                assert_never(made)

    def ended(
        self,
        move: ResponseMove,
        status: ResponseStatus,
        details: JsonObject | None = None,
        usage: Usage | None = None,
    ) -> list[Reaction]:
        """Close everything that is open, then the response.

        Args:
            move: what ended it.
            status: that it ends with.
            details: what the API tells beside it.
            usage: as the engine counted; None for its input and what was sent.
        """
        self._move(move)
        item_status: Status = "completed" if status == "completed" else "incomplete"
        events: list[Reaction] = []
        if self.message.is_open:
            is_cut = status in ("cancelled", "failed")
            events += self.message.closed(item_status, is_cut=is_cut)
        calling, self._calling = self._calling, None
        self.has_half_a_call = calling is not None and item_status == "incomplete"
        if isinstance(calling, Calling):
            # Of half a call of a server's tool nobody has been told.
            events += calling.closed(item_status)
        self.response = replace(
            self.response,
            status=status,
            status_details=details,
            output=self.outputs.items,
            usage=usage or self._usage_so_far(),
        )
        after = [] if self._calls is None else self._calls.response_done(self.response.id)
        return [*events, ResponseDone(self.response), RateLimitsUpdated(), *after]

    def _move(self, move: ResponseMove) -> None:
        self.state = next_response_state(self.state, move)

    def _speaking(self) -> list[ServerEvent]:
        """Open the message, once."""
        self._move(ResponseMove.OUTPUT)
        return [] if self.message.is_open else self.message.opened()

    def _call(self, name: str) -> list[Reaction]:
        """Open a function call; what is said before it is said completely."""
        self._move(ResponseMove.CALL)
        is_open = self.message.is_open
        said: list[Reaction] = []
        if is_open:
            said += self.message.closed("completed", is_cut=False)
        response_id, new_id, offered = self.response.id, self._new_id, self.toolbox.offered
        if name in offered:
            assert self._calls is not None, "out of band no server's tools are offered"
            ids = new_id("mcp"), new_id("mcpr")
            self._calling = McpCalling(response_id, *ids, offered[name], self.outputs, self._calls)
            return said
        self._calling = Calling(response_id, new_id("item"), new_id("call"), name, self.outputs)
        return [*said, *self._calling.opened()]

    def _called(self, status: Status, now_s: float) -> list[Reaction]:
        calling, self._calling = self._calling, None
        if isinstance(calling, McpCalling):
            return calling.made(now_s)
        assert calling is not None, "a call is being made"
        closed = calling.closed(status)
        waits = [] if self._calls is None else self._calls.wait(calling.item(status), now_s)
        return [*closed, *waits]

    def _usage_so_far(self) -> Usage:
        """Count what a response that the engine did not finish was based on, and what was sent."""
        return replace(
            self._based_on,
            output_text_tokens=self.message.num_texts + self._num_argument_texts,
            output_audio_tokens=self.message.num_frames,
        )
