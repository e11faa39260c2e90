"""Let a text model answer what the served model cannot, or what it is not to.

What the text model says comes out as if an engine had made it: through `Running.output`, or, where
the served model can say any words, recited by the engine. So all rules for replies hold for these
as well: calls, approvals, interruptions, truncations.
"""

from collections.abc import Iterable
from dataclasses import replace

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    Cancel,
    DoneReason,
    Recite,
    ResponseEnd,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    Truncate,
    Usage,
)
from model.messages import ResponseDone as EngineResponseDone
from server.protocol.delegate.chat import chat_messages
from server.protocol.delegate.outcomes import (
    AnswerCall,
    AnswerDone,
    AnswerFailed,
    AnswerRefused,
    AnswerText,
    AskModel,
    DelegateOutcome,
    DropAsk,
)
from server.protocol.delegate.policy import DelegatePolicy
from server.protocol.events import Reaction
from server.protocol.filters.verdicts import Blocked, ResponseOutput
from server.protocol.items.items import Item, Message
from server.protocol.memory.feed import TurnFeed
from server.protocol.reply.beginning import Beginning
from server.protocol.reply.delegated import Delegated
from server.protocol.reply.reply import Reply
from server.protocol.reply.running import Running
from server.protocol.settings.request import ResponseRequest
from server.protocol.state import SessionState

# A worked example. The session wants speech, the served model recites, and it says that it cannot:
#
#     from the engine            ResponseText "sorry", " i", " do", ... " that"   held, nobody knows
#     to the text model          AskModel
#     from the engine            ResponseAudio ...                                held as well
#     from the text model        AnswerText "It is"
#     to the engine              Cancel turn 3, Truncate to nothing, Respond turn 4 (recites),
#                                Recite "It is"
#     from the engine            ResponseText "It", " is", ResponseAudio ...      to the client
#
# Where the served model says its own words only, as the starter does, it says aloud that it does
# not know, and the answer follows in a message of text. Whatever goes wrong before the answer
# begins, what the served model has said stands, or it is asked after all.


