"""What the client programs measure with measures right."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.clients import common

PIECE = common.RATE_HZ * 2 * common.PIECE_MS // 1000


def test_the_end_of_speech_is_its_last_voiced_piece() -> None:
    """Silence and faint noise after it do not count."""
    tone = 8000 * np.sin(np.arange(12_000) / 5)
    faint = 100 * np.sin(np.arange(6000) / 3)
    pcm = np.concatenate([tone, faint, np.zeros(2400)]).astype("<i2").tobytes()
    assert common.voiced_bytes(pcm) == 24_000


def test_ulaw_is_what_others_read(tmp_path: Path) -> None:
    """Decoded by libsndfile, a slow wave comes back within µ-law's step."""
    wave = (20_000 * np.sin(np.arange(24_000) / 400)).astype("<i2")
    path = tmp_path / "a.ulaw"
    path.write_bytes(common.ulaw_8_khz(wave.tobytes()))
    heard, _ = soundfile.read(
        path, samplerate=8000, channels=1, format="RAW", subtype="ULAW", dtype="int16"
    )
    expected = wave.reshape(-1, 3).mean(axis=1)
    assert np.all(np.abs(heard - expected) <= 0.035 * np.abs(expected) + 12)


async def test_a_microphone_sends_silence_around_what_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In order, piece by piece; `say` returns when the last voiced piece had been sent."""
    monkeypatch.setattr(common, "PIECE_MS", 0)
    monkeypatch.setattr(common, "speech", lambda *_, **__: [b"\x00\x40" * PIECE, bytes(PIECE)])
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)

    async with common.Microphone(send) as microphone:
        ended_s = await microphone.say("anything")
        said = [piece for piece in sent if any(piece)]
        assert b"".join(said) == b"\x00\x40" * PIECE
        assert ended_s <= time.monotonic()
        while any(sent[-1]):  # noqa: ASYNC110 - a turn of the loop, no time
            await asyncio.sleep(0)


def test_waits_count_from_the_end_of_speech(capsys: pytest.CaptureFixture[str]) -> None:
    """The longest is told, and is too long for the scripted engine only."""
    inbox = common.Inbox()
    inbox.put("sound")
    for waited_s, is_scripted, verdict in (
        (0.5, True, "pass"),
        (2.0, True, "fail"),
        (2.0, False, "pass"),
    ):
        waits = common.Waits()
        waits.add(inbox, 0, inbox.times_s[0] - 0.25, lambda event: event == "sound")
        waits.add(inbox, 0, inbox.times_s[0] - waited_s, lambda event: event == "sound")
        waits.report(is_scripted=is_scripted)
        assert f'"{verdict}"' in (told := capsys.readouterr().out)
        assert f"{waited_s * 1000:.0f} ms" in told
    with pytest.raises(common.ScenarioError):
        common.Waits().add(inbox, 0, 0.0, lambda event: event == "nothing")
