"""The link to the engine: who has a place in it."""

import contextlib

import pytest

from model.engine.messages import Close, Open
from server.errors import OverloadedError
from server.session.link import EngineLink
from tests.server.fakes import INFO, EchoEngine


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