class Delegation:
    """Hold what a session's responses have to do with the text model.

    Args:
        state: of the session.
        beginning: makes replies.
        running: those in progress.
        feed: leads to the engine's memory of the conversation.
    """

    def __init__(
        self, state: SessionState, beginning: Beginning, running: Running, feed: TurnFeed
    ) -> None:
        self._state = state
        self._beginning = beginning
        self._running = running
        self._feed = feed

    # Who answers.

    def is_asked_first(self, request: ResponseRequest) -> bool:
        """Say whether the text model answers a request without the served model being asked."""
        return self._answers(request) == "always"

    def watch(self, reply: Reply) -> None:
        """Look out for the words by which the served model says that it cannot answer."""
        if self._answers(reply.response.request) == "unable":
            reply.delegated = Delegated(is_watched=True)

    def _answers(self, request: ResponseRequest) -> str:
        policy = self._state.delegate
        return "never" if policy is None else request.delegate or policy.answers

    @property
    def _policy(self) -> DelegatePolicy:
        assert self._state.delegate is not None, "there is a text model"
        return self._state.delegate

    def begin(self, reply: Reply) -> list[Reaction]:
        """Let the text model answer, once all that the user said is known in words."""
        reply.delegated = Delegated(is_waiting=True)
        return self.due()

    @property
    def waiting(self) -> list[Reply]:
        """Return the responses of which the text model has not been asked yet."""
        return [
            reply
            for reply in self._running.all
            if reply.delegated is not None and reply.delegated.is_waiting
        ]

    def due(self) -> list[Reaction]:
        """Ask what can be asked now."""
        if self._state.delegate is None or self._feed.awaits_any:
            return []
        reactions: list[Reaction] = []
        for reply in self.waiting:
            assert reply.delegated is not None, "it waits for the text model"
            reply.delegated.is_waiting = False
            reactions += self._ask(reply, reply.delegated)
        return reactions

    def _ask(self, reply: Reply, delegated: Delegated) -> list[Reaction]:
        request, policy = reply.response.request, self._policy
        own = self._state.instructions
        instructions = own if request.instructions is None else request.instructions
        items = self._state.conversation.retold if request.input is None else request.input
        messages = chat_messages((policy.instructions, instructions), items, policy.max_chars)
        limits = [policy.max_tokens, request.max_output_tokens or policy.max_tokens]
        delegated.ask_id = self._state.ids.new("ask")
        box = reply.toolbox
        return [AskModel(delegated.ask_id, messages, box.tools, box.choice, min(limits))]

    def told_again(self, reply: Reply) -> list[Reaction] | None:
        """Return what tells a new engine of a delegated reply; None for any other reply."""
        delegated = reply.delegated
        if delegated is None:
            return None
        if delegated.is_watched:
            reply.delegated = Delegated(is_watched=True)
            return None
        return self._recital(reply, delegated, delegated.recited) if delegated.is_recited else []

    # What the engine makes.

    def take(self, output: ResponseOutput, now_s: float) -> list[Reaction] | None:
        """Take an output of the engine; None if it goes the usual way of a reply."""
        reply = self._running.made_by(output)
        if reply is None or reply.delegated is None:
            return None
        delegated = reply.delegated
        if delegated.is_recited and isinstance(output, EngineResponseDone):
            return self._finished(reply, delegated, output.reason, now_s, output.usage)
        if not delegated.is_watched or isinstance(output, ResponseStarted):
            return None
        return self._watched(reply, delegated, output, now_s)

    def _watched(
        self, reply: Reply, delegated: Delegated, output: ResponseOutput, now_s: float
    ) -> list[Reaction] | None:
        if delegated.ask_id is not None or delegated.done is not None:
            return self._meanwhile(reply, delegated, output, now_s)
        if not isinstance(output, ResponseText):
            # It speaks, or calls something: that is an answer.
            held = self._released(reply, delegated, now_s)
            return [*held, *self._running.output(output, now_s)]
        delegated.said += output.text
        delegated.held.append(output)
        match self._policy.standing(delegated.said):
            case "open":
                return []
            case "able":
                return self._released(reply, delegated, now_s)
            case "unable":
                asked = self._ask(reply, delegated)
                return [*asked, *self._said_aloud(reply, delegated, now_s)]

    def _said_aloud(self, reply: Reply, delegated: Delegated, now_s: float) -> list[Reaction]:
        """Pass the engine's own words on, where the answer can only be shown."""
        if not self._is_shown(reply):
            return []
        held, delegated.held = delegated.held, []
        return self._passed_on(held, now_s)

    def _is_shown(self, reply: Reply) -> bool:
        """Say whether a spoken reply's answer comes in text, since the engine cannot say it."""
        return reply.response.request.modality == "audio" and not self._state.info.recites

    def _meanwhile(
        self, reply: Reply, delegated: Delegated, output: ResponseOutput, now_s: float
    ) -> list[Reaction] | None:
        """Take what the engine makes of its own words while the text model thinks."""
        if not self._is_shown(reply):
            delegated.held.append(output)
            return []
        if not isinstance(output, ResponseEnd):
            return None
        delegated.own_end = output
        return self._go_on(reply, delegated, now_s)

    def _released(self, reply: Reply, delegated: Delegated, now_s: float) -> list[Reaction]:
        """Let the engine's own words be the reply."""
        reply.delegated = None
        held = [*delegated.held, *([delegated.own_end] if delegated.own_end is not None else [])]
        return self._passed_on(held, now_s)

    def _passed_on(self, held: Iterable[ResponseOutput], now_s: float) -> list[Reaction]:
        return [reaction for output in held for reaction in self._running.output(output, now_s)]

    # What the text model says.

    def outcome(self, outcome: DelegateOutcome, now_s: float) -> list[Reaction]:
        """Take what came of a question; nothing follows if its response is over."""
        reply = self.answered_by(outcome)
        if reply is None or reply.delegated is None:
            return []
        return self._answered(reply, reply.delegated, outcome, now_s)

    def answered_by(self, outcome: DelegateOutcome) -> Reply | None:
        """Return the response that a question is about; None if it is over."""
        for reply in self._running.all:
            if reply.delegated is not None and reply.delegated.ask_id == outcome.ask_id:
                return reply
        return None

    def _answered(
        self, reply: Reply, delegated: Delegated, outcome: DelegateOutcome, now_s: float
    ) -> list[Reaction]:
        match outcome:
            case AnswerText():
                delegated.text += outcome.text
            case AnswerCall():
                delegated.calls.append(outcome)
            case AnswerDone():
                delegated.ask_id, delegated.done = None, outcome
            case AnswerFailed():
                delegated.ask_id = None
                return self._failed(reply, delegated, outcome.message, now_s)
            case AnswerRefused():
                blocked = Blocked(reply.engine_id, reply.turn)
                return self._running.output(blocked, now_s)
        return self._go_on(reply, delegated, now_s)

    def _go_on(self, reply: Reply, delegated: Delegated, now_s: float) -> list[Reaction]:
        """Pass on what there is of the answer."""
        is_talking = delegated.is_watched and delegated.own_end is None and self._is_shown(reply)
        if is_talking:
            return []  # the served model first finishes its own words
        reactions: list[Reaction] = []
        if not delegated.has_begun:
            # Only white space is no word yet, and an answer of nothing else is none.
            if not delegated.text.strip() and not (delegated.done and delegated.calls):
                is_empty = delegated.done is not None
                return self._instead(reply, delegated, now_s) if is_empty else []
            reactions += self._taken_over(reply, delegated)
        text, delegated.text = delegated.text, ""
        if delegated.is_recited:
            is_last = delegated.done is not None
            if text or is_last:
                delegated.recited += text
                reactions.append(Recite(reply.engine_id, reply.turn, text, is_last))
            return reactions
        if text:
            said = ResponseText(reply.engine_id, reply.turn, text)
            reactions += self._running.output(said, now_s)
        if delegated.done is None:
            return reactions
        reason: DoneReason = "max_output_tokens" if delegated.done.is_cut else "completed"
        return [*reactions, *self._finished(reply, delegated, reason, now_s)]

    def _taken_over(self, reply: Reply, delegated: Delegated) -> list[Reaction]:
        """Let the answer take the place of what the engine makes, or follow it."""
        reactions: list[Reaction] = []
        delegated.has_begun = True
        if delegated.is_watched and delegated.own_end is None:
            # Nobody has been told of these words: they were never said.
            delegated.held.clear()
            reactions += self._unsaid(reply)
        delegated.is_watched = False
        if reply.response.request.modality == "text" or self._is_shown(reply):
            return [*reactions, *self._beginning.go_on(reply, "text")]
        reactions += self._beginning.go_on(reply, "audio")
        # Calls alone need no voice.
        delegated.is_recited = bool(delegated.text.strip())
        return [*reactions, *(self._recital(reply, delegated) if delegated.is_recited else [])]

    def _unsaid(self, reply: Reply) -> list[Reaction]:
        item_id = reply.message.item_id
        if reply.engine_id == self._state.session_id:
            return [*self._feed.cancel(reply.turn), *self._feed.unsay(item_id, 0)]
        return [Cancel(reply.engine_id, reply.turn), Truncate(reply.engine_id, item_id, 0)]

    def _recital(self, reply: Reply, delegated: Delegated, recited: str = "") -> list[Reaction]:
        """Return what makes the engine recite an answer."""
        command = self._beginning.recital(reply)
        words: list[Reaction] = []
        if recited:
            is_last = delegated.done is not None
            words.append(Recite(reply.engine_id, reply.turn, recited, is_last))
        if reply.engine_id == self._state.session_id:
            return [*self._feed.respond(command), *words]
        if reply.is_open_aside:
            return [command, *words]
        return [*self._beginning.with_own_memory(reply, command), *words]

    # Ends.

    def _failed(
        self, reply: Reply, delegated: Delegated, message: str, now_s: float
    ) -> list[Reaction]:
        if not delegated.has_begun:
            return self._instead(reply, delegated, now_s)
        failed = ResponseFailed(reply.engine_id, reply.turn, message)
        cancelled: list[Reaction] = []
        if delegated.is_recited and reply.engine_id == self._state.session_id:
            cancelled = [*self._feed.cancel(reply.turn)]
        return [*cancelled, *self._running.output(failed, now_s)]

    def _instead(self, reply: Reply, delegated: Delegated, now_s: float) -> list[Reaction]:
        """Let the served model answer, since the text model does not."""
        if delegated.is_watched:
            if self._is_shown(reply) and delegated.own_end is None:
                reply.delegated = None  # it is saying so
                return []
            return self._released(reply, delegated, now_s)
        reply.delegated = None
        if reply.response.request.is_aside:
            return [*self._beginning.with_own_memory(reply)]
        return [*self._feed.respond(self._beginning.respond(reply))]

    def _finished(
        self,
        reply: Reply,
        delegated: Delegated,
        reason: DoneReason,
        now_s: float,
        spoken: Usage | None = None,
    ) -> list[Reaction]:
        """Make the answer's calls, let the engine know of all of it, and end the response.

        Args:
            reply: that ends.
            delegated: the answer.
            reason: of the end.
            now_s: as of `take`.
            spoken: what it cost the engine to recite it.
        """
        reactions: list[Reaction] = []
        if delegated.ask_id is not None:
            # The response has had its number of tokens, and the text model more to say.
            reactions.append(DropAsk(delegated.ask_id))
            delegated.ask_id = None
        if delegated.done is not None and delegated.done.is_cut and reason == "completed":
            reason = "max_output_tokens"
        place = reply.engine_id, reply.turn
        if reason == "completed":
            for number, call in enumerate(delegated.calls):
                made = CallStarted(*place, number, call.name)
                reactions += self._running.output(made, now_s)
                given = CallArguments(*place, number, call.arguments)
                reactions += self._running.output(given, now_s)
                reactions += self._running.output(CallDone(*place, number), now_s)
        reactions += self._told(reply, delegated)
        own = delegated.own_end
        made_by_itself = own.usage if isinstance(own, EngineResponseDone) else reply.based_on
        usage = _usage(spoken or made_by_itself, delegated.done)
        done = EngineResponseDone(*place, reason, usage)
        return [*reactions, *self._running.output(done, now_s)]

    def _told(self, reply: Reply, delegated: Delegated) -> list[Reaction]:
        """Tell the engine what it has not made itself."""
        delegated.is_told = True
        made = [*reply.items]
        if reply.engine_id != self._state.session_id or not made:
            return []
        if not self._ends_with(made):
            self._feed.outdate()
            return []
        known = {reply.voiced.item_id} if reply.voiced is not None else set()
        if delegated.is_recited:
            known.add(reply.message.item_id)
        told: list[Reaction] = []
        for item in made:
            if item.id not in known:
                told += self._feed.add(self._whole(reply, item))
        return told

    def _ends_with(self, made: list[Item]) -> bool:
        """Say whether the conversation ends with what a reply has made, and nothing between."""
        order = [item.id for item in self._state.conversation]
        return order[-len(made) :] == [item.id for item in made]

    def _whole(self, reply: Reply, item: Item) -> Item:
        """Return an item as it will be when its response is done."""
        if not isinstance(item, Message) or not reply.is_making(item.id):
            return item
        return replace(item, status="completed", content=(reply.message.part,))


def _usage(spoken: Usage, done: AnswerDone | None) -> Usage:
    """Add what the text model has read and written to what the engine has."""
    if done is None:
        return spoken
    return replace(
        spoken,
        input_text_tokens=spoken.input_text_tokens + done.input_tokens,
        input_cached_text_tokens=spoken.input_cached_text_tokens + done.cached_tokens,
        output_text_tokens=spoken.output_text_tokens + done.output_tokens,
    )
