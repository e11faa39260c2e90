"""`parley talk` keeps the replies and tells of them on a screen or as JSON lines."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.files.sound import read_sound
from server.client.client import RATE_HZ, Turn
from server.client.talk import Screen, TalkOptions, hold, talk
from server.errors import ConfigError
from tests.fakes.clock import FakeTime
from tests.fakes.realtime import FakeRealtime, Scripted

FIELDS = [
    *["file", "transcript", "reply", "reply_wav"],
    *["first_audio_ms", "speech_end_ms", "audio_ms", "truncated"],
]


async def _run(out: Path, *, is_json: bool, truncate_ms: int | None = None) -> str:
    """Say two questions to a scripted server and return what was written."""
    server = FakeRealtime(
        [Scripted(300, "hi there", "hello", reply_ms=240), Scripted(600, "bye", "good bye")]
    )
    written: list[str] = []
    files = (Path("a/hi.wav"), Path("b/bye.wav"))
    questions = [np.full(RATE_HZ // 2, 0.5, dtype=np.float32)] * 2
    async with server.run() as url:
        await hold(
            TalkOptions(files, out, is_json=is_json, truncate_ms=truncate_ms),
            url,
            questions,
            write=written.append,
            clock=FakeTime().clock(),
        )
    return "".join(written)


async def test_json_is_one_line_a_file(tmp_path: Path) -> None:
    """Every documented field, in order, and the reply's wav where it says."""
    lines = (await _run(tmp_path / "new" / "out", is_json=True)).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [list(row) for row in rows] == [FIELDS, FIELDS]
    assert rows[0]["file"] == str(Path("a/hi.wav"))
    assert (rows[0]["transcript"], rows[0]["reply"]) == ("hi there", "hello")
    assert rows[0]["audio_ms"] == 240
    assert rows[0]["speech_end_ms"] == 300
    assert rows[0]["first_audio_ms"] >= 0
    assert len(read_sound(Path(rows[0]["reply_wav"]), RATE_HZ)) == 240 * 24
    assert rows[0]["reply_wav"] != rows[1]["reply_wav"]
    assert [row["truncated"] for row in rows] == [None, None]


async def test_replies_are_cut_short(tmp_path: Path) -> None:
    """A line says what was cut and which words are left; a shorter reply is heard out."""
    lines = (await _run(tmp_path, is_json=True, truncate_ms=210)).splitlines()
    first, second = (json.loads(line)["truncated"] for line in lines)
    assert first == {"item_id": "reply_0", "audio_end_ms": 210, "heard": "hello"}
    assert second is None
    screen = await _run(tmp_path, is_json=False, truncate_ms=90)
    assert "  reply:  hello\n  cut short after 90 ms, heard: nothing\n  first audio" in screen


async def test_the_screen_shows_both_sides(tmp_path: Path) -> None:
    """A person reads who said what, how fast it came, and where the audio is."""
    screen = await _run(tmp_path, is_json=False)
    assert "hi.wav\n  heard: hi there\n  reply:  hello\n  first audio " in screen
    assert f"240 ms of audio in {tmp_path / '01-hi.wav'}\n" in screen


def test_words_that_changed_are_shown_again() -> None:
    """The final transcript replaces what was heard live."""
    written: list[str] = []
    screen = Screen(written.append)
    screen.begin("a.wav")
    screen.show("user", "what is free")
    screen.show("user", " plus four")
    screen.show("assistant", "seven")
    pcm = np.zeros(0, dtype=np.float32)
    screen.end(Turn("what is three plus four", None, "seven", pcm, None, 0, None))
    assert "".join(written) == (
        "a.wav\n  heard: what is free plus four\n  reply: seven\n  heard: what is three plus four\n"
    )


def test_files_are_read_before_a_server_is_started(tmp_path: Path) -> None:
    """A wrong file name costs no start of a server."""
    with pytest.raises(ConfigError, match="cannot read"):
        talk(TalkOptions((tmp_path / "missing.wav",), tmp_path, config=tmp_path / "no.yaml"))
