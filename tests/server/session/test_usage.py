"""What sessions use is added up by key and model, and written down."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from model.messages import Usage
from server.audio.silero import SileroModel
from server.session import usage as usage_module
from server.session.ledger import Ledger, LedgerError, read_ledger
from server.session.usage import Payer, UsageBook, Used
from tests.server.session.live import living

SHOP = Payer("shop", "starter")
COST = Usage(
    input_text_tokens=10,
    input_audio_tokens=20,
    input_cached_text_tokens=4,
    output_text_tokens=5,
    output_audio_tokens=6,
)


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def _summed(path: Path) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for line in read_ledger(path):
        for name, value in line.items():
            if name not in ("seq", "cut_bytes") and isinstance(value, int | float):
                sums[name] = sums.get(name, 0) + value
    return sums


def test_a_session_is_counted_while_it_is_open() -> None:
    """Its time as well; two of one key and model are added up."""
    clock = _Clock()
    book = UsageBook(clock=clock)
    first, second = book.meter("shop", "starter"), book.meter("shop", "starter")
    first.begin("s1")
    clock.now_s += 10
    second.begin("s2")
    book.meter("", "moshi").begin("s3")
    first.heard(2.5)
    second.spoke(1.5)
    first.responded(COST)
    first.responded(None)
    clock.now_s += 5
    assert book.totals[SHOP] == Used(
        sessions=2,
        seconds=20,
        audio_in_seconds=2.5,
        audio_out_seconds=1.5,
        responses=2,
        input_text_tokens=10,
        input_audio_tokens=20,
        input_cached_text_tokens=4,
        output_text_tokens=5,
        output_audio_tokens=6,
    )
    assert book.totals[Payer("", "moshi")] == Used(sessions=1, seconds=5)
    first.end("1000")
    clock.now_s += 5
    assert book.totals[SHOP].seconds == 25
    assert book.num_waiting == 0, "nobody writes"


class _Telling(Ledger):
    """Say when something was written, beside that it was opened."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, max_bytes)
        self.is_written = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write."""
        super().write(lines)
        if lines[0]["what"] != "started":
            self._loop.call_soon_threadsafe(self.is_written.set)


async def test_what_a_response_cost_is_written_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rest from time to time: what is in the file is what was used."""
    monkeypatch.setattr(usage_module, "_SOON_S", 0.0)
    path = tmp_path / "usage.jsonl"
    ledger = _Telling(path, 1 << 20)
    book = UsageBook(ledger, flush_s=3_600.0)
    book.start()
    meter, idle = book.meter("shop", "starter"), book.meter("", "moshi")
    meter.begin("s1")
    idle.begin("s2")
    meter.heard(2.0)
    meter.responded(COST)
    async with asyncio.timeout(20):
        await ledger.is_written.wait()
    (line,) = [line for line in read_ledger(path) if line["what"] == "used"]
    assert (line["session"], line["key"], line["model"]) == ("s1", "shop", "starter")
    assert (line["responses"], line["input_audio_tokens"], line["audio_in_seconds"]) == (1, 20, 2.0)
    meter.spoke(3.0)
    meter.end("1000")
    idle.end("client")
    await book.close()
    ends = {each["session"]: each for each in read_ledger(path) if each["what"] == "ended"}
    assert (ends["s1"]["close"], ends["s1"]["audio_out_seconds"]) == ("1000", 3.0)
    assert ends["s2"]["key"] is None
    sums = _summed(path)
    assert (sums["sessions"], sums["responses"], sums["audio_in_seconds"]) == (2, 1, 2.0)


class _Stubborn:
    """A ledger whose disk takes nothing until it is told to."""

    def __init__(self) -> None:
        self.is_full = True
        self.was_full = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.lines: list[Any] = []

    def write(self, lines: list[Any]) -> None:
        """Write."""
        if self.is_full:
            self._loop.call_soon_threadsafe(self.was_full.set)
            raise LedgerError("no space left")
        self.lines += lines

    def close(self) -> None:
        """Do nothing."""


async def test_a_disk_that_takes_nothing_costs_no_use_and_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines are added up when they are too many; when there is room again, all of it is written."""
    monkeypatch.setattr(usage_module, "_SOON_S", 0.0)
    monkeypatch.setattr(usage_module, "MAX_WAITING", 8)
    ledger: Any = _Stubborn()
    clock = _Clock()
    book = UsageBook(ledger, flush_s=0.001, clock=clock)
    book.start()
    for number in range(100):
        meter = book.meter("shop" if number % 2 else "", "starter")
        meter.begin(f"s{number}")
        clock.now_s += 1
        meter.responded(COST)
        meter.end("1000")
        assert book.num_waiting <= 8 + 1
    async with asyncio.timeout(20):
        await ledger.was_full.wait()
    ledger.is_full = False
    await book.close()
    assert book.num_waiting == 0
    for name, total in (("sessions", 100), ("seconds", 100), ("output_audio_tokens", 600)):
        assert sum(line.get(name, 0) for line in ledger.lines) == total
    assert {line["key"] for line in ledger.lines} == {"shop", None}


async def test_a_session_counts_what_it_hears_says_and_costs(vad_model: SileroModel) -> None:
    """As its client is told."""
    async with living(vad_model, turn_detection=None) as live:
        meter = live.session._observers._meter
        live.send(type="input_audio_buffer.append", audio="AAAA" * 8_000)
        live.send(type="input_audio_buffer.commit")
        live.send(type="response.create")
        cost = (await live.until("response.done"))["response"]["usage"]
        used = meter.used()
        live.transport.disconnect()
    assert (used.sessions, used.responses) == (0, 1), "the session was counted at its begin"
    assert used.audio_in_seconds == 0.5
    assert used.audio_out_seconds > 0
    assert used.output_audio_tokens == cost["output_token_details"]["audio_tokens"]
    assert used.input_text_tokens == cost["input_token_details"]["text_tokens"]


@pytest.fixture(scope="module")
def vad_model() -> SileroModel:
    """Load the model once."""
    return SileroModel()
