"""A client that did not say which shape it speaks shows it by its first update."""

from typing import Any

import pytest

from server.protocol.dialects.beta import BetaDialect, GuessingDialect
from server.protocol.dialects.ga import GaDialect
from server.protocol.items.items import AudioPart, Message
from server.protocol.server_events import FunctionCallArgumentsDone, ItemRetrieved
from tests.server.protocol.harness import ConfigWire


@pytest.mark.parametrize(
    "first",
    [
        {"voice": "echo"},
        {"modalities": ["text"]},
        {"input_audio_format": "g711_ulaw"},
        {"output_audio_format": "g711_alaw"},
        {"turn_detection": None},
        {"max_response_output_tokens": 9, "instructions": "x"},
    ],
)
def test_a_flat_first_update_without_a_type_is_beta(first: dict[str, Any]) -> None:
    """From then on everything is written in that shape; what was before was GA."""
    dialect = GuessingDialect()
    assert "audio" in ConfigWire(dialect).created()["session"]
    session = ConfigWire(dialect, is_beta=True).update(first)["session"]
    assert "audio" not in session
    assert first.items() <= session.items()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"instructions": "x"}, "missing_required_parameter"),
        ({"type": "realtime", "voice": "echo"}, "unknown_parameter"),
    ],
)
def test_any_other_first_update_is_ga(first: dict[str, Any], code: str) -> None:
    """And it stays so: the second update is not guessed at."""
    wire = ConfigWire(GuessingDialect())
    assert wire.update(first)["error"]["code"] == code
    assert wire.update({"voice": "echo"})["error"]["param"] == "session.type"
    assert "audio" in wire.update({"type": "realtime"})["session"]


def test_beta_names_its_transcription_update() -> None:
    """The event exists in beta alone."""
    wire = ConfigWire(GuessingDialect(), is_beta=True, kind="transcription")
    answer = wire.update({"input_audio_format": "g711_ulaw"}, "transcription_session.update")
    assert answer["type"] == "transcription_session.updated"


def test_a_response_is_read_flat() -> None:
    """Its overrides move to where GA has them, and items may leave out that they are messages."""
    raw = {
        "type": "response.create",
        "response": {
            "modalities": ["text"],
            "voice": "echo",
            "output_audio_format": "g711_ulaw",
            "temperature": 0.9,
            "input": [{"role": "user", "content": []}, {"type": "item_reference", "id": "i"}],
            "metadata": {"a": "b"},
        },
    }
    assert BetaDialect().read(raw)["response"] == {
        "output_modalities": ["text"],
        "audio": {"output": {"voice": "echo", "format": {"type": "audio/pcmu"}}},
        "temperature": 0.9,
        "input": [
            {"type": "message", "role": "user", "content": []},
            {"type": "item_reference", "id": "i"},
        ],
        "metadata": {"a": "b"},
    }


def test_what_only_ga_says_is_left_out() -> None:
    """The format of a retrieved item's audio; a call's name is beside its arguments in both."""
    done = FunctionCallArgumentsDone("r", "i", 0, "c", "f", "{}")
    part = AudioPart("input_audio", "hi", 10, recording="AAAA")
    retrieved = ItemRetrieved(Message("i", "user", "completed", (part,)))
    for dialect, has_it in ((GaDialect(), True), (BetaDialect(), False)):
        arguments = dialect.write(done, "e")
        assert arguments is not None
        assert arguments["name"] == "f"
        item = dialect.write(retrieved, "e")
        assert item is not None
        (content,) = item["item"]["content"]
        assert content["audio"] == "AAAA"
        assert ("format" in content) is has_it
