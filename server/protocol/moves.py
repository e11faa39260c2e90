"""List the legal moves of the protocol, as tables one can read.

Two things in a session have states: a response in progress and the user's turn. Everything that
decides whether a move is legal is in this file. A move that is not in its table is either the
client's mistake, and then the refusal is listed beside it, or a bug of ours.
"""

from collections.abc import Callable
from enum import StrEnum

from server.errors import ClientError

# How to read the tables: (state now, what happens) -> next state. A spoken reply with a call:
#
#     NONE --CREATE--> CREATED --OUTPUT--> SPEAKING --OUTPUT--> SPEAKING --CALL--> CALLING
#          --ARGUMENTS--> CALLING --CALL_DONE--> CALLED --FINISH--> NONE
#
# Only one response is in progress at a time: CREATE in any state but NONE is the client's mistake,
# and its refusal is in `RESPONSE_REFUSALS`. A move that is in neither table, such as ARGUMENTS in
# SPEAKING, can only be our bug, and fails an assertion.
#
# Every response ends by CANCEL or FINISH, from wherever it is: that is why response.done always
# comes. Source: Realtime API reference, server events, response.done; client events,
# response.cancel.


class ResponseState(StrEnum):
    """Say how far a response is."""

    NONE = "none"  # no response in progress
    CREATED = "created"  # announced, nothing said yet
    SPEAKING = "speaking"  # its message is open, spoken or written
    CALLING = "calling"  # a function call is open; a message, if there was one, is closed
    CALLED = "called"  # a function call is closed, another may follow


class ResponseMove(StrEnum):
    """Say what can happen to it."""

    CREATE = "create"
    OUTPUT = "output"  # the engine's first and further words or audio
    CALL = "call"  # the engine begins a function call
    ARGUMENTS = "arguments"  # of the call, from the engine
    CALL_DONE = "call_done"  # the engine ends the call
    CANCEL = "cancel"  # by the client, or by the user's speech
    FINISH = "finish"  # by the engine, or by its failure


RESPONSE_MOVES: dict[tuple[ResponseState, ResponseMove], ResponseState] = {
    (ResponseState.NONE, ResponseMove.CREATE): ResponseState.CREATED,
    (ResponseState.CREATED, ResponseMove.OUTPUT): ResponseState.SPEAKING,
    (ResponseState.CREATED, ResponseMove.CALL): ResponseState.CALLING,
    (ResponseState.CREATED, ResponseMove.CANCEL): ResponseState.NONE,
    (ResponseState.CREATED, ResponseMove.FINISH): ResponseState.NONE,
    (ResponseState.SPEAKING, ResponseMove.OUTPUT): ResponseState.SPEAKING,
    (ResponseState.SPEAKING, ResponseMove.CALL): ResponseState.CALLING,
    (ResponseState.SPEAKING, ResponseMove.CANCEL): ResponseState.NONE,
    (ResponseState.SPEAKING, ResponseMove.FINISH): ResponseState.NONE,
    (ResponseState.CALLING, ResponseMove.ARGUMENTS): ResponseState.CALLING,
    (ResponseState.CALLING, ResponseMove.CALL_DONE): ResponseState.CALLED,
    (ResponseState.CALLING, ResponseMove.CANCEL): ResponseState.NONE,
    (ResponseState.CALLING, ResponseMove.FINISH): ResponseState.NONE,
    (ResponseState.CALLED, ResponseMove.CALL): ResponseState.CALLING,
    (ResponseState.CALLED, ResponseMove.CANCEL): ResponseState.NONE,
    (ResponseState.CALLED, ResponseMove.FINISH): ResponseState.NONE,
}


# The user's turn in the three ways in which it can come about:
#
#     server_vad       QUIET --BEGIN--> SPEECH --APPEND--> SPEECH --END--> QUIET
#     push to talk     QUIET --APPEND--> OPEN --APPEND--> OPEN --COMMIT--> QUIET
#     changed midway   QUIET --APPEND--> OPEN --BEGIN--> SPEECH --END--> QUIET
#
# With voice detection on, what is appended between turns moves nothing: it waits before the turn,
# and the padding of the next one is cut from it. Source: Realtime guide, "Voice activity
# detection"; Realtime API reference, input_audio_buffer.commit.


