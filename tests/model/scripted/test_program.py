"""One conversation: the order of things, going back, and what is remembered."""

from __future__ import annotations

import numpy as np

from model.messages import (
    AppendAudio,
    AppendCall,
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallDone,
    Cancel,
    ClearAudio,
    CommitAudio,
    EndOfTurn,
    InputTranscript,
    InputTranscriptDelta,
    Open,
    Output,
    Pixels,
    Reopen,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    SessionFailed,
    Tool,
    Truncate,
    Usage,
)
from tests.fakes.checker import CheckerHere
from tests.model.scripted.stage import SESSION, Stage, make_stage, silence, sound, text_of

SCRIPT = """
hear: [how are you, i am fine, goodbye]
reply:
  - {when: {user: '^say'}, say: one two three four five six seven eight}
  - {when: {user: fine}, say: good, at_most: 1}
  - {say: '{history}'}
"""


def ask(stage: Stage, turn: int = 99) -> str:
    """Return what is remembered, as the engine tells it in a written reply nobody keeps."""
    outputs = stage.do(Respond(SESSION, turn, f"ask {turn}", audio=False))
    stage.do(Truncate(SESSION, f"ask {turn}", 0))
    return text_of(outputs)


def typed(text: str, item_id: str = "typed", *images: Pixels) -> AppendText:
    """Return a typed turn."""
    return AppendText(SESSION, item_id, "user", text, images)


def test_spoken_turn_becomes_what_the_script_heard() -> None:
    """Words as they are spoken, an end that sounds like one, then the whole."""
    stage = make_stage(SCRIPT)
    live = stage.do(AppendAudio(SESSION, sound(960)), AppendAudio(SESSION, silence(400)))
    assert live == [
        *(InputTranscriptDelta(SESSION, text) for text in ("how", " are", " you")),
        EndOfTurn(SESSION, 1200),
    ]
    assert stage.do(CommitAudio(SESSION, "u")) == [InputTranscript(SESSION, "u", "how are you")]
    assert ask(stage) == "user: how are you"


def test_turn_without_audio_has_an_empty_transcript() -> None:
    """It is answered all the same, but leaves nothing behind and uses nothing up."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(900)), ClearAudio(SESSION))
    assert stage.do(CommitAudio(SESSION, "u")) == [InputTranscript(SESSION, "u", "")]
    assert ask(stage) == ""


def test_replayed_items_are_remembered() -> None:
    """Whoever tells a conversation anew is understood."""
    stage = make_stage(SCRIPT)
    stage.do(
        AppendText(SESSION, "1", "system", "be kind"),
        AppendText(SESSION, "2", "user", "hi"),
        AppendText(SESSION, "3", "assistant", "hello you"),
        AppendCall(SESSION, "4", "f", "{}"),
        AppendCallOutput(SESSION, "5", "f", "7"),
    )
    assert ask(stage) == (
        "system: be kind; user: hi; assistant: hello you; call: f {}; returned: f 7"
    )


def test_cancel_is_the_last_of_a_response() -> None:
    """At once, exactly once, and what was written stays until a truncation says otherwise."""
    stage = make_stage(SCRIPT)
    stage.start(typed("say it"), Respond(SESSION, 1, "a"))
    made = stage.run(500)
    cancelled = stage.start(Cancel(SESSION, 1))
    (done,) = cancelled
    assert isinstance(done, ResponseDone)
    assert done.reason == "cancelled"
    assert done.usage.output_audio_tokens == sum(isinstance(o, ResponseAudio) for o in made) > 0
    assert stage.do(Cancel(SESSION, 1)) == []
    stage.do(Truncate(SESSION, "a", 900), typed("and"))
    assert ask(stage) == "user: say it; assistant: one two three; user: and"


def test_unheard_reply_was_never_there() -> None:
    """As if nothing had been said since the turn before."""
    stage = make_stage(SCRIPT)
    stage.start(typed("say it"), Respond(SESSION, 1, "a"))
    stage.start(Cancel(SESSION, 1), Truncate(SESSION, "a", 0), typed("and", "later"))
    assert ask(stage) == "user: say it; user: and"


def test_user_is_heard_while_a_reply_is_made() -> None:
    """Audio, its transcript and typed turns do not wait; they come after the reply in memory."""
    stage = make_stage(SCRIPT)
    stage.start(typed("say it"), Respond(SESSION, 1, "a"))
    stage.run(300)
    heard = stage.start(AppendAudio(SESSION, sound(960)), CommitAudio(SESSION, "u"))
    assert heard[-1] == InputTranscript(SESSION, "u", "how are you")
    rest = stage.run(1e9)
    assert isinstance(rest[-1], ResponseDone)
    assert rest[-1].reason == "completed"
    assert ask(stage) == (
        "user: say it; assistant: one two three four five six seven eight; user: how are you"
    )


def test_second_response_waits_for_the_first() -> None:
    """Commands take effect in their order; one that waits can be cancelled."""
    stage = make_stage(SCRIPT)
    say = typed("say it")
    stage.start(say, Respond(SESSION, 1, "a", audio=False), Respond(SESSION, 2, "b", audio=False))
    stage.start(Respond(SESSION, 3, "c"))
    assert stage.start(Cancel(SESSION, 2)) == [ResponseDone(SESSION, 2, "cancelled", Usage())]
    turns = [output.turn for output in stage.run(1e9) if isinstance(output, ResponseDone)]
    assert turns == [1, 3]


def test_reopen_leaves_no_trace() -> None:
    """The same commands without the tentative commit give the same from then on."""

    def hold(stage: Stage, *between: object) -> list[Output]:
        stage.do(AppendAudio(SESSION, sound(500)))
        for command in between:
            stage.start(command)  # type: ignore[arg-type]  # test shorthand
            stage.run(stage.time[0] * 1000 + 150)
        outputs = stage.do(AppendAudio(SESSION, sound(700)), CommitAudio(SESSION, "u"))
        outputs += stage.do(Respond(SESSION, 5, "a", audio=False))
        outputs += stage.do(AppendAudio(SESSION, sound(700)), CommitAudio(SESSION, "u2"))
        return [*outputs, *stage.do(Respond(SESSION, 6, "b", audio=False))]

    plain = hold(make_stage(SCRIPT))
    tentative = CommitAudio(SESSION, "u", is_tentative=True)
    stage = make_stage(SCRIPT)
    assert plain == hold(stage, tentative, Respond(SESSION, 4, "x"), Reopen(SESSION, "u"))
    assert plain == hold(make_stage(SCRIPT), tentative, Reopen(SESSION, "u"))


def test_response_of_a_reopened_turn_ends_without_a_word() -> None:
    """Not even that it was done."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(900)))
    stage.start(CommitAudio(SESSION, "u", is_tentative=True), Respond(SESSION, 1, "a"))
    assert any(isinstance(output, ResponseText) for output in stage.run(300))
    assert stage.do(Reopen(SESSION, "u")) == []
    assert stage.do(Cancel(SESSION, 1)) == []


