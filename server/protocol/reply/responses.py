"""Begin the responses of a session, and say what follows them.

`Running` holds those in progress. When they begin depends on the engine. One that takes turns is
asked for each response, and one more may have to follow. A duplex one speaks when it likes; see
`server.protocol.duplex`.
"""

from dataclasses import replace
from typing import Protocol

from model.messages import Recite, Respond, ResponseStarted
from server.protocol.delegate.outcomes import AnswerRefused, DelegateOutcome
from server.protocol.events import Reaction
from server.protocol.filters.verdicts import Blocked, ResponseOutput
from server.protocol.memory.context import Context
from server.protocol.memory.feed import TurnFeed
from server.protocol.reply.beginning import Beginning
from server.protocol.reply.delegation import Delegation
from server.protocol.reply.reply import Reply
from server.protocol.reply.running import CancelReason, Running
from server.protocol.settings.request import ResponseRequest
from server.protocol.wire.client_events import ResponseCancel

# Each takes one of the engine's slots, which all sessions share.
_MAX_ASIDES = 4


class Responses(Protocol):
    """Begin, carry and end responses.

    Attributes:
        running: those in progress.
    """

    running: Running

    def standing(self) -> list[Reaction]:
        """Ask for what a model says by itself."""
        ...

    def reconfigured(self) -> list[Reaction]:
        """Follow a change of the session's configuration."""
        ...

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Begin a response that the client asked for.

        Raises:
            ClientError: it cannot be made, now or at all.
        """
        ...

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the engine made of a response, and what follows if it ended."""
        ...

    def cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        """End the response that the client names, or the conversation's if it names none.

        Raises:
            ClientError: it is not in progress.
        """
        ...

    def cut(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the conversation's response now; what the engine still sends of it is stale."""
        ...

    def failed(self, code: str, message: str, now_s: float) -> list[Reaction]:
        """End all responses, because the session cannot go on."""
        ...

    def answered(self, outcome: DelegateOutcome, now_s: float, /) -> list[Reaction]:
        """Pass on what a text model made of a response, and what follows if it ended."""
        ...

    def due(self) -> list[Reaction]:
        """Ask the text model what can be asked now."""
        ...

    def words_refused(self, now_s: float, /) -> list[Reaction]:
        """End what waits for words of the user that are refused, and what follows."""
        ...

    def resumed(self) -> list[Reaction]:
        """Begin what follows a response of the conversation."""
        ...

    def told_again(self) -> list[Reaction]:
        """Start the responses that began while there was no engine to make them.

        Where none is in progress in the conversation, what follows the last one.
        """
        ...


# A worked example of a response that is owed. `interrupt_response` is off; a response is in
# progress, and the user says something. At the end of that turn another response is due, and only
# one may be in progress in the conversation: it is owed, and begins when the first is done. A
# second such turn meanwhile changes nothing: one response answers both, since it sees the whole
# conversation.
#
# Source: Realtime API reference, client events, response.create:
# conversation_already_has_active_response.


class TurnResponses:
    """Answer turns, one after another.

    Args:
        beginning: makes replies.
        running: those in progress.
        feed: leads to the engine's memory of the conversation.
        context: keeps that memory within its bounds.
        delegation: lets a text model answer.
        sentence: what is said in the place of what a check has refused; empty for nothing.
    """

    def __init__(
        self,
        beginning: Beginning,
        running: Running,
        feed: TurnFeed,
        context: Context,
        delegation: Delegation,
        sentence: str = "",
    ) -> None:
        self._context = context
        self._beginning = beginning
        self.running = running
        self._feed = feed
        self._delegation = delegation
        self._sentence = sentence
        # A turn ended while a response was running that speech may not interrupt.
        self._owed: ResponseRequest | None = None

    def standing(self) -> list[Reaction]:
        """Ask for nothing: a model that answers in turns says nothing by itself."""
        return []

    def reconfigured(self) -> list[Reaction]:
        """Do nothing: the change begins with the next response."""
        return []

    def create(self, request: ResponseRequest) -> list[Reaction]:
        """Begin a response that the client asked for.

        Raises:
            ClientError: it is for the conversation, and one is in progress there.
        """
        is_default = request.destination == "auto"
        announced: list[Reaction] = []
        if is_default:
            self.running.refuse_second()
        if request.input is None:
            announced += self._context.make_room()
        else:
            request = replace(request, input=self._context.fitting(request.input))
        reply = self._beginning.reply(request)
        if request.is_aside:
            self.running.asides[reply.engine_id] = reply
        if is_default:
            announced += self.running.begin(reply)
            # A reply that was begun before its time does not come true any more.
            announced += self._feed.withdraw()
        else:
            announced += reply.announced()
        if self._context.is_refused(request.input):
            return [*announced, *self.running.too_long(reply)]
        if request.is_aside and len(self.running.asides) > _MAX_ASIDES:
            return [*announced, *self.running.refused(reply.engine_id)]
        if self._delegation.is_asked_first(request):
            return [*announced, *self._delegation.begin(reply)]
        self._delegation.watch(reply)
        if request.is_aside:
            return [*announced, *self._beginning.with_own_memory(reply)]
        return [*announced, *self._feed.respond(self._beginning.respond(reply))]

    def can_prepare(self, request: ResponseRequest) -> bool:
        """Say whether a response can be made before anybody is told of it."""
        return not self.running.is_active and not self._delegation.is_asked_first(request)

    def prepare(self, request: ResponseRequest) -> tuple[Reply, Respond]:
        """Make a response of the conversation that clients do not know of yet, and its command."""
        assert not self.running.is_active, "the next response follows the one in progress"
        reply = self._beginning.reply(request)
        self._delegation.watch(reply)
        return reply, self._beginning.respond(reply)

    def answer(self, request: ResponseRequest) -> list[Reaction]:
        """Answer a turn; while a response runs that may not be interrupted, afterwards."""
        if self.running.is_active:
            self._owed = request
            return []
        return self.create(request)

    def output(self, output: ResponseOutput, now_s: float) -> list[Reaction]:
        """Pass on what the engine made of a response; what is owed follows its end."""
        was_active = self.running.is_active
        blocked = self.running.made_by(output) if isinstance(output, Blocked) else None
        taken = self._delegation.take(output, now_s)
        reactions = self.running.output(output, now_s) if taken is None else taken
        if isinstance(output, ResponseStarted) and self.running.is_default(output):
            self._context.measured(output.usage.input_tokens - output.prefix_tokens)
        return self._followed(reactions, blocked, was_active=was_active)

    def answered(self, outcome: DelegateOutcome, now_s: float) -> list[Reaction]:
        """Pass on what a text model made of a response; what is owed follows its end."""
        was_active = self.running.is_active
        is_refused = isinstance(outcome, AnswerRefused)
        blocked = self._delegation.answered_by(outcome) if is_refused else None
        reactions = self._delegation.outcome(outcome, now_s)
        return self._followed(reactions, blocked, was_active=was_active)

    def _followed(
        self, reactions: list[Reaction], blocked: Reply | None, *, was_active: bool
    ) -> list[Reaction]:
        """Begin what follows a response of the conversation, if one has ended."""
        if not was_active or self.running.is_active:
            return reactions
        if blocked is not None and self._sentence:
            return [*reactions, *self._excuse(blocked)]
        return [*reactions, *self.resumed()]

    def _excuse(self, blocked: Reply) -> list[Reaction]:
        """Let the model say the configured sentence; what is owed follows it."""
        request = replace(
            blocked.response.request,
            max_output_tokens=None,
            tools=(),
            tool_choice="none",
            input=None,
            metadata=None,
        )
        reply = self._beginning.reply(request)
        reply.recital = self._sentence
        return [*self.running.begin(reply), *self._recited(reply)]

    def _recited(self, reply: Reply) -> list[Reaction]:
        """Return what lets the engine say the words that a reply is given."""
        words = Recite(reply.engine_id, reply.turn, reply.recital, is_last=True)
        return [*self._feed.respond(self._beginning.recital(reply)), words]

    def due(self) -> list[Reaction]:
        """Ask the text model what can be asked now."""
        return self._delegation.due()

    def words_refused(self, now_s: float) -> list[Reaction]:
        """End what the text model was to answer, since a check has refused the user's words.

        What the served model answers is ended by the gate, through which it passes.
        """
        blocked = [Blocked(reply.engine_id, reply.turn) for reply in self._delegation.waiting]
        return [reaction for each in blocked for reaction in self.output(each, now_s)]

    def cancel(self, event: ResponseCancel, now_s: float) -> list[Reaction]:
        """End the response that the client names, or the conversation's if it names none.

        Raises:
            ClientError: it is not in progress.
        """
        return self._cut(self.running.named(event), "client_cancelled", now_s)

    def cut(self, reason: CancelReason, now_s: float) -> list[Reaction]:
        """End the conversation's response now; what the engine still sends of it is stale."""
        assert self.running.default is not None, "there is a response to cut"
        return self._cut(self.running.default, reason, now_s)

    def _cut(self, reply: Reply, reason: CancelReason, now_s: float) -> list[Reaction]:
        if reply is self.running.default:
            self._owed = None
        return self.running.cut(reply, reason, now_s)

    def failed(self, code: str, message: str, now_s: float) -> list[Reaction]:
        """End all responses, because the session cannot go on."""
        self._owed = None
        return self.running.failed(code, message, now_s)

    def resumed(self) -> list[Reaction]:
        """Begin the response that is owed, if one is."""
        owed, self._owed = self._owed, None
        return [] if owed is None else self.create(owed)

    def told_again(self) -> list[Reaction]:
        """Start the responses that began while there was no engine to make them.

        Where none is in progress in the conversation, the one that is owed.
        """
        commands: list[Reaction] = []
        for reply in self.running.all:
            again = self._delegation.told_again(reply)
            if again is not None:
                commands += again
            elif reply.recital:
                commands += self._recited(reply)
            elif reply.response.request.is_aside:
                commands += self._beginning.with_own_memory(reply)
            else:
                commands += self._feed.respond(self._beginning.respond(reply))
        return [*commands, *([] if self.running.is_active else self.resumed())]
