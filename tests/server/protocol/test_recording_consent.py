"""Consent to a recording is one field of a session, in both shapes, which nobody sees unasked."""

from dataclasses import replace

import pytest

from server.errors import ClientError
from server.protocol.dialects.beta_session import read_session, session_json
from server.protocol.settings.config import SessionConfig
from server.protocol.settings.update import updated
from tests.server.protocol.transcripts import VOICES

OFFERED = SessionConfig("sess_1", "m", "alloy", 0, recording="offered")


def given(config: SessionConfig, value: object, kind: str = "realtime") -> SessionConfig:
    """Return the configuration after an update of the field."""
    patch = {"type": kind, "recording": value}
    return updated(config, patch, VOICES, is_voice_locked=False)


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_consent_is_said_back_once_it_was_given(kind: str) -> None:
    """Also after it was taken back: the client sees that it was understood."""
    config = replace(OFFERED, kind=kind)  # type: ignore[arg-type]  # both kinds
    assert "recording" not in config.to_json()
    config = given(config, {"consent": True}, kind)
    assert (config.is_recorded, config.to_json()["recording"]) == (True, {"consent": True})
    config = given(config, {"consent": False}, kind)
    assert (config.is_recorded, config.to_json()["recording"]) == (False, {"consent": False})


def test_beta_has_it_too() -> None:
    """Under the same name."""
    patch = read_session({"recording": {"consent": True}, "voice": "alloy"})
    config = updated(OFFERED, patch, VOICES, is_voice_locked=False)
    assert session_json(config)["recording"] == {"consent": True}
    assert "recording" not in session_json(OFFERED)


def test_consent_to_nothing_is_refused_and_no_consent_is_not() -> None:
    """Of a server that makes no recordings."""
    config = replace(OFFERED, recording=None)
    with pytest.raises(ClientError) as error:
        given(config, {"consent": True})
    assert error.value.code == "recording_not_offered"
    assert given(config, {"consent": False}) == config


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (None, "session.recording"),
        ({}, "session.recording.consent"),
        ({"consent": 1}, "session.recording.consent"),
        ({"consent": True, "until": 5}, "session.recording.until"),
    ],
)
def test_what_is_no_consent_is_refused(value: object, param: str) -> None:
    """With the path of what is wrong."""
    with pytest.raises(ClientError) as error:
        given(OFFERED, value)
    assert error.value.param == param
