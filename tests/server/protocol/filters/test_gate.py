"""What the engine makes passes in order, and its words after they were checked."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    Cancel,
    Close,
    InputTranscript,
    InputTranscriptDelta,
    Output,
    Recite,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    SessionFailed,
    Usage,
)
from server.protocol.filters.gate import Gate
from server.protocol.filters.verdicts import (
    NO_FILTERS,
    Blocked,
    CheckWords,
    FilterPlan,
    RedactedTranscript,
    Retell,
    Verdict,
)

ALL = FilterPlan(hears=True, says=True, calls=True)
S = "sess_1"
STARTED = ResponseStarted(S, 1, Usage())
DONE = ResponseDone(S, 1, "completed", Usage())


def _text(text: str, turn: int = 1) -> ResponseText:
    return ResponseText(S, turn, text)


def _call(name: str = "f") -> CallStarted:
    return CallStarted(S, 1, 0, name)


def _audio(turn: int = 1) -> ResponseAudio:
    return ResponseAudio(S, turn, np.zeros(4, np.float32))


class _Watched:
    """A gate, and all that came out of it."""

    def __init__(self, plan: FilterPlan = ALL, *, audio: bool = True) -> None:
        self.gate = Gate(plan)
        self.asked: list[CheckWords] = []
        self.passed: list[Any] = []
        self.gate.watch([Respond(S, 1, "item_1", audio=audio)])

    def take(self, *outputs: Output) -> list[Any]:
        """Take outputs, and return what passed."""
        before = len(self.passed)
        for output in outputs:
            passed, asked = self.gate.take(output)
            self.passed += passed
            self.asked += asked
        return self.passed[before:]

    def say(self, key: int, words: str | None) -> list[Any]:
        """Answer a question."""
        passed = self.gate.verdict(Verdict(key, words))
        self.passed += passed
        return passed

    def ok(self, key: int) -> list[Any]:
        """Let words pass."""
        asked = next(each for each in self.asked if each.key == key)
        return self.say(key, asked.text[asked.start :])


def test_without_a_plan_everything_passes_at_once() -> None:
    """Nothing is asked, and nothing waits."""
    watched = _Watched(NO_FILTERS)
    outputs: list[Output] = [InputTranscript(S, "i", "a"), STARTED, _text("a."), _audio(), DONE]
    assert watched.take(*outputs) == outputs
    assert watched.asked == []


def test_audio_waits_for_the_words_before_it() -> None:
    """Sentences are asked about as they are complete, and pass in order."""
    watched = _Watched()
    first, second, sound = _text("one."), _text(" two."), _audio()
    assert watched.take(STARTED, first, second, sound) == [STARTED]
    assert watched.asked == [CheckWords(1, "spoken", "one."), CheckWords(2, "spoken", " two.")]
    assert watched.ok(2) == []
    assert watched.ok(1) == [first, second, sound]


def test_audio_within_a_sentence_asks_about_what_there_is() -> None:
    """Each question has the sentence so far, and says what of it is new."""
    watched = _Watched()
    watched.take(_text("call"), ResponseWord(S, 1, "call", 0), _audio(), _text(" me."), DONE)
    assert watched.asked == [
        CheckWords(1, "spoken", "call"),
        CheckWords(2, "spoken", "call me.", 4),
    ]
    assert [type(each).__name__ for each in watched.ok(1)] == [
        "ResponseText",
        "ResponseWord",
        "ResponseAudio",
    ]
    assert watched.ok(2) == [_text(" me."), DONE]


def test_what_is_refused_ends_the_response() -> None:
    """What has passed stays; nothing that follows comes out, its end included."""
    watched = _Watched()
    watched.take(STARTED, _text("one."), _text(" two."), _audio())
    watched.ok(1)
    assert watched.say(2, None) == [Blocked(S, 1)]
    assert watched.take(_text(" three."), _audio(), _call(), DONE) == []
    assert len(watched.asked) == 2
    # The next response is another one.
    watched.gate.watch([Respond(S, 2, "item_2")])
    assert watched.take(ResponseStarted(S, 2, Usage()), _audio(2))[0].turn == 2


def test_a_mask_keeps_lengths() -> None:
    """Masked words stand in the same outputs."""
    watched = _Watched(audio=False)
    watched.take(_text("call 55"), _text("50 now."))
    assert watched.asked[0].direction == "written"
    masked = [_text("call **"), _text("** now.")]
    assert watched.say(1, "call **** now.") == [Retell(S, 1), *masked]


def test_a_refused_transcript_ends_the_reply_to_it() -> None:
    """Neither its words nor the answer to them come out."""
    watched = _Watched()
    heard = InputTranscript(S, "item_0", "something bad")
    assert watched.take(InputTranscriptDelta(S, "something"), heard, STARTED, _audio(), DONE) == []
    assert watched.asked == [CheckWords(1, "heard", "something bad")]
    assert watched.say(1, None) == [RedactedTranscript(S, "item_0", ""), STARTED, Blocked(S, 1)]


def test_both_sentences_of_a_reply_may_be_refused() -> None:
    """In whatever order; whoever takes the first end has no use for another."""
    watched = _Watched()
    watched.take(STARTED, _text("one."), _text(" two."), _audio())
    assert watched.say(2, None) == []
    assert watched.say(1, None) == [Blocked(S, 1)]


def test_what_was_begun_on_refused_words_is_refused_until_they_are_forgotten() -> None:
    """A reply that was asked for too late to be refused with them is so at once."""
    watched = _Watched()
    watched.take(DONE, InputTranscript(S, "item_0", "bad"))
    assert watched.say(1, None) == [RedactedTranscript(S, "item_0", "", is_unanswered=True)]
    assert watched.gate.watch([Respond(S, 2, "item_2")]) == [Blocked(S, 2)]
    assert watched.take(_audio(2)) == []
    # The engine starts over, and is told the conversation without them.
    assert watched.gate.watch([Close(S), Respond(S, 3, "item_3")]) == []
    assert watched.take(_audio(3))[0].turn == 3


def test_the_configured_sentence_is_not_checked() -> None:
    """It would take its own place for ever. What a text model lets be said is checked."""
    watched = _Watched(replace(ALL, sentence="no bomb."))
    watched.take(DONE)
    for turn, text in ((2, "no bomb."), (3, "a bomb.")):
        watched.gate.watch([Respond(S, turn, "i", recites=True), Recite(S, turn, text, True)])
    assert watched.take(_text("no bomb.", 2)) == [_text("no bomb.", 2)]
    assert watched.take(_text("a bomb.", 3)) == []
    assert watched.asked == [CheckWords(1, "spoken", "a bomb.")]


def test_a_call_is_told_when_it_was_checked() -> None:
    """As a whole: once a client has it, it may act. What is said before it is not held up."""
    watched = _Watched()
    call: list[Output] = [
        _call(),
        CallArguments(S, 1, 0, '{"to": "b'),
        CallArguments(S, 1, 0, '\\u006fmb"}'),
    ]
    done = CallDone(S, 1, 0)
    assert watched.take(STARTED, _text("one"), *call) == [STARTED]
    assert watched.asked == [CheckWords(1, "spoken", "one")]
    assert watched.ok(1) == [_text("one")]
    assert watched.take(done, DONE) == []
    assert watched.asked[1] == CheckWords(2, "called", "to\nbomb")
    assert watched.ok(2) == [*call, done, DONE]


def test_a_refused_call_was_never_made() -> None:
    """Nobody is told of it, and its end says that the engine made more than was told."""
    watched = _Watched()
    watched.take(STARTED, _call(), CallArguments(S, 1, 0, '[{"a": [1, null, true]}]'))
    watched.take(CallDone(S, 1, 0), DONE)
    assert watched.asked == [CheckWords(1, "called", "a\n1")]
    assert watched.say(1, None) == [Retell(S, 1), Blocked(S, 1)]


def test_a_call_that_is_cut_short_is_checked_as_it_is() -> None:
    """It ends with the response; one without words has nothing to be checked."""
    watched = _Watched()
    parts: list[Output] = [_call(), CallArguments(S, 1, 0, '{"a": "bo'), DONE]
    assert watched.take(*parts) == []
    assert watched.asked == [CheckWords(1, "called", '{"a": "bo')]
    assert watched.ok(1) == parts
    watched = _Watched()
    empty: list[Output] = [_call(), CallArguments(S, 1, 0, "{}"), CallDone(S, 1, 0)]
    assert watched.take(*empty) == empty


def test_calls_alone_may_be_checked() -> None:
    """Words pass then."""
    watched = _Watched(FilterPlan(calls=True))
    assert watched.take(_text("one."), _call(), CallArguments(S, 1, 0, '"x"')) == [_text("one.")]
    watched = _Watched(FilterPlan(says=True))
    assert watched.take(_call(), CallArguments(S, 1, 0, '"x"')) == [
        _call(),
        CallArguments(S, 1, 0, '"x"'),
    ]


def test_a_refused_transcript_leaves_an_older_reply() -> None:
    """A response that was under way before is not an answer to it."""
    watched = _Watched()
    watched.take(STARTED, _audio(), InputTranscript(S, "item_0", "bad"))
    assert watched.say(1, None) == [RedactedTranscript(S, "item_0", "", is_unanswered=True)]
    assert watched.take(DONE) == [DONE]


def test_what_is_taken_back_is_dropped() -> None:
    """Verdicts about it change nothing."""
    for told in (Cancel(S, 1), Close(S)):
        watched = _Watched()
        watched.take(_text("one."), _audio())
        watched.gate.watch([told])
        assert watched.ok(1) == []
        assert watched.gate.num_waiting == 0


def test_what_was_written_and_never_told_is_to_be_forgotten() -> None:
    """A spoken reply the engine can go back in; in a written one, and past a call, it cannot."""
    for audio, output, forgets in (
        (True, _text("one."), False),
        (False, _text("one."), True),
        (False, _audio(), False),
        (True, _call(), True),
    ):
        watched = _Watched(audio=audio)
        watched.take(output)
        follows = [Retell(S, 1)] if forgets else []
        assert watched.gate.watch([Cancel(S, 1)]) == follows


def test_an_early_reply_is_taken_back_with_its_transcript() -> None:
    """Of another turn's transcript nothing is lost."""
    watched = _Watched()
    older = InputTranscript(S, "item_0", "older")
    watched.take(older, InputTranscript(S, "early", "new"), STARTED, _text("one."))
    watched.gate.watch([Reopen(S, "early")])
    assert watched.ok(2) == []
    assert watched.ok(3) == []
    assert watched.ok(1) == [older]


