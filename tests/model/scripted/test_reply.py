"""How a reply is made: its order, its times, its audio, its cost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.messages import (
    AppendText,
    CallArguments,
    CallDone,
    CallStarted,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    SessionFailed,
    Tool,
    Usage,
)
from tests.model.scripted.stage import RATE_HZ, SESSION, audio_of, make_stage, text_of

FRAME_SAMPLES = RATE_HZ * 80 // 1000
PACE = "pace: {first_output_ms: 200, write_ms: 10, words_per_minute: 120, real_time_factor: 0.5}"
THREE = f"{PACE}\nreply: [{{say: one two three}}]"
TOOL = Tool("f", "", json.dumps({"type": "object"}))


def test_words_run_ahead_of_the_audio() -> None:
    """A burst of words, then frames with the words that begin in them, then the end."""
    outputs = make_stage(THREE).do(Respond(SESSION, 7, "a"))
    kinds = [type(output) for output in outputs]
    assert kinds[:4] == [ResponseStarted, *[ResponseText] * 3]
    assert kinds[4:6] == [ResponseWord, ResponseAudio]
    assert kinds[-1] is ResponseDone
    assert text_of(outputs) == "one two three"
    words = [(o.text, o.start_ms) for o in outputs if isinstance(o, ResponseWord)]
    assert words == [("one", 0), ("two", 500), ("three", 1000)]
    assert all(getattr(output, "turn", 7) == 7 for output in outputs)


def test_audio_is_as_long_as_its_words() -> None:
    """Half a second each at 120 words a minute; every frame but the last is whole."""
    outputs = make_stage(THREE).do(Respond(SESSION, 1, "a"))
    frames = [len(o.pcm) for o in outputs if isinstance(o, ResponseAudio)]
    assert set(frames[:-1]) == {FRAME_SAMPLES}
    pcm = audio_of(outputs)
    assert len(pcm) == 3 * RATE_HZ // 2
    # A sound at the beginning of every word, and a pause at its end.
    for word in pcm.reshape(3, -1):
        assert np.abs(word[: len(word) // 2]).max() > 0.3
        assert not word[-len(word) // 10 :].any()


def test_word_is_announced_before_its_first_sample() -> None:
    """Whoever has the audio up to a word's start knows the word."""
    num_samples = 0
    for output in make_stage(THREE).do(Respond(SESSION, 1, "a")):
        if isinstance(output, ResponseAudio):
            num_samples += len(output.pcm)
        if isinstance(output, ResponseWord):
            assert num_samples <= output.start_ms * RATE_HZ // 1000


def test_reply_takes_the_time_that_the_script_says() -> None:
    """The first word after 200 ms, the next ones 10 ms apart, audio at twice its own speed."""
    timed = make_stage(THREE).timed(Respond(SESSION, 1, "a"))
    words = [ms for ms, output in timed if isinstance(output, ResponseText)]
    frames = [ms for ms, output in timed if isinstance(output, ResponseAudio)]
    assert words == pytest.approx([200, 210, 220])
    assert frames[:3] == pytest.approx([260, 300, 340])


def test_audio_is_made_a_bounded_time_ahead() -> None:
    """Never more than `ahead_ms` beyond what can have been played, and always enough."""
    timed = make_stage(THREE, ahead_ms=400).timed(Respond(SESSION, 1, "a"))
    frames = [(ms, len(o.pcm)) for ms, o in timed if isinstance(o, ResponseAudio)]
    sent_ms = 0.0
    for ms, num_samples in frames:
        in_hand_ms = sent_ms - (ms - frames[0][0])
        assert in_hand_ms <= 400 + 1e-6
        assert in_hand_ms >= -1e-6
        sent_ms += num_samples * 1000 / RATE_HZ


def test_slow_engine_is_late() -> None:
    """A factor above 1 leaves gaps."""
    script = "{pace: {real_time_factor: 2}, reply: [{say: one two}]}"
    timed = make_stage(script).timed(Respond(SESSION, 1, "a"))
    frames = [ms for ms, output in timed if isinstance(output, ResponseAudio)]
    assert np.diff(frames) == pytest.approx([160] * (len(frames) - 1))


