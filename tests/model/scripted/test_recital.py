"""Words that come from elsewhere are written and spoken as they come, and no others."""

from __future__ import annotations

from model.messages import (
    Cancel,
    Output,
    Recite,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseText,
    ResponseWord,
    Truncate,
)
from tests.model.scripted.stage import SESSION, Stage, make_stage, text_of

SCRIPT = """
pace: {first_output_ms: 100, write_ms: 5, words_per_minute: 150, real_time_factor: 0.1}
reply: [{say: '{history}'}]
"""


def begin(stage: Stage, **changes: bool | int) -> list[Output]:
    """Begin a reply whose words come."""
    return stage.do(Respond(SESSION, 1, "a", recites=True, **changes))  # type: ignore[arg-type]


def remembered(stage: Stage) -> str:
    """Return what the engine remembers."""
    outputs = stage.do(Respond(SESSION, 9, "ask", audio=False))
    stage.do(Truncate(SESSION, "ask", 0))
    return text_of(outputs)


def test_words_are_spoken_in_whole_as_they_come() -> None:
    """A word that comes in pieces is one, and nothing is said while there are none."""
    stage = make_stage(SCRIPT)
    assert text_of(begin(stage)) == ""
    assert text_of(stage.do(Recite(SESSION, 1, "hel"))) == ""
    first = stage.do(Recite(SESSION, 1, "lo wor"))
    assert text_of(first) == "hello"
    assert sum(isinstance(each, ResponseAudio) for each in first) == 5
    rest = stage.do(Recite(SESSION, 1, "ld", is_last=True))
    assert text_of(rest) == " world"
    words = [each for each in (*first, *rest) if isinstance(each, ResponseWord)]
    assert [(word.text, word.start_ms) for word in words] == [("hello", 0), ("world", 400)]
    assert isinstance(done := rest[-1], ResponseDone)
    assert (done.reason, done.usage.output_text_tokens, done.usage.output_audio_tokens) == (
        *("completed", 2),
        10,
    )
    assert remembered(stage) == "assistant: hello world"


def test_a_reply_that_is_cut_remembers_what_was_heard() -> None:
    """Words that come later belong to nothing."""
    stage = make_stage(SCRIPT)
    begin(stage)
    stage.do(Recite(SESSION, 1, "one two three "))
    ended = stage.do(Cancel(SESSION, 1))
    assert isinstance(ended[-1], ResponseDone)
    assert ended[-1].reason == "cancelled"
    stage.do(Truncate(SESSION, "a", 500))
    assert stage.do(Recite(SESSION, 1, "four", is_last=True)) == []
    assert remembered(stage) == "assistant: one two"


def test_a_written_recital_has_no_audio_and_may_be_empty() -> None:
    """Its end is an end all the same."""
    stage = make_stage(SCRIPT)
    begin(stage, audio=False)
    made = stage.do(Recite(SESSION, 1, "one two", is_last=True))
    assert text_of(made) == "one two"
    assert not any(isinstance(each, ResponseAudio) for each in made)
    begun = stage.do(Respond(SESSION, 2, "b", recites=True))
    assert not any(isinstance(each, ResponseText) for each in begun)
    (done,) = stage.do(Recite(SESSION, 2, "", is_last=True))
    assert isinstance(done, ResponseDone)


def test_words_wait_for_the_reply_before() -> None:
    """They are given behind the command that wants them."""
    stage = make_stage(SCRIPT)
    begin(stage)
    stage.do(Respond(SESSION, 2, "b", recites=True), Recite(SESSION, 2, "two", is_last=True))
    made = stage.do(Recite(SESSION, 1, "one", is_last=True))
    assert text_of(made) == "onetwo"


def test_a_limit_ends_a_recital() -> None:
    """As it ends a reply of its own words."""
    stage = make_stage(SCRIPT)
    begin(stage, audio=False, max_output_tokens=1)
    made = stage.do(Recite(SESSION, 1, "one two", is_last=True))
    assert text_of(made) == "one"
    assert isinstance(made[-1], ResponseDone)
    assert made[-1].reason == "max_output_tokens"


def test_the_engine_says_that_it_recites() -> None:
    """Whoever asks it to knows."""
    stage = make_stage(SCRIPT)
    assert stage.core.info.recites
