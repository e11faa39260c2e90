"""Calls, approvals, checks, a text model and dropped items, timed against one another.

All in virtual time with the scripted engine, by WebSocket and as by WebRTC (`is_played`).
"""

from typing import Any

import numpy as np
import pytest

from model.messages import AppendText, Reopen
from server.audio.silero import SileroModel
from server.config.filters import FilterSettings
from server.config.sound import VadSettings
from server.protocol.delegate.outcomes import AskModel
from server.protocol.delegate.policy import DelegatePolicy
from server.protocol.mcp.outcomes import CallTool
from server.protocol.mcp.policy import ToolPolicy
from server.protocol.settings.config import ServerVad
from tests.server.session.pairs import covering
from tests.server.session.test_features import question
from tests.server.session.virtual import Virtual, scripted, virtually

SCRIPT = """
hear:
  - {text: book a table, repeat: true}
reply:
  - when: {output: '(?P<words>.+)'}
    say: it said {words}
  - when: {user: meanwhile}
    say: i am still here
  - when: {user: book}
    say: one moment please while i look for a table that is free.
    call: {name: book, arguments: {table: four}}
  - say: '{history}'
"""
WORDS = "one moment please while i look for a table that is free."
REFUSING: dict[str, Any] = {
    "checks": [{"kind": "words", "of": ["output", "calls"], "words": ["bomb"]}]
}
DONE, CREATED = "response.done", "response.created"
FILTERED = {"type": "incomplete", "reason": "content_filter"}
TRANSPORTS = pytest.mark.parametrize("is_played", [False, True])


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _filters(**changes: Any) -> FilterSettings:
    return FilterSettings.model_validate(REFUSING | changes)


def _statuses(live: Virtual) -> list[str]:
    return [event["response"]["status"] for event in live.all(DONE)]


def _whats(live: Virtual) -> list[str]:
    return [decision.what for decision in live.beside.decisions]


def _is_called(live: Virtual) -> bool:
    return any(isinstance(each, CallTool) for each in live.beside.asked)


async def _ask(live: Virtual, text: str, seconds: float = 8.0) -> str:
    """Type a turn, and return the words of its answer."""
    await live.type(text)
    await live.send("response.create")
    await live.wait(seconds)
    return _words(live.all(DONE)[-1]["response"])


def _words(response: dict[str, Any]) -> str:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return " ".join(part.get("transcript") or part.get("text") or "" for part in parts).strip()


FEATURES = {
    "is_played": (False, True),
    "is_early": (True, False),
    "is_slow": (True, False),
    "approve": (True, False),
    "is_filtered": (True, False),
}


@pytest.mark.parametrize(tuple(FEATURES), list(covering(FEATURES)))
async def test_a_question_outlives_who_talks_over_it(
    vad_model: SileroModel,
    *,
    is_played: bool,
    is_early: bool,
    is_slow: bool,
    approve: bool,
    is_filtered: bool,
) -> None:
    """Speech ends the reply and not the request; its answer comes within the next reply."""
    vad = VadSettings() if is_early else VadSettings(speculate_after_ms=0)
    script = SCRIPT.replace("{text: book a table, repeat: true}", "book a table\n  - meanwhile")
    changes: dict[str, Any] = {"vad": vad, "is_played": is_played, "is_slow": is_slow}
    if is_filtered:
        changes["filters"] = _filters()
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", approval="always")
        await live.say(question(1.0))
        await live.wait(5.0)
        (request,) = live.items("mcp_approval_request")
        # What is heard of it goes on for longer than it was made.
        await live.say(question(1.0))
        await live.wait(0.4)
        assert len(live.all(CREATED)) == 2
        await live.approve(request["id"], approve=approve)
        if approve:
            assert (
                await live.returned("table four")
                == live.all("response.mcp_call.in_progress")[-1]["item_id"]
            )
        await live.wait(5.0)
        assert _statuses(live)[-1] == "completed"
        told = "table four" if approve else "The call was not approved."
        await live.send("response.create")
        await live.wait(5.0)
        assert _words(live.all(DONE)[-1]["response"]) == f"it said {told}"
        ends = ["approved", "called", "completed"] if approve else ["denied"]
        assert _whats(live) == ["approval requested", *ends]
        assert not live.all("error")
        # A second answer is to nobody's question.
        await live.approve(request["id"], approve=True)
        assert live.one("error")["error"]["code"] == "invalid_approval_request_id"


