"""A model that speaks all the time, whose words are checked."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.messages import (
    Cancel,
    EngineInfo,
    Respond,
    ResponseAudio,
    ResponseText,
    ResponseWord,
    Truncate,
    Usage,
)
from model.messages import ResponseDone as EngineResponseDone
from server.protocol.events import Reaction
from server.protocol.filters.verdicts import CheckWords, FilterPlan, Verdict
from server.protocol.machine import Limits, SessionMachine
from server.protocol.server_events import OutputAudioDelta, ResponseCreated, ResponseDone
from server.protocol.settings.config import SessionConfig
from tests.server.fakes import CountingIds, PlainEars
from tests.server.protocol.transcripts import VOICES

RATE_HZ = 16_000
FRAME = 1_280


class _Model:
    """A machine whose model speaks a word and a frame at a time."""

    def __init__(self) -> None:
        config = SessionConfig(id="sess_1", model="m", voice="alloy", expires_at=0)
        self.machine = SessionMachine(
            config,
            EngineInfo("m", RATE_HZ, 80, (), 1, is_duplex=True),
            VOICES,
            CountingIds(),
            Limits(filters=FilterPlan(says=True)),
            PlainEars(),
        )
        self.turn = 0
        self.told: list[Reaction] = []
        self.asked: list[CheckWords] = []
        self._take(self.machine.start())

    def say(self, word: str) -> None:
        """Say a word, and the frame in which it is heard."""
        self.give(ResponseText("sess_1", self.turn, f" {word}"))
        self.give(ResponseWord("sess_1", self.turn, word, 0))
        self.give(ResponseAudio("sess_1", self.turn, np.ones(FRAME, np.float32)))

    def give(self, event: Any) -> None:
        """Let something happen."""
        self._take(self.machine.receive(event, 1.0))

    def _take(self, reactions: list[Reaction]) -> None:
        for reaction in reactions:
            if isinstance(reaction, Respond):
                self.turn = reaction.turn
            if isinstance(reaction, CheckWords):
                self.asked.append(reaction)
        self.told += reactions

    def count(self, kind: type) -> int:
        """Count what was told of a kind."""
        return sum(isinstance(each, kind) for each in self.told)


def test_a_word_is_heard_after_it_was_checked() -> None:
    """A hit cuts the model within its sentence; what it says next is another response."""
    model = _Model()
    model.say("hello")
    assert model.count(ResponseCreated) == model.count(OutputAudioDelta) == 0
    model.give(Verdict(1, " hello"))
    assert model.count(OutputAudioDelta) == 1
    model.say("bomb")
    assert model.asked[-1] == CheckWords(2, "spoken", " hello bomb", 6)
    before = model.turn
    model.give(Verdict(2, None))
    assert model.count(OutputAudioDelta) <= 2, "at most the encoder's tail of what had passed"
    (done,) = (each for each in model.told if isinstance(each, ResponseDone))
    assert done.response.status == "incomplete"
    assert done.response.status_details == {"type": "incomplete", "reason": "content_filter"}
    assert model.count(Cancel) == model.count(Truncate) == 1
    assert model.turn == before + 1, "what it says next is asked for"
    model.say("again")
    model.give(Verdict(3, " again"))
    assert model.count(ResponseCreated) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["say", "pass", "refuse", "done"]), max_size=30))
def test_every_response_has_one_end(acts: list[str]) -> None:
    """In whatever order words, verdicts and ends come."""
    model = _Model()
    num_answered = 0
    for act in [*acts, "done", *["pass"] * 40]:
        if act == "say":
            model.say("word")
        elif act == "done":
            model.give(EngineResponseDone("sess_1", model.turn, "completed", Usage()))
        elif num_answered < len(model.asked):
            asked = model.asked[num_answered]
            num_answered += 1
            words = asked.text[asked.start :] if act == "pass" else None
            model.give(Verdict(asked.key, words))
    assert model.count(ResponseCreated) == model.count(ResponseDone)
