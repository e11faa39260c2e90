"""Put together one of the two ways of conversing: in turns, or all the time.

What differs between them is what the engine is told (`Feed`), when responses begin (`Responses`)
and what becomes of the user's turns (`Turns`). The rest is made for both, and knows only these.
"""

from dataclasses import dataclass

from server.protocol.calls.calls import Calls
from server.protocol.duplex import DuplexFeed, DuplexResponses, DuplexTurns
from server.protocol.memory.context import Context
from server.protocol.memory.feed import Feed, TurnFeed
from server.protocol.memory.turn_check import TurnCheck
from server.protocol.reply.beginning import Beginning
from server.protocol.reply.delegation import Delegation
from server.protocol.reply.playout import Playout
from server.protocol.reply.responses import Responses, TurnResponses
from server.protocol.reply.running import Running
from server.protocol.reply.shortening import Shortening
from server.protocol.state import SessionState
from server.protocol.user.doubt import Doubt
from server.protocol.user.listening import Listening
from server.protocol.user.turns import AnsweredTurns, Turns

# How the same moment goes either way, when a user falls silent:
#
#     in turns     the turn becomes an item and is committed; a response is asked for (`Respond`)
#     at once      the turn becomes an item; the model has heard the silence itself, and its next
#                  sound is announced as a response that was asked for ahead of time


@dataclass(frozen=True, slots=True)
class Way:
    """How a session converses.

    Attributes:
        feed: tells the engine of the conversation.
        calls: follows function calls.
        shortening: cuts replies to what was heard.
        responses: begins replies, and ends them.
        turns: makes items of what the user says.
    """

    feed: Feed
    calls: Calls
    shortening: Shortening
    responses: Responses
    turns: Turns


def in_turns(
    state: SessionState,
    listening: Listening,
    turn_check: TurnCheck,
    doubt: Doubt,
    playout: Playout | None,
    *,
    max_kept_samples: int,
    sentence: str,
) -> Way:
    """Return the way of a model that answers when the user has finished.

    Args:
        state: of the session.
        listening: takes the user's sound in.
        turn_check: asks the engine whether a turn sounds finished.
        doubt: over a reply, whether speech is meant as an interruption.
        playout: of replies, where the transport plays them.
        max_kept_samples: of the user's sound that is kept to be told again.
        sentence: what is said in the place of what a check refused; empty for nothing.
    """
    feed = TurnFeed(state, max_kept_samples, turn_check, listening.hears_again)
    calls = Calls(state, feed)
    beginning, running = Beginning(state, calls, playout), Running(state, feed)
    shortening = Shortening(state, running, feed, playout)
    context = Context(state, feed)
    delegation = Delegation(state, beginning, running, feed)
    responses = TurnResponses(beginning, running, feed, context, delegation, sentence)
    turns = AnsweredTurns(state, listening, responses, feed, context, shortening, doubt)
    return Way(feed, calls, shortening, responses, turns)


def at_once(
    state: SessionState, listening: Listening, playout: Playout | None, *, max_kept_samples: int
) -> Way:
    """Return the way of a model that listens and speaks all the time; arguments as `in_turns`."""
    feed = DuplexFeed(state, max_kept_samples)
    calls = Calls(state, feed)
    beginning, running = Beginning(state, calls, playout), Running(state, feed)
    shortening = Shortening(state, running, feed, playout)
    responses = DuplexResponses(state, beginning, running, feed)
    return Way(feed, calls, shortening, responses, DuplexTurns(state, listening, feed))