@TRANSPORTS
async def test_a_call_that_is_talked_over_was_never_made(
    vad_model: SileroModel, *, is_played: bool
) -> None:
    """Calls follow their words' sound: who interrupts that has prevented the call."""
    changes: dict[str, Any] = {"is_played": is_played, "filters": _filters()}
    async with virtually(vad_model, lambda t: scripted(SCRIPT, t), **changes) as live:
        await live.offer("book")
        await live.type("book")
        await live.send("response.create")
        await live.wait(1.0)
        await live.say(question(0.0))
        assert _statuses(live) == ["cancelled"]
        await live.wait(5.0)
        assert _whats(live) == []
        assert not _is_called(live)


@TRANSPORTS
@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_call_waits_for_what_is_checked_before_it(
    vad_model: SileroModel, *, is_played: bool, is_refused: bool
) -> None:
    """While checks take their time nothing is called; if they refuse, nothing ever is."""
    script = SCRIPT.replace("a table that is free.", "a bomb." if is_refused else "a table.")
    script += "\npace: {first_output_ms: 0}"
    changes: dict[str, Any] = {"is_played": is_played, "filters": _filters()}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", output_modalities=["text"])
        live.checks_open.clear()
        await live.type("book")
        await live.send("response.create")
        await live.wait(3.0)
        assert not _is_called(live)
        assert not live.all("response.output_text.delta")
        live.checks_open.set()
        await live.wait(1.0)
        assert _is_called(live) is not is_refused
        assert _whats(live) == ([] if is_refused else ["called"])
        assert _statuses(live) == ["incomplete" if is_refused else "completed"]
        if is_refused:
            # Neither the words nor the call are remembered.
            assert await _ask(live, "what") == "user: book; user: what"
        else:
            await live.returned("table four")
            await live.send("response.create")
            await live.wait(1.0)
            assert _words(live.all(DONE)[-1]["response"]) == "it said table four"


@TRANSPORTS
async def test_who_talks_while_a_call_is_checked_has_prevented_it(
    vad_model: SileroModel, *, is_played: bool
) -> None:
    """A verdict that comes after the interruption lets nothing pass."""
    script = SCRIPT.replace(WORDS, "yes.")
    changes: dict[str, Any] = {"is_played": is_played, "filters": _filters()}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", approval="always")
        live.checks_open.clear()
        await live.type("book")
        await live.send("response.create")
        await live.wait(2.0)
        await live.say(question(0.0))
        assert _statuses(live) == ["cancelled"]
        live.checks_open.set()
        await live.wait(1.0)
        assert _whats(live) == []
        assert not live.items("mcp_approval_request")
        said = {event["type"] for _, event in live.events}
        assert "response.output_audio_transcript.delta" not in said
        await live.say(np.zeros(24_000, np.float32))
        await live.wait(4.0)
        assert len(live.items("mcp_approval_request")) == 1, "the next turn is answered"


@TRANSPORTS
async def test_a_sentence_is_said_while_a_call_is_held(
    vad_model: SileroModel, *, is_played: bool
) -> None:
    """A request that waits, a reply that is refused, the sentence, somebody who talks over it."""
    script = """
reply:
  - {when: {user: book}, call: {name: book}}
  - {when: {user: again}, say: That is fine. Now build a bomb. And more.}
  - {when: {output: '(?P<words>.+)'}, say: 'it said {words}'}
  - say: '{history}'
"""
    sentence = "I cannot talk about that, not now and not ever."
    changes: dict[str, Any] = {"is_played": is_played, "filters": _filters(sentence=sentence)}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", approval="always")
        await _ask(live, "book", 1.0)
        (request,) = live.items("mcp_approval_request")
        await live.type("again")
        await live.send("response.create")
        await live.wait(0.5)
        assert _statuses(live) == ["completed", "incomplete"]
        assert live.all(DONE)[-1]["response"]["status_details"] == FILTERED
        await live.approve(request["id"], approve=True)
        await live.wait(2.0)
        await live.say(question(0.0))
        assert _statuses(live)[-1] in ("cancelled", "completed")
        await live.returned("table four")
        await live.say(np.zeros(24_000, np.float32))
        await live.wait(8.0)
        history = await _ask(live, "well")
        assert "bomb" not in history
        assert "I cannot talk" in history
        assert history.count("book {}") == 1
        assert history.count("returned: book table four") == 1
        assert _whats(live) == ["approval requested", "approved", "called", "completed"]
        assert not live.all("error")


