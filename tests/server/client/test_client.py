"""The client paces audio as a microphone does and times what a person would notice."""

import base64
from typing import Any

import numpy as np
import pytest

from server.audio.pcm import encode_pcm
from server.client.client import (
    RATE_HZ,
    Conversation,
    TalkError,
    Truncation,
    _Answer,
    open_conversation,
    realtime_url,
)
from tests.fakes.clock import FakeTime
from tests.fakes.realtime import FakeRealtime, Scripted

TRANSCRIPTION = "conversation.item.input_audio_transcription"


def _tone(duration_ms: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full(duration_ms * RATE_HZ // 1000, 0.5, dtype=np.float32)


def _audio_delta(duration_ms: int) -> dict[str, str]:
    pcm = base64.b64encode(encode_pcm(_tone(duration_ms))).decode()
    return {"type": "response.output_audio.delta", "item_id": "a1", "delta": pcm}


class Recorder:
    """An answer in progress on a clock that the test moves."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.time = FakeTime()
        self.shown: list[tuple[str, str]] = []
        self.answer = _Answer(
            self.time.clock(), lambda who, text: self.shown.append((who, text)), offset_ms
        )

    def take(self, *events: dict[str, Any]) -> None:
        """Feed events, ten milliseconds apart."""
        for event in events:
            self.answer.take(event)
            self.time.now_s += 0.010


def _turn_events(item: str = "i1", audio_end_ms: int = 900) -> tuple[dict[str, Any], ...]:
    return (
        {"type": "input_audio_buffer.speech_started", "item_id": item},
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms},
        {"type": "input_audio_buffer.committed", "item_id": item},
        {"type": "response.created", "response": {}},
    )


def _transcribed(text: str, item: str = "i1") -> dict[str, Any]:
    return {"type": f"{TRANSCRIPTION}.completed", "item_id": item, "transcript": text}


def _done(status: str = "completed") -> dict[str, Any]:
    return {"type": "response.done", "response": {"status": status}}


def test_first_audio_counts_from_the_decision() -> None:
    """From `speech_stopped` to the first audio delta, both as the client saw them."""
    recorder = Recorder()
    started_s = recorder.time.now_s
    recorder.take(*_turn_events(), _audio_delta(100), _audio_delta(60), _transcribed("hi"), _done())
    turn = recorder.answer.turn(started_s)
    assert turn.first_audio_ms == pytest.approx(30)  # stopped, committed, created, audio
    assert turn.reply_at_ms == pytest.approx(40)
    assert turn.audio_ms == 160


def test_speech_end_is_a_place_in_this_turns_audio() -> None:
    """The server counts from the session's first sample, a turn from its own."""
    recorder = Recorder(offset_ms=5000)
    recorder.take(*_turn_events(audio_end_ms=6200))
    assert recorder.answer.turn(0.0).speech_end_ms == 1200


def test_silence_is_told_apart() -> None:
    """A server that heard nothing and one that fell silent are different troubles."""
    recorder = Recorder()
    recorder.answer.fail_for_silence()
    assert "heard no speech" in str(recorder.answer.error)
    recorder.take(*_turn_events())
    recorder.answer.fail_for_silence()
    assert "did not end" in str(recorder.answer.error)


@pytest.mark.parametrize("last", ["sent", "done", "transcript"])
def test_complete_only_when_everything_is_in(last: str) -> None:
    """A turn ends when all is sent, answered and transcribed, whichever comes last."""
    recorder = Recorder()
    recorder.take(*_turn_events())
    steps = {
        "sent": recorder.answer.all_sent,
        "done": lambda: recorder.take(_done()),
        "transcript": lambda: recorder.take(_transcribed("hi")),
    }
    for name in sorted(steps, key=lambda name: name == last):
        assert not recorder.answer.ended.is_set()
        steps[name]()
    assert recorder.answer.ended.is_set()
    assert recorder.answer.error is None


def test_a_reply_that_was_talked_over_is_replaced() -> None:
    """A pause in the middle: the cancelled reply does not count, its successor does."""
    recorder = Recorder()
    recorder.answer.all_sent()
    recorder.take(*_turn_events("i1"), _audio_delta(500), _transcribed("what is", "i1"))
    recorder.take(_done("cancelled"))
    assert not recorder.answer.ended.is_set()
    recorder.take(*_turn_events("i2"), _audio_delta(40), _transcribed("your name", "i2"), _done())
    assert recorder.answer.ended.is_set()
    turn = recorder.answer.turn(0.0)
    assert turn.transcript == "what is your name"
    assert turn.audio_ms == 40


def test_a_completed_reply_waits_for_speech_in_progress() -> None:
    """If the user goes on after a reply, the turn is not over."""
    recorder = Recorder()
    recorder.answer.all_sent()
    recorder.take(*_turn_events("i1"), _transcribed("one", "i1"))
    recorder.take({"type": "input_audio_buffer.speech_started", "item_id": "i2"}, _done())
    assert not recorder.answer.ended.is_set()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "error", "error": {"message": "no such voice"}}, "no such voice"),
        (
            {
                "type": "response.done",
                "response": {
                    "status": "failed",
                    "status_details": {"error": {"message": "engine lost"}},
                },
            },
            "engine lost",
        ),
        (_done("failed"), "the reply failed"),
    ],
)
def test_failures_are_told(event: dict[str, Any], message: str) -> None:
    """What the server reports ends the turn with its words."""
    recorder = Recorder()
    recorder.take(event)
    assert recorder.answer.ended.is_set()
    assert message in str(recorder.answer.error)