def test_reopen_takes_back_what_was_used_up() -> None:
    """Entries of `hear`, and replies that are given only so often."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(900)), CommitAudio(SESSION, "u"))
    stage.do(AppendAudio(SESSION, sound(900)))
    stage.start(CommitAudio(SESSION, "u2", is_tentative=True), Respond(SESSION, 1, "a"))
    stage.run(1e9)
    outputs = stage.do(Reopen(SESSION, "u2"), CommitAudio(SESSION, "u2"))
    assert outputs == [InputTranscript(SESSION, "u2", "i am fine")]
    assert text_of(stage.do(Respond(SESSION, 2, "a", audio=False))) == "good"


def test_reopening_what_is_not_open_fails_the_session() -> None:
    """It is a fault of the gateway's."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(900)), CommitAudio(SESSION, "u"))
    (failed,) = stage.do(Reopen(SESSION, "u"))
    assert isinstance(failed, SessionFailed)


def test_instructions_are_the_responses_or_the_sessions() -> None:
    """A response's own hold for it alone."""
    stage = make_stage("reply: [{say: '{instructions}'}]", instructions="always")
    own = Respond(SESSION, 1, "a", audio=False, instructions="now")
    assert text_of(stage.do(own)) == "now"
    assert text_of(stage.do(Respond(SESSION, 2, "b", audio=False))) == "always"


CALLS = """
reply:
  - {when: {user: late}, call: [{name: f, arguments: {a: '{last_user}'}}], at_most: 1}
  - {say: hello}
"""
PARAMETERS = '{"properties": {"a": {"maxLength": 4}}}'


def demanded(turn: int, parameters: str = PARAMETERS) -> Respond:
    """Return a request that may call a function."""
    return Respond(SESSION, turn, f"a{turn}", audio=False, tools=(Tool("f", "", parameters),))