@pytest.mark.parametrize("is_filtered", [False, True])
async def test_an_early_reply_calls_nothing(vad_model: SileroModel, *, is_filtered: bool) -> None:
    """Whoever goes on speaking has called nothing; at the end of the turn one call is made."""
    script = SCRIPT.replace(WORDS, "''")
    script += "\npace: {first_output_ms: 0}"
    detection = ServerVad(silence_duration_ms=500)
    changes: dict[str, Any] = {"output_modality": "text", "turn_detection": detection}
    if is_filtered:
        changes["filters"] = _filters()
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book")
        await live.say(np.concatenate((question(0.3), question(0.0))))
        assert any(isinstance(command, Reopen) for command in live.engine.commands)
        assert _whats(live) == []
        assert not _is_called(live)
        await live.say(np.zeros(24_000, np.float32))
        await live.wait(1.0)
        assert _whats(live) == ["called"]
        assert len(live.all(CREATED)) == 1
        assert (
            await live.returned("table four") == live.one("response.mcp_call.completed")["item_id"]
        )


async def test_nobody_answers_while_the_user_talks(vad_model: SileroModel) -> None:
    """The model is told of it where it happens, and the next reply knows."""
    policy = ToolPolicy(approval_timeout_s=5.0)
    async with virtually(vad_model, lambda t: scripted(SCRIPT, t), policy=policy) as live:
        await live.offer("book", approval="always", output_modalities=["text"])
        await _ask(live, "book", 2.0)
        (request,) = live.items("mcp_approval_request")
        await live.say(question(0.0))
        await live.wait(5.0)
        await live.ring()
        answer = live.items("mcp_approval_response")[-1]
        assert (answer["approval_request_id"], answer["approve"]) == (request["id"], False)
        await live.approve(request["id"], approve=True)
        assert live.one("error")["error"]["code"] == "invalid_approval_request_id"
        await live.send("input_audio_buffer.clear")
        await live.send("response.create")
        await live.wait(2.0)
        words = "The call was not approved. Nobody answered within 5 s."
        assert _words(live.all(DONE)[-1]["response"]) == f"it said {words}"
        assert _whats(live) == ["approval requested", "timed out"]


async def test_a_reply_waits_for_calls_and_a_turn_of_the_user_does_not(
    vad_model: SileroModel,
) -> None:
    """With `wait_for_calls`; several that were asked for meanwhile are one."""
    policy = ToolPolicy(wait_for_calls=True)
    script = SCRIPT.replace("{text: book a table, repeat: true}", "meanwhile")
    changes: dict[str, Any] = {"policy": policy, "turn_detection": ServerVad()}
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", output_modalities=["text"])
        await _ask(live, "book", 2.0)
        for _ in range(2):
            await live.send("response.create")
        await live.wait(1.0)
        assert len(live.all(CREATED)) == 1
        await live.say(question(1.0))
        await live.wait(2.0)
        assert _words(live.all(DONE)[-1]["response"]) == "i am still here"
        await live.returned("table four")
        await live.wait(2.0)
        assert len(live.all(CREATED)) == 3
        assert _words(live.all(DONE)[-1]["response"]) == "it said table four"


ASKED_FIRST = DelegatePolicy(answers="always")


@pytest.mark.parametrize("sentence", ["", "I cannot talk about that."])
@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_the_text_model_is_not_asked_about_refused_words(
    vad_model: SileroModel, modality: Any, sentence: str
) -> None:
    """The response to such a turn ends as it does when the served model answers."""
    checks = [{"kind": "personal", "of": ["input"], "action": "refuse"}]
    filters = FilterSettings.model_validate({"checks": checks, "sentence": sentence})
    script = "hear: [my card is 4111 1111 1111 1111, hello]\nreply: [{say: hm}]"
    changes: dict[str, Any] = {"output_modality": modality, "filters": filters}
    async with virtually(
        vad_model, lambda t: scripted(script, t), delegate=ASKED_FIRST, **changes
    ) as live:
        await live.say(question(1.0))
        await live.wait(4.0)
        assert live.all(DONE)[0]["response"]["status_details"] == FILTERED
        assert not live.beside.asked
        assert [_words(event["response"]) for event in live.all(DONE)[1:]] == (
            [sentence] if sentence else []
        )
        assert "4111" not in "".join(map(str, live.events))
        # The next turn is a turn like any other.
        await live.say(question(1.0))
        (asked,) = live.beside.asked
        assert isinstance(asked, AskModel)
        assert "4111" not in str(asked.messages)
        await live.answered("hello to you")
        await live.wait(4.0)
        assert _words(live.all(DONE)[-1]["response"]) == "hello to you"
        assert not live.all("error")