def test_a_lost_engine_leaves_nothing() -> None:
    """What was held is never told."""
    watched = _Watched()
    watched.take(_text("one."), _audio())
    failed = SessionFailed(S, "gone")
    assert watched.take(failed) == [failed]
    assert watched.ok(1) == []
    watched = _Watched()
    watched.take(_text("two."))
    watched.gate.clear()
    assert watched.ok(1) == []


@given(
    st.lists(st.sampled_from(["word", " end.", "audio", "answer"]), max_size=40), st.integers(0, 40)
)
def test_in_every_order_no_audio_passes_before_its_words(acts: Iterable[str], refused: int) -> None:
    """What comes out is a beginning of what came in, and all of it was answered with yes."""
    watched = _Watched()
    made: list[Output] = []
    open_keys: list[int] = []
    for act in acts:
        if act == "answer" and open_keys:
            key = open_keys.pop(len(made) % len(open_keys))
            watched.ok(key) if key != refused else watched.say(key, None)
        elif act != "answer":
            output = _audio() if act == "audio" else _text(act)
            made.append(output)
            num = len(watched.asked)
            watched.take(output)
            open_keys += [asked.key for asked in watched.asked[num:]]
    told = [each for each in watched.passed if not isinstance(each, Blocked)]
    assert len(watched.passed) - len(told) <= 1
    assert all(one is other for one, other in zip(told, made, strict=False))
    if len(told) < len(watched.passed):
        assert isinstance(watched.passed[-1], Blocked)
    words = "".join(each.text for each in told if isinstance(each, ResponseText))
    answered = [a for a in watched.asked if a.key not in open_keys and a.key != refused]
    assert len(words) <= sum(len(a.text) - a.start for a in answered)
