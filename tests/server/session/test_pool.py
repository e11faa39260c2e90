"""Sessions go to the freest engine, and to another one when theirs is lost."""

import contextlib

import pytest

from model.errors import EngineError
from model.messages import (
    Close,
    EngineBack,
    EngineGone,
    EngineLost,
    EngineSilent,
    News,
    Open,
    Output,
)
from server.errors import OverloadedError
from server.session.link import LinkState
from server.session.pool import EnginePool
from tests.server.fakes import INFO, EchoEngine

LOST = EngineLost("it died")
_Took = dict[str, list[Output | News]]


async def _pool(num_engines: int = 2) -> tuple[EnginePool, list[EchoEngine]]:
    engines = [EchoEngine() for _ in range(num_engines)]
    pool = EnginePool(engines)
    await pool.start()
    return pool, engines


def _joined(pool: EnginePool, *session_ids: str) -> _Took:
    """Seat sessions, one after the other, and open them as they do."""
    took: _Took = {}
    for session_id in session_ids:
        took[session_id] = []
        pool.join(session_id, took[session_id].append)
        pool.submit(Open(session_id, "amber"))
    return took


def _sessions(pool: EnginePool) -> list[int]:
    return [link.num_sessions for link in pool.links]


async def test_sessions_go_to_the_freest() -> None:
    """Places that are kept for connections count, and what is beside a conversation."""
    pool, engines = await _pool()
    with pool.place():
        _joined(pool, "a")
        assert _sessions(pool) == [0, 1]
    pool.submit(Open("a/resp_1", "amber"))
    _joined(pool, "b", "c")
    assert _sessions(pool) == [2, 1]
    assert [engine.num_open for engine in engines] == [2, 2]
    with (
        pytest.raises(OverloadedError, match=f"all {2 * INFO.max_sessions} sessions"),
        pool.place(),
    ):
        pass
    pool.leave("b")
    with pool.place(), contextlib.suppress(OverloadedError), pool.place():
        pytest.fail("the place is taken twice")
    pool.leave("a")
    pool.leave("c")
    await pool.stop()
    assert [engine.num_open for engine in engines] == [0, 0]


async def test_one_that_says_nothing_gets_nobody_new() -> None:
    """It may hang; the other takes all."""
    pool, _ = await _pool()
    pool.links[0]._hand_over(EngineSilent())
    assert pool.state is LinkState.READY
    _joined(pool, "a", "b")
    assert _sessions(pool) == [0, 2]
    with pytest.raises(OverloadedError), pool.place():
        pass
    pool.leave("a")
    pool.leave("b")
    await pool.stop()


async def test_sessions_of_a_lost_engine_go_to_the_other() -> None:
    """As many as have room; the rest wait for their own. Who sits elsewhere notices nothing."""
    pool, engines = await _pool()
    took = _joined(pool, "a", "b", "c")
    assert _sessions(pool) == [2, 1]
    pool.links[0]._hand_over(LOST)
    assert _sessions(pool) == [1, 2]
    assert took["a"] == [LOST, EngineBack()]
    assert took["c"] == [LOST]
    assert LOST not in took["b"]
    assert (pool.num_moves, pool.is_running) == (1, True)
    # What the moved one says reaches its new engine, and it leaves that.
    pool.submit(Open("a", "amber"))
    assert engines[1].num_open == 2
    pool.links[0]._hand_over(EngineBack())
    assert took["c"] == [LOST, EngineBack()]
    assert took["a"] == [LOST, EngineBack()], "it stays where it is"
    for session_id in took:
        pool.leave(session_id)
    await pool.stop()
    assert engines[1].commands.count(Close("a")) == 1
    assert engines[1].num_open == 0


async def test_who_may_have_been_the_cause_brings_down_no_other() -> None:
    """It waits for its own engine, though there is room elsewhere."""
    pool, _ = await _pool()
    took = _joined(pool, "a")
    pool.links[0]._hand_over(EngineLost("it died", suspect="a"))
    assert _sessions(pool) == [1, 0]
    pool.links[0]._hand_over(EngineBack())
    assert [type(news) for news in took["a"]] == [EngineLost, EngineBack]
    pool.leave("a")
    await pool.stop()


async def test_an_engine_that_is_given_up_leaves_its_last_to_the_others() -> None:
    """Whoever found no room before finds it now, or is told that it is over."""
    pool, _ = await _pool()
    took = _joined(pool, "a", "b", "c", "d")
    pool.links[0]._hand_over(LOST)
    pool.leave("b")
    pool.links[0]._hand_over(EngineGone("for good"))
    assert took["a"] == [LOST, EngineBack()]
    assert took["c"] == [LOST, EngineGone("for good")]
    assert pool.state is LinkState.READY
    pool.links[1]._hand_over(EngineGone("for good"))
    assert pool.state is LinkState.FAILED
    assert not pool.is_running
    for session_id in ("a", "c", "d"):
        pool.leave(session_id)
    await pool.stop()


async def test_one_engine_has_nobody_to_give_its_sessions_to() -> None:
    """They wait for it, as ever."""
    pool, _ = await _pool(1)
    took = _joined(pool, "a")
    pool.links[0]._hand_over(LOST)
    assert took["a"] == [LOST]
    assert pool.state is LinkState.RESTARTING
    pool.links[0]._hand_over(EngineBack())
    assert took["a"] == [LOST, EngineBack()]
    pool.leave("a")
    pool.submit(Close("a"))  # whoever has left says nothing any more
    await pool.stop()


async def test_a_start_that_fails_is_told_when_all_have_come_to_an_end() -> None:
    """And the others can be stopped."""

    class Broken(EchoEngine):
        def start(self, deliver: object) -> None:
            del deliver
            raise EngineError("no driver")

        def stop(self) -> None:
            pass

    sound = EchoEngine()
    pool = EnginePool([Broken(), sound])
    with pytest.raises(EngineError, match="no driver"):
        await pool.start()
    assert pool.links[1].is_running
    await pool.stop()