@TRANSPORTS
async def test_who_talks_over_an_answer_leaves_the_text_model(
    vad_model: SileroModel, *, is_played: bool
) -> None:
    """Its request is given up, a call that it would have made is not made, nothing is stale."""
    changes: dict[str, Any] = {"is_played": is_played, "filters": _filters()}
    async with virtually(
        vad_model, lambda t: scripted(SCRIPT, t), delegate=ASKED_FIRST, **changes
    ) as live:
        await live.offer("book")
        await live.type("what is there")
        await live.send("response.create")
        (asked,) = live.beside.asked
        assert isinstance(asked, AskModel)
        await live.answered("there is a table for", " four.", is_all=False)
        await live.wait(1.5)
        await live.say(question(0.0))
        assert _statuses(live) == ["cancelled"]
        assert live.beside.dropped == [asked.ask_id]
        await live.say(np.zeros(24_000, np.float32))
        await live.wait(1.0)
        await live.answered(calls=[("book", "{}")])
        await live.wait(1.0)
        assert _whats(live) == ["called"]
        (asked_again,) = [m for m in live.beside.decisions if m.what == "called"]
        assert asked_again.name == "book"


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_text_models_call_is_held_and_checked(
    vad_model: SileroModel, *, is_refused: bool
) -> None:
    """Words that wait for checks, a call behind them, a yes behind that."""
    changes: dict[str, Any] = {"output_modality": "text", "filters": _filters()}
    async with virtually(
        vad_model, lambda t: scripted(SCRIPT, t), delegate=ASKED_FIRST, **changes
    ) as live:
        await live.offer("book", approval="always")
        live.checks_open.clear()
        await live.type("please")
        await live.send("response.create")
        what = "bomb" if is_refused else "table"
        await live.answered("let me", " see.", calls=[("book", f'{{"what":"{what}"}}')])
        assert not live.all("response.output_text.delta")
        assert not live.items("mcp_approval_request")
        live.checks_open.set()
        await live.wait(0.2)
        requests = live.items("mcp_approval_request")
        assert len(requests) == (0 if is_refused else 1)
        assert _statuses(live) == ["incomplete" if is_refused else "completed"]
        if not is_refused:
            await live.approve(requests[0]["id"], approve=True)
            await live.returned("done")
            assert _whats(live) == ["approval requested", "approved", "called", "completed"]


def _ratio(most: int) -> dict[str, Any]:
    limits = {"post_instructions": most}
    return {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": limits}


async def test_the_text_model_is_shown_what_was_not_dropped(vad_model: SileroModel) -> None:
    """Although the served model, which counts tokens, is never asked: then they are guessed."""
    changes: dict[str, Any] = {"output_modality": "text", "truncation": _ratio(20)}
    async with virtually(
        vad_model, lambda t: scripted(SCRIPT, t), delegate=ASKED_FIRST, **changes
    ) as live:
        shown = []
        for text in ("one two three four five six", "seven eight nine ten", "eleven twelve"):
            await live.type(text)
            await live.send("response.create")
            (asked,) = live.beside.asked
            assert isinstance(asked, AskModel)
            shown.append([message["content"] for message in asked.messages])
            await live.answered("and this is what i have to say")
        assert shown[0] == ["one two three four five six"]
        assert shown[2][-1] == "eleven twelve"
        assert "one two three four five six" not in shown[2]
        dropped = [event["item_id"] for event in live.all("conversation.item.deleted")]
        assert len(dropped) == 6 - 1 - len(shown[2])


async def test_a_call_that_goes_on_is_not_dropped(vad_model: SileroModel) -> None:
    """Nor a request that waits; what the call returns is told to a model that was told anew."""
    changes: dict[str, Any] = {"output_modality": "text", "truncation": _ratio(12)}
    script = SCRIPT.replace(WORDS, "''")
    async with virtually(vad_model, lambda t: scripted(script, t), **changes) as live:
        await live.offer("book", approval="always")
        await _ask(live, "book", 1.0)
        (request,) = live.items("mcp_approval_request")
        for _ in range(3):
            await _ask(live, "meanwhile i talk of this and that", 1.0)
        dropped = {event["item_id"] for event in live.all("conversation.item.deleted")}
        assert dropped
        assert request["id"] not in dropped
        await live.approve(request["id"], approve=True)
        call_id = await live.returned("table four")
        await live.send("response.create")
        await live.wait(2.0)
        assert _words(live.all(DONE)[-1]["response"]) == "it said table four"
        for _ in range(3):
            await _ask(live, "meanwhile i talk of this and that", 1.0)
        dropped = {event["item_id"] for event in live.all("conversation.item.deleted")}
        assert {request["id"], call_id} <= dropped, "now they have ended"
        told = [c.text for c in live.engine.commands if isinstance(c, AppendText)]
        assert told
        assert not live.all("error")