def test_text_replies_have_no_latency_to_audio() -> None:
    """A reply in text only is a reply; nothing is invented for its audio."""
    recorder = Recorder()
    recorder.take(*_turn_events(), {"type": "response.output_text.delta", "delta": "hello"})
    turn = recorder.answer.turn(0.0)
    assert (turn.reply, turn.first_audio_ms, turn.audio_ms) == ("hello", None, 0)


@pytest.mark.usefixtures("no_tasks_left")
async def test_two_turns_of_one_conversation() -> None:
    """Audio arrives unchanged and in order; the next turn waits until the reply was heard."""
    server = FakeRealtime(
        [
            Scripted(300, "what is your name", "my name is parley", reply_ms=500),
            Scripted(900, "thank you", "you are welcome"),
        ]
    )
    shown: list[tuple[str, str]] = []
    async with (
        server.run() as url,
        open_conversation(
            url,
            voice="marin",
            key="secret",
            show=lambda who, text: shown.append((who, text)),
            clock=FakeTime().clock(),
        ) as conversation,
    ):
        first = await conversation.say(_tone(310))
        sent_ms = _sent_ms(conversation)
        second = await conversation.say(_tone(100))
    assert first.transcript == "what is your name"
    assert first.reply == "my name is parley"
    assert first.pcm == pytest.approx(np.full(12_000, 0.25))
    assert (second.transcript, second.reply) == ("thank you", "you are welcome")
    assert shown[0] == ("user", "what is your name")
    # 310 ms of speech fill 16 chunks of 20 ms, the last completed with silence.
    assert np.all(server.heard[: 310 * 24] > 0.4)
    assert np.all(server.heard[310 * 24 : 320 * 24] == 0)
    # The second turn's speech: silence before it for as long as the first reply was heard.
    again = np.flatnonzero(server.heard[320 * 24 :] > 0.4)
    assert again[0] / 24 + 320 >= sent_ms
    assert again[0] / 24 >= 500 - 100
    assert server.updates[0]["audio"]["output"]["voice"] == "marin"
    assert server.headers["Authorization"] == "Bearer secret"
    assert server.paths == ["/v1/realtime?model=starter"]


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_reply_cut_short_is_not_waited_for() -> None:
    """The server hears how much was heard, tells which words that were, and the talk goes on."""
    server = FakeRealtime(
        [Scripted(300, "count", "one two three four", reply_ms=3000), Scripted(900, "stop", "ok")]
    )
    async with (
        server.run() as url,
        open_conversation(url, clock=FakeTime().clock()) as conversation,
    ):
        counted = await conversation.say(_tone(310))
        cut = await conversation.truncate(counted, 250)
        assert cut == Truncation("reply_0", 250, "one two")
        stopped = await conversation.say(_tone(100))
        assert await conversation.truncate(stopped, stopped.audio_ms) is None
    event = {"item_id": "reply_0", "content_index": 0, "audio_end_ms": 250}
    assert server.truncations == [{"type": "conversation.item.truncate", **event}]
    # The second turn's speech comes when 250 ms of the reply were heard, not all 3000.
    again = np.flatnonzero(server.heard[320 * 24 :] > 0.4)
    assert again[0] / 24 <= 300


def _sent_ms(conversation: Conversation) -> int:
    return conversation._num_sent_chunks * 20


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_server_that_goes_away_is_an_error() -> None:
    """A connection that closes in a turn ends it with the server's reason."""
    server = FakeRealtime([Scripted(200, "hi", "hello")], close_after_turns=1)
    async with (
        server.run() as url,
        open_conversation(url, clock=FakeTime().clock()) as conversation,
    ):
        await conversation.say(_tone(200))
        with pytest.raises(TalkError, match=r"1011.*broken"):
            await conversation.say(_tone(200))


async def test_a_refused_session_is_an_error() -> None:
    """An error instead of `session.updated` names what the server said."""
    server = FakeRealtime([], refuse_update="Unknown voice 'hal'.")
    async with server.run() as url:
        with pytest.raises(TalkError, match="Unknown voice 'hal'"):
            async with open_conversation(url, voice="hal"):
                pass


async def test_nobody_there_is_an_error() -> None:
    """A port without a server is named in one line."""
    with pytest.raises(TalkError, match=r"cannot connect to ws://127\.0\.0\.1:1"):
        async with open_conversation("ws://127.0.0.1:1"):
            pass


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost:8000", "ws://localhost:8000/v1/realtime?model=starter"),
        ("ws://localhost:8000/", "ws://localhost:8000/v1/realtime?model=starter"),
        ("http://h:1/v1/realtime", "ws://h:1/v1/realtime?model=starter"),
        ("https://h/x?model=m", "wss://h/x?model=m"),
        ("wss://h/v1/realtime?model=m&a=b", "wss://h/v1/realtime?model=m&a=b"),
    ],
)
def test_addresses_are_completed(written: str, meant: str) -> None:
    """Scheme, path and model may be left out; what is given stays."""
    assert realtime_url(written) == meant
