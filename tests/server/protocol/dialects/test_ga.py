"""The GA dialect: the internal vocabulary, without what it has for beta alone."""

from server.protocol.dialects.ga import GaDialect
from tests.server.protocol.harness import ConfigWire


def test_ga_has_no_temperature() -> None:
    """In a response unknown keys are let go; in a session they are refused."""
    raw = {"type": "response.create", "response": {"temperature": 9, "instructions": "x"}}
    assert GaDialect().read(raw)["response"] == {"instructions": "x"}
    error = ConfigWire(GaDialect()).update({"type": "realtime", "temperature": 0.8})["error"]
    assert error["message"] == (
        "Unknown parameter: 'session.temperature'. It belongs to the beta API, and this connection "
        "speaks GA, which has no such setting."
    )


def test_a_mixed_shape_is_told_where_the_setting_is() -> None:
    """The words begin as the API's do, and go on with what was meant."""
    error = ConfigWire(GaDialect()).update({"type": "realtime", "voice": "echo"})["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "session.voice")
    assert error["message"] == (
        "Unknown parameter: 'session.voice'. It belongs to the beta API, and this connection "
        "speaks GA: use 'session.audio.output.voice'."
    )