class TurnState(StrEnum):
    """Say what the input audio buffer is."""

    QUIET = "quiet"  # no turn: voice detection listens for one, or nothing was appended
    OPEN = "open"  # a turn that the client began by appending; it commits by hand
    SPEECH = "speech"  # a turn that voice detection began and announced


class TurnMove(StrEnum):
    """Say what can happen to it."""

    APPEND = "append"  # audio that belongs to a turn without voice detection
    BEGIN = "begin"  # voice detection heard speech
    END = "end"  # voice detection heard the end of the turn
    COMMIT = "commit"  # the client ends the turn
    CLEAR = "clear"  # the client forgets the turn


TURN_MOVES: dict[tuple[TurnState, TurnMove], TurnState] = {
    (TurnState.QUIET, TurnMove.APPEND): TurnState.OPEN,
    (TurnState.QUIET, TurnMove.BEGIN): TurnState.SPEECH,
    (TurnState.QUIET, TurnMove.CLEAR): TurnState.QUIET,
    (TurnState.OPEN, TurnMove.APPEND): TurnState.OPEN,
    # Voice detection was switched on while a turn was open: the turn goes on, now announced.
    (TurnState.OPEN, TurnMove.BEGIN): TurnState.SPEECH,
    (TurnState.OPEN, TurnMove.COMMIT): TurnState.QUIET,
    (TurnState.OPEN, TurnMove.CLEAR): TurnState.QUIET,
    (TurnState.SPEECH, TurnMove.APPEND): TurnState.SPEECH,
    # Voice detection was switched off and on again: the announced turn goes on.
    (TurnState.SPEECH, TurnMove.BEGIN): TurnState.SPEECH,
    (TurnState.SPEECH, TurnMove.END): TurnState.QUIET,
    (TurnState.SPEECH, TurnMove.COMMIT): TurnState.QUIET,
    (TurnState.SPEECH, TurnMove.CLEAR): TurnState.QUIET,
}


# The texts of both refusals are the hosted service's: clients match on them.
# Source: Realtime API reference, client events, response.create and response.cancel.


def _already_active(response_id: str) -> ClientError:
    return ClientError(
        f"Conversation already has an active response in progress: {response_id}. "
        "Wait until the response is finished before creating a new one.",
        code="conversation_already_has_active_response",
    )


def _nothing_to_cancel(_: str) -> ClientError:
    return ClientError(
        "Cancellation failed: no active response found", code="response_cancel_not_active"
    )


# Moves that a client can ask for at the wrong time, and what it is told.
RESPONSE_REFUSALS: dict[tuple[ResponseState, ResponseMove], Callable[[str], ClientError]] = {
    (ResponseState.CREATED, ResponseMove.CREATE): _already_active,
    (ResponseState.SPEAKING, ResponseMove.CREATE): _already_active,
    (ResponseState.CALLING, ResponseMove.CREATE): _already_active,
    (ResponseState.CALLED, ResponseMove.CREATE): _already_active,
    (ResponseState.NONE, ResponseMove.CANCEL): _nothing_to_cancel,
}


def next_response_state(
    state: ResponseState, move: ResponseMove, response_id: str = ""
) -> ResponseState:
    """Return the state after a move.

    Args:
        state: where the response is.
        move: what is asked of it.
        response_id: the response in progress, for the refusal's text.

    Raises:
        ClientError: the client asked for it at the wrong time.
    """
    refusal = RESPONSE_REFUSALS.get((state, move))
    if refusal is not None:
        raise refusal(response_id)
    assert (state, move) in RESPONSE_MOVES, f"illegal response move {move} in state {state}"
    return RESPONSE_MOVES[state, move]


def next_turn_state(state: TurnState, move: TurnMove) -> TurnState:
    """Return the state after a move."""
    assert (state, move) in TURN_MOVES, f"illegal turn move {move} in state {state}"
    return TURN_MOVES[state, move]