def test_a_call_waits_until_it_was_checked_and_nobody_else_does() -> None:
    """What follows it waits as for any reply; it then takes the time that it would have taken."""
    checker = CheckerHere(holds=True)
    stage = make_stage(CALLS, checker=checker)
    (started,) = stage.do(typed("late"), demanded(1), demanded(2))
    assert isinstance(started, ResponseStarted)
    assert stage.core.next_due_s() is None
    stage.core.apply(Open("other", "alloy"))
    assert text_of(stage.do(Respond("other", 1, "a", audio=False))) == "hello"
    checker.release()
    made = stage.do()
    called = [output.text for output in made if isinstance(output, CallArguments)]
    assert "".join(called) == '{"a":"late"}'
    assert [output.turn for output in made if isinstance(output, ResponseDone)] == [1, 2]
    assert text_of(made) == "hello"


def test_a_call_that_its_function_does_not_take_was_not_made() -> None:
    """Nor is it used up: with another function it is made."""
    checker = CheckerHere(holds=True)
    stage = make_stage(CALLS, checker=checker)
    stage.do(typed("late"), demanded(1, '{"properties": {"a": {"maxLength": 3}}}'))
    checker.release()
    (failed,) = stage.do()
    assert isinstance(failed, ResponseFailed)
    assert "does not take arguments['a']: 'late' is too long" in failed.message
    stage.do(demanded(2))
    checker.release()
    assert any(isinstance(output, CallDone) for output in stage.do())


def test_a_call_that_waits_can_be_taken_back() -> None:
    """By a cancellation, or because the user goes on; what is said of it later is nothing."""
    checker = CheckerHere(holds=True)
    stage = make_stage(CALLS, checker=checker)
    stage.do(typed("late"), demanded(1))
    done = stage.do(Cancel(SESSION, 1))[-1]
    assert isinstance(done, ResponseDone)
    assert done.reason == "cancelled"
    checker.release()
    assert stage.do() == []

    stage = make_stage(f"hear: [late, later]\n{CALLS}", checker=checker)
    stage.do(AppendAudio(SESSION, sound(960)), CommitAudio(SESSION, "u", is_tentative=True))
    stage.do(demanded(1), Reopen(SESSION, "u"))
    checker.release()
    assert stage.do() == []
    assert stage.core.next_due_s() is None


RED = np.full((48, 64, 3), (220, 30, 30), dtype=np.uint8)
BLUE = np.full((32, 32, 3), (30, 60, 220), dtype=np.uint8)


def usage(outputs: list[Output]) -> Usage:
    """Return what the response among outputs is based on."""
    (done,) = [output for output in outputs if isinstance(output, ResponseDone)]
    return done.usage


def test_pictures_stand_where_they_were_shown() -> None:
    """Words and pictures of one item are one turn, in order; another item is another."""
    stage = make_stage(SCRIPT)
    stage.do(typed("compare this", "a", RED), typed("with that", "a", BLUE), typed("", "b", RED))
    remembered = "user: compare this [red 64x48] with that [blue 32x32]; user: [red 64x48]"
    assert ask(stage) == remembered
    assert stage.core._programs[SESSION].memory.num_turns == 2


def test_pictures_of_a_spoken_turn() -> None:
    """They stand after its words, and one without words is a turn all the same."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(960)), CommitAudio(SESSION, "u", images=(RED, BLUE)))
    stage.do(CommitAudio(SESSION, "v", images=(BLUE,)))
    remembered = "user: how are you [red 64x48] [blue 32x32]; user: [blue 32x32]"
    assert ask(stage) == remembered


def test_pictures_of_a_turn_that_goes_on() -> None:
    """A tentative commit that is taken back takes its pictures back."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(960)))
    stage.do(CommitAudio(SESSION, "u", is_tentative=True, images=(RED,)))
    stage.do(Respond(SESSION, 1, "a"), Reopen(SESSION, "u"))
    stage.do(AppendAudio(SESSION, sound(80)), CommitAudio(SESSION, "v", images=(BLUE,)))
    assert ask(stage) == "user: how are you [blue 32x32]"


def test_pictures_are_counted() -> None:
    """A token for each square of 32 pixels that is begun; what was paid for is cached."""
    stage = make_stage(SCRIPT)
    stage.do(typed("say it", "a", RED))
    first = usage(stage.do(Respond(SESSION, 1, "x", audio=False)))
    assert (first.input_image_tokens, first.input_cached_image_tokens) == (4, 0)
    assert first.input_tokens == first.input_text_tokens + 4
    stage.do(typed("say it", "b", BLUE))
    second = usage(stage.do(Respond(SESSION, 2, "y", audio=False)))
    assert (second.input_image_tokens, second.input_cached_image_tokens) == (5, 4)
    assert second.input_cached_tokens == second.input_cached_text_tokens + 4
