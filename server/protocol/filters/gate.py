"""Hold back what the engine makes until the words in it have passed the checks."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TypeAlias

from model.messages import (
    CallArguments,
    CallDone,
    CallPart,
    Cancel,
    Close,
    InputTranscript,
    InputTranscriptDelta,
    Output,
    Recite,
    Reopen,
    Respond,
    ResponseEnd,
    ResponsePart,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    SessionFailed,
)
from server.protocol.filters.verdicts import (
    Blocked,
    CheckWords,
    Direction,
    FilterPlan,
    Passed,
    RedactedTranscript,
    ResponseOutput,
    Retell,
    Verdict,
)

# A worked example. The engine writes a reply of two sentences in one burst, and then speaks:
#
#     ResponseText("i am parley.")       held; asks about "i am parley."         key 1
#     ResponseText(" call 555 0100.")    held; asks about " call 555 0100."      key 2
#     ResponseAudio                      held: it stands behind both
#     Verdict(1, passed)                 the first sentence goes out
#     Verdict(2, passed)                 the second, and the audio behind it; had it been refused,
#                                        Blocked would stand here, and nothing after it
#
# A model that speaks while it writes sends audio within a sentence. Then what there is of the
# sentence is asked about: " call" after "i am parley.", and then " call 555", of which " 555" is
# new.
#
# The order of an engine's session never changes, so audio waits for every word that the engine
# sent before it. Since words run ahead of audio, these are at least the words in it.
#
# A function call is asked about when its arguments are complete, and nobody is told of it before:
# once a client has them, it may act.

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "\uff01", "\uff1f", "\n")
_MAX_CHARS = 600  # of what is asked about at once, and of what stands before it

_Held: TypeAlias = InputTranscript | ResponseOutput


@dataclass(slots=True, eq=False)
class _Batch:
    """Some outputs that pass together.

    Attributes:
        turn: of the response; None for a transcript.
        outputs: in order.
        text: words in them that are to be checked; of a call, its arguments.
        is_call: whether it is a function call.
        key: of the question about them, once it was asked.
        is_passed: whether they may go.
        seen: responses that had put out something before a transcript: they do not answer it.
    """

    turn: int | None
    outputs: list[_Held]
    text: str = ""
    is_call: bool = False
    key: int | None = None
    is_passed: bool = False
    seen: frozenset[int] = frozenset()

    @property
    def is_open(self) -> bool:
        """Say whether words may be added to it."""
        return self.key is None and not self.is_passed


@dataclass(slots=True)
class _Lane:
    """What one session of the engine has made and nobody has been told.

    Attributes:
        batches: of outputs, in order.
        running: turn → response that was asked for and is neither over nor refused.
        seen: turns of those that have put out something.
        excused: turns of those that say the configured sentence, which is not checked.
        turn: of the newest words.
        sentence: words of that turn's sentence that were asked about already.
        is_tainted: whether the engine remembers words of the user that were refused.
    """

    batches: deque[_Batch] = field(default_factory=deque)
    running: dict[int, Respond] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)
    turn: int | None = None
    sentence: str = ""
    is_tainted: bool = False

    def end(self, turn: int) -> None:
        """Note that a response is over or refused."""
        self.running.pop(turn, None)
        self.seen.discard(turn)
        self.excused.discard(turn)


class Gate:
    """Let outputs of the engine pass in order, their words once they were checked.

    Args:
        plan: what is checked.
    """

    def __init__(self, plan: FilterPlan) -> None:
        self._plan = plan
        self._lanes: dict[str, _Lane] = {}
        self._asked: dict[int, tuple[_Lane, _Batch]] = {}
        self._keys = count(1)

    @property
    def num_waiting(self) -> int:
        """Count the questions that have no answer yet."""
        return len(self._asked)

    def take(self, output: Output) -> tuple[list[Passed], list[CheckWords]]:
        """Take what the engine made.

        Returns:
            What passes now, in order; what is to be checked.
        """
        if not self._plan.checks:
            return [output], []
        if isinstance(output, SessionFailed):
            self._forget(output.session_id)
        if isinstance(output, InputTranscriptDelta) and self._plan.hears:
            return [], []  # the final words replace them, and have been checked
        if not isinstance(output, InputTranscript | ResponsePart | ResponseEnd):
            return [output], []
        lane = self._lanes.setdefault(output.session_id, _Lane())
        asked = self._heard(lane, output) if isinstance(output, InputTranscript) else None
        if asked is None:
            assert not isinstance(output, InputTranscript)
            asked = self._made(lane, output)
        return self._released(lane), asked

    def verdict(self, verdict: Verdict) -> list[Passed]:
        """Take an answer, and return what passes now; what was dropped meanwhile has none."""
        if verdict.key not in self._asked:
            return []
        lane, batch = self._asked.pop(verdict.key)
        batch.is_passed = True
        if batch.turn is None:
            self._judge_transcript(lane, batch, verdict.words)
        elif verdict.words is None:
            session_id = batch.outputs[0].session_id
            batch.outputs = self._refuse(lane, session_id, batch.turn, first=batch)
        elif not batch.is_call and verdict.words != batch.text:
            retell = Retell(batch.outputs[0].session_id, batch.turn)
            batch.outputs = [retell, *_with_words(batch.outputs, verdict.words)]
        return self._released(lane)

    def watch(self, reactions: Iterable[object]) -> list[Passed]:
        """Take note of what the engine is told: what is taken back there is dropped here.

        Returns:
            Ends of responses that must not be: the engine would base them on words of the user that
            were refused, and that it could not be made to forget yet. And what it is to be told
            anew, because it was dropped here and is remembered there.
        """
        follows: list[Passed] = []
        if not self._plan.checks:
            return follows
        for told in reactions:
            match told:
                case Respond():
                    lane = self._lanes.setdefault(told.session_id, _Lane())
                    lane.running[told.turn] = told
                    # What it recites does not come from what the engine remembers.
                    if lane.is_tainted and not told.recites:
                        follows += self._refuse(lane, told.session_id, told.turn)
                case Recite() if told.text == self._plan.sentence:
                    self._lanes[told.session_id].excused.add(told.turn)
                case Cancel() if told.session_id in self._lanes:
                    lane = self._lanes[told.session_id]
                    dropped = [batch for batch in lane.batches if batch.turn == told.turn]
                    if any(_is_lasting(lane, batch) for batch in dropped):
                        follows.append(Retell(told.session_id, told.turn))
                    self._give_up(lane, told.turn)
                case Reopen() if told.session_id in self._lanes:
                    lane = self._lanes[told.session_id]
                    self._drop(lane, partial(_is_transcript, item_id=told.item_id))
                    # The reply that was begun with it is the newest.
                    if lane.running:
                        self._give_up(lane, max(lane.running))
                case Close():
                    self._forget(told.session_id)
                case _:
                    pass
        return follows

    def clear(self) -> None:
        """Forget everything, because the engine was lost."""
        self._lanes.clear()
        self._asked.clear()

    # What comes in.

    def _heard(self, lane: _Lane, output: InputTranscript) -> list[CheckWords]:
        batch = _Batch(None, [output], output.text, seen=frozenset(lane.seen))
        lane.batches.append(batch)
        if not self._plan.hears or not output.text.strip():
            batch.is_passed = True
            return []
        batch.key = next(self._keys)
        self._asked[batch.key] = lane, batch
        return [CheckWords(batch.key, "heard", output.text)]

    def _made(self, lane: _Lane, output: ResponsePart | ResponseEnd) -> list[CheckWords]:
        turn = output.turn
        if turn not in lane.running:
            return []  # it is over or refused: nobody is told more of it
        lane.seen.add(turn)
        last = lane.batches[-1] if lane.batches else None
        batch = last if last is not None and last.is_open and last.turn == turn else None
        is_checked = self._plan.says and turn not in lane.excused
        is_words = isinstance(output, ResponseText) and is_checked
        is_call = isinstance(output, CallPart) and self._plan.calls
        if batch is not None and isinstance(output, ResponseWord | ResponseStarted):
            batch.outputs.append(output)
            return []
        asked: list[CheckWords] = []
        if batch is not None and (batch.is_call, not batch.is_call) != (is_call, is_words):
            asked = self._ask(lane, batch, is_end=False)
            batch = None
        if not (is_words or is_call):
            lane.batches.append(_Batch(turn, [output], is_passed=True))
            return asked
        if batch is None:
            batch = _Batch(turn, [], is_call=is_call)
            lane.batches.append(batch)
        batch.outputs.append(output)
        if isinstance(output, ResponseText | CallArguments):
            batch.text += output.text
        is_end = isinstance(output, CallDone) if is_call else _ends_sentence(batch.text)
        if is_end or (is_words and len(batch.text) >= _MAX_CHARS):
            asked += self._ask(lane, batch, is_end=is_end)
        return asked

    def _ask(self, lane: _Lane, batch: _Batch, *, is_end: bool) -> list[CheckWords]:
        assert batch.turn is not None
        before = ""
        if batch.is_call:
            text = _words_of(batch.text)
        else:
            before = lane.sentence if lane.turn == batch.turn else ""
            text = before + batch.text
            lane.turn, lane.sentence = batch.turn, "" if is_end else text[-_MAX_CHARS:]
        if not text[len(before) :].strip():
            batch.is_passed = True
            return []
        batch.key = next(self._keys)
        self._asked[batch.key] = lane, batch
        direction: Direction = "written"
        if batch.is_call:
            direction = "called"
        elif lane.running[batch.turn].audio:
            direction = "spoken"
        return [CheckWords(batch.key, direction, text, len(before))]

    # What goes out.

    def _judge_transcript(self, lane: _Lane, batch: _Batch, words: str | None) -> None:
        (heard,) = batch.outputs
        assert isinstance(heard, InputTranscript)
        if words == heard.text:
            return
        is_refused = words is None
        answers = [turn for turn in lane.running if turn not in batch.seen] if is_refused else []
        batch.outputs = [
            RedactedTranscript(
                heard.session_id,
                heard.item_id,
                words or "",
                is_unanswered=is_refused and not answers,
            )
        ]
        for turn in answers:
            batch.outputs += self._refuse(lane, heard.session_id, turn)
        lane.is_tainted = lane.is_tainted or is_refused

    def _refuse(
        self, lane: _Lane, session_id: str, turn: int, first: _Batch | None = None
    ) -> list[_Held]:
        """Let nothing of a response pass; or nothing from a batch on.

        Returns:
            What stands in its place: what it has cost already, and its end.
        """
        waiting = [batch for batch in lane.batches if batch.turn == turn]
        refused = waiting[waiting.index(first) :] if first in waiting else waiting
        self._drop(lane, lambda batch: any(batch is each for each in refused if each is not first))
        lane.end(turn)
        started = [
            each for batch in refused for each in batch.outputs if isinstance(each, ResponseStarted)
        ]
        blocked = Blocked(session_id, turn)
        is_call = any(batch.is_call for batch in refused)
        return [*started, *([Retell(session_id, turn)] if is_call else []), blocked]

    def _released(self, lane: _Lane) -> list[Passed]:
        passed: list[Passed] = []
        while lane.batches and lane.batches[0].is_passed:
            passed += lane.batches.popleft().outputs
        for output in passed:
            if isinstance(output, ResponseEnd):
                lane.end(output.turn)
        return passed

    def _give_up(self, lane: _Lane, turn: int) -> None:
        self._drop(lane, lambda batch: batch.turn == turn)
        lane.end(turn)

    def _drop(self, lane: _Lane, is_dropped: Callable[[_Batch], bool]) -> None:
        for batch in [batch for batch in lane.batches if is_dropped(batch)]:
            self._asked.pop(batch.key or 0, None)
        lane.batches = deque(batch for batch in lane.batches if not is_dropped(batch))

    def _forget(self, session_id: str) -> None:
        lane = self._lanes.pop(session_id, None)
        if lane is not None:
            self._drop(lane, lambda _: True)


def _is_transcript(batch: _Batch, item_id: str) -> bool:
    first = batch.outputs[0]
    return isinstance(first, InputTranscript) and first.item_id == item_id


def _is_lasting(lane: _Lane, batch: _Batch) -> bool:
    """Say whether the engine remembers outputs however much of the reply was heard."""
    response = lane.running.get(batch.turn or 0)
    return batch.is_call or (response is not None and not response.audio and bool(batch.text))


def _ends_sentence(text: str) -> bool:
    return text.rstrip(" ").endswith(_SENTENCE_ENDS)


def _words_of(arguments: str) -> str:
    """Return the names and values in a call's arguments, one a line; as they are if cut short.

    JSON can write a letter as the number of its character; here it is that letter.
    """
    try:
        left = [json.loads(arguments)]
    except (ValueError, RecursionError):
        return arguments
    words: list[str] = []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [each for pair in reversed(value.items()) for each in reversed(pair)]
        elif isinstance(value, list):
            left += reversed(value)
        elif not isinstance(value, bool | None):
            words.append(str(value))
    return "\n".join(words)


def _with_words(outputs: Sequence[_Held], words: str) -> list[_Held]:
    """Return outputs with other words of the same length."""
    changed: list[_Held] = []
    start = 0
    for output in outputs:
        if isinstance(output, ResponseText):
            end = start + len(output.text)
            changed.append(replace(output, text=words[start:end]))
            start = end
        else:
            changed.append(output)
    return changed
