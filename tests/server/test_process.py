"""The server takes as many descriptors as it may have."""

import resource

import pytest

from server.process import raise_descriptor_limit


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """Shells start programs with 1,024, which is no more than the connections that may wait."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_descriptor_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_system_that_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have a hard limit that is none; then the soft one stays."""

    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError(kind, limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, -1))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256
