"""News of the engine reach everybody, readiness follows them; and who has a place in it."""

import contextlib

import pytest

from model.messages import (
    Close,
    EngineBack,
    EngineGone,
    EngineHeard,
    EngineLost,
    EngineSilent,
    News,
    Open,
    Output,
    SessionFailed,
)
from server.errors import OverloadedError
from server.session.link import EngineLink, LinkState
from tests.server.fakes import INFO, EchoEngine

LOST = EngineLost("it died")


async def test_readiness_follows_the_engine() -> None:
    """Nobody is let in before the start, while the engine is away, or after the end."""
    link = EngineLink(EchoEngine())
    seen = [link.state]
    await link.start()
    seen.append(link.state)
    for news in (LOST, EngineBack(), LOST, EngineGone("for good")):
        link._hand_over(news)
        seen.append(link.state)
        assert link.is_running == (link.state is LinkState.READY)
    await link.stop()
    assert [*seen, link.state] == [
        LinkState.STARTING,
        LinkState.READY,
        LinkState.RESTARTING,
        LinkState.READY,
        LinkState.RESTARTING,
        LinkState.FAILED,
        LinkState.STOPPED,
    ]
    assert (link.num_losses, link.num_restarts) == (2, 1)


async def test_news_are_for_all_and_outputs_for_one() -> None:
    """A session's outputs come to it alone, those of its asides included."""
    engine = EchoEngine()
    link = EngineLink(engine)
    await link.start()
    taken: dict[str, list[Output | News]] = {"a": [], "b": []}
    for session_id, outputs in taken.items():
        link.join(session_id, outputs.append)
    failed = SessionFailed("a/resp_1", "lost")
    for each in (failed, LOST):
        link._hand_over(each)
    assert taken == {"a": [failed, LOST], "b": [LOST]}
    link.leave("a")
    link.leave("b")
    await link.stop()


async def test_slots_that_nobody_knows_of_are_given_back() -> None:
    """What was opened in the new engine before its sessions knew of the loss is closed again."""
    engine = EchoEngine()
    link = EngineLink(engine)
    await link.start()
    link.join("a", lambda _: None)
    link.submit(Open("a/resp_1", "amber"))
    assert engine.num_open == 1
    link._hand_over(LOST)
    link._hand_over(EngineBack())
    assert engine.num_open == 0
    link.leave("a")
    await link.stop()
    assert engine.commands.count(Close("a/resp_1")) == 1


def _num_free(link: EngineLink) -> int:
    """Count the places by taking them all."""
    with contextlib.ExitStack() as stack:
        for number in range(INFO.max_sessions + 1):
            try:
                stack.enter_context(link.place())
            except OverloadedError:
                return number
    raise AssertionError("more places than the engine has")


def test_everything_in_the_engine_takes_a_place() -> None:
    """Sessions, responses beside them, and whoever is being let in; each gives it back."""
    link = EngineLink(EchoEngine())
    assert _num_free(link) == INFO.max_sessions == 2
    with link.place():
        assert _num_free(link) == 1
    link.join("a", lambda _: None)
    assert _num_free(link) == 1
    link.submit(Open("a/1", "amber"))
    assert _num_free(link) == 0
    with pytest.raises(OverloadedError, match="all 2 sessions"), link.place():
        pass
    link.submit(Close("a/1"))
    assert _num_free(link) == 1
    link.leave("a")
    assert _num_free(link) == 2


async def test_nobody_new_is_sent_to_an_engine_that_may_hang() -> None:
    """Readiness follows; those who are in can do nothing about it and are not told."""
    link = EngineLink(EchoEngine())
    await link.start()
    told: list[Output | News] = []
    link.join("a", told.append)
    link._hand_over(EngineSilent())
    assert (link.state, link.is_running) == (LinkState.SILENT, False)
    link._hand_over(EngineHeard())
    assert link.is_running
    assert told == []
    link.leave("a")
    await link.stop()