def test_late_thread_does_not_change_the_pace() -> None:
    """What was due meanwhile is made at once, and the rest when it was due anyway."""
    stage = make_stage(THREE)
    stage.start(Respond(SESSION, 1, "a"))
    stage.time[0] = 0.35
    tick = stage.core.tick()
    assert [type(o) for o in tick] == [*[ResponseText] * 3, ResponseWord, *[ResponseAudio] * 3]
    assert stage.core.next_due_s() == pytest.approx(0.38)


def test_written_reply_has_words_only() -> None:
    """No audio, no words in time, none of its tokens."""
    outputs = make_stage(THREE).do(Respond(SESSION, 1, "a", audio=False))
    assert [type(output) for output in outputs] == [
        ResponseStarted,
        *[ResponseText] * 3,
        ResponseDone,
    ]
    assert outputs[-1].usage == Usage(output_text_tokens=3)


@pytest.mark.parametrize(("limit", "num_words", "num_frames"), [(2, 2, 0), (5, 3, 2)])
def test_limit_ends_the_reply(limit: int, num_words: int, num_frames: int) -> None:
    """Words and frames count alike, and no more than the limit come out."""
    outputs = make_stage(THREE).do(Respond(SESSION, 1, "a", max_output_tokens=limit))
    done = outputs[-1]
    assert isinstance(done, ResponseDone)
    assert done.reason == "max_output_tokens"
    assert sum(isinstance(output, ResponseText) for output in outputs) == num_words
    assert sum(isinstance(output, ResponseAudio) for output in outputs) == num_frames
    assert done.usage.output_tokens == limit


def test_limit_that_just_suffices_is_none() -> None:
    """Three words and nothing more are three tokens."""
    outputs = make_stage(THREE).do(
        Respond(SESSION, 1, "a", audio=False, max_output_tokens=3),
    )
    assert isinstance(outputs[-1], ResponseDone)
    assert outputs[-1].reason == "completed"


def test_calls_follow_the_words_one_after_another() -> None:
    """Each is started, told in pieces, and done; the voice has finished by then."""
    script = """
    reply:
      - say: wait
        call: [{name: f, arguments: {city: paris}}, {name: f}]
    """
    outputs = make_stage(script).do(Respond(SESSION, 1, "a", tools=(TOOL,)))
    calls = [o for o in outputs if isinstance(o, CallStarted | CallArguments | CallDone)]
    assert outputs[-len(calls) - 1 : -1] == calls
    assert [(type(o), o.call) for o in calls] == [
        (CallStarted, 0),
        (CallArguments, 0),
        (CallArguments, 0),
        (CallDone, 0),
        (CallStarted, 1),
        (CallArguments, 1),
        (CallDone, 1),
    ]
    pieces = [o.text for o in calls if isinstance(o, CallArguments) and o.call == 0]
    assert "".join(pieces) == '{"city":"paris"}'


def test_usage_counts_what_is_remembered_and_what_was_paid_for() -> None:
    """The second response pays only for what is new to it."""
    stage = make_stage("{hear: [a b c], reply: [{say: one two}]}")
    user = AppendText(SESSION, "u", "user", "hello there")
    first = stage.do(user, Respond(SESSION, 1, "a"))[-1]
    assert isinstance(first, ResponseDone)
    assert first.usage == Usage(2, 0, 0, 0, 2, 10)
    second = stage.do(user, Respond(SESSION, 2, "b"))[-1]
    assert isinstance(second, ResponseDone)
    assert second.usage == Usage(6, 10, 4, 10, 2, 10)


def test_failures_come_after_what_is_said() -> None:
    """A response that fails leaves the session alive; a session that is lost is gone."""
    script = "reply: [{say: oh, fail: broken, at_most: 1}, {say: ah, lose_session: gone}]"
    stage = make_stage(script)
    outputs = stage.do(Respond(SESSION, 1, "a"))
    assert text_of(outputs) == "oh"
    assert outputs[-1] == ResponseFailed(SESSION, 1, "broken")
    outputs = stage.do(Respond(SESSION, 2, "b"))
    assert text_of(outputs) == "ah"
    assert outputs[-1] == SessionFailed(SESSION, "gone")
    assert stage.do(Respond(SESSION, 3, "c")) == []


def test_voices_differ() -> None:
    """A response may have a voice of its own."""
    stage = make_stage(THREE)
    own, other = (
        audio_of(stage.do(Respond(SESSION, turn, f"a{turn}", voice=voice)))
        for turn, voice in ((1, None), (2, "cedar"))
    )
    assert own.shape == other.shape
    assert np.abs(own - other).max() > 0.1
