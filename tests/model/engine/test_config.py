"""Settings of the engine."""

from __future__ import annotations

import pytest

from model.engine.config import EngineConfig
from model.errors import ConfigError


@pytest.mark.parametrize("field", ["max_sessions", "max_batch", "ahead_ms", "num_threads"])
def test_settings_that_cannot_work_are_refused(field: str) -> None:
    """Every count is at least one, and the message names the field."""
    with pytest.raises(ConfigError, match=field):
        EngineConfig(**{field: 0})  # type: ignore[arg-type]  # these fields are numbers


def test_horizon_may_be_nothing_but_not_less() -> None:
    """With no horizon only equal deadlines share a tick; a negative one means nothing."""
    assert EngineConfig(horizon_ms=0).horizon_ms == 0
    with pytest.raises(ConfigError, match="horizon_ms"):
        EngineConfig(horizon_ms=-1)


def test_no_beginnings_need_to_be_remembered() -> None:
    """None is a number of them, less than none is not."""
    assert EngineConfig(cached_prompts=0).cached_prompts == 0
    with pytest.raises(ConfigError, match="cached_prompts"):
        EngineConfig(cached_prompts=-1)
