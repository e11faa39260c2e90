"""Hold back what a text model answers until the words in it have passed the checks."""

from collections.abc import Iterable

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    Close,
    Output,
    Respond,
    ResponseDone,
    ResponseText,
    Usage,
)
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
from server.protocol.filters.gate import Gate
from server.protocol.filters.verdicts import Blocked, CheckWords, Passed

# An answer goes through the gate as a reply of an engine would, in a lane of its own. It is checked
# before the served model recites it, or it is shown; where it is recited, what is recited is
# checked once more, as whatever an engine makes. A worked example:
#
#     AskModel ask_1                  Respond "ask/ask_1"
#     AnswerText "It is", " wet."     ResponseText, twice; asks about "It is wet."
#     AnswerDone                      ResponseDone, behind it
#     Verdict: refused                Blocked, which is an AnswerRefused; the rest is for nobody

_LANE = "ask/"
_TURN = 0  # an answer is the only one in its lane


class AnswerGate:
    """Let answers pass in order, their words and calls once they were checked.

    Args:
        gate: of the session.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._ends: dict[str, AnswerDone | AnswerFailed] = {}  # by lane
        self._calls: dict[str, tuple[str, str]] = {}  # by lane: name, arguments so far

    def watch(self, reactions: Iterable[object]) -> None:
        """Take note of what is asked, and what is given up."""
        for told in reactions:
            if isinstance(told, AskModel):
                # It is not known yet whether the answer will be spoken. So it is checked as speech,
                # in which nothing is masked.
                self._gate.watch([Respond(f"{_LANE}{told.ask_id}", _TURN, "", audio=True)])
            elif isinstance(told, DropAsk):
                self._forget(f"{_LANE}{told.ask_id}")

    def take(self, outcome: DelegateOutcome) -> tuple[list[Passed], list[CheckWords]]:
        """Take what a text model made; returns as `Gate.take`."""
        lane = f"{_LANE}{outcome.ask_id}"
        made: list[Output]
        match outcome:
            case AnswerText():
                made = [ResponseText(lane, _TURN, outcome.text)]
            case AnswerCall():
                made = [
                    CallStarted(lane, _TURN, 0, outcome.name),
                    CallArguments(lane, _TURN, 0, outcome.arguments),
                    CallDone(lane, _TURN, 0),
                ]
            case _:
                assert not isinstance(outcome, AnswerRefused), "that is said here"
                self._ends[lane] = outcome
                made = [ResponseDone(lane, _TURN, "completed", Usage())]
        passed: list[Passed] = []
        asked: list[CheckWords] = []
        for output in made:
            through, questions = self._gate.take(output)
            passed += through
            asked += questions
        return passed, asked

    def is_answer(self, passed: Passed) -> bool:
        """Say whether what has passed is of an answer."""
        return passed.session_id.startswith(_LANE)

    def outcome(self, passed: Passed) -> DelegateOutcome | None:
        """Return what has passed as a text model's; None for what is part of something."""
        lane = passed.session_id
        ask_id = lane.removeprefix(_LANE)
        match passed:
            case ResponseText():
                return AnswerText(ask_id, passed.text)
            case CallStarted():
                self._calls[lane] = passed.name, ""
            case CallArguments():
                name, arguments = self._calls[lane]
                self._calls[lane] = name, arguments + passed.text
            case CallDone():
                return AnswerCall(ask_id, *self._calls.pop(lane))
            case ResponseDone():
                end = self._ends[lane]
                self._forget(lane)
                return end
            case Blocked():
                self._forget(lane)
                return AnswerRefused(ask_id)
            case _:
                pass
        return None

    def _forget(self, lane: str) -> None:
        self._gate.watch([Close(lane)])
        self._ends.pop(lane, None)
        self._calls.pop(lane, None)
