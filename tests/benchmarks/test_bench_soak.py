"""What the soak compares, and that it finds what it is for."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_soak import (
    Watched,
    _by_minute,
    _faults,
    _ledger_faults,
    _name,
    _quarters,
    _total,
    main,
)
from benchmarks.soak_callers import Told, script
from model.scripted.script import parse_script

QUIET: dict[str, Any] = {
    "descriptors": 25,
    "up": 3.0,
    "sessions": 0.0,
    "in_engines": 0.0,
    "losses": 2.0,
    "restarts": 2.0,
}


def test_the_script_can_be_read() -> None:
    """By the engine that follows it."""
    assert parse_script(script(), "soak").reply


def test_names_are_letters_and_differ() -> None:
    """Replies have them, and tell whose conversation it is."""
    names = [_name(number) for number in range(200)]
    assert len(set(names)) == 200
    assert all(name.isalpha() and name.islower() for name in names)


def test_metrics_are_added_up() -> None:
    """Over labels, and not over names that begin alike."""
    text = 'a{x="1"} 2.0\na{x="2"} 3.0\na_b 7.0\n'
    assert _total(text, "a") == 5.0


@pytest.mark.parametrize(
    ("end", "memory", "told"),
    [
        ({}, [100] * 8, []),
        ({"in_engines": 1.0}, [100] * 8, ["in_engines: 1 at the end"]),
        ({"restarts": 1.0}, [100] * 8, ["engines: 1 restarts of 2 kills"]),
        ({"up": 2.0}, [100] * 8, ["engines: 2 of 3 serve at the end"]),
        ({"descriptors": 26}, [100] * 8, ["descriptors: 25 before, 26 after"]),
        (
            {},
            [100] * 4 + [120] * 4,
            [f"memory of the {name}: 100 MB, then 120 MB" for name in ("gateway", "engine")],
        ),
        ({}, [100] * 4 + [109] * 4, []),
    ],
)
def test_what_does_not_go_back_is_told(
    end: dict[str, float], memory: list[int], told: list[str]
) -> None:
    """Each by its own name."""
    values = [each << 20 for each in memory]
    watched = Watched(values, values, [25] * 8, kills=2)
    assert _faults(watched, QUIET, {**QUIET, **end}) == told


def test_quarters_of_a_short_run() -> None:
    """There is always something to compare."""
    assert _quarters([5]) == (5, 5)
    assert _quarters([1, 2, 3, 4]) == (2, 4)


def test_memory_by_minutes_of_talk() -> None:
    """The last of each; talk comes in pieces, so a minute may have none."""
    assert _by_minute([0.0, 0.5, 1.1, 3.2, 3.9], [1, 2, 3, 4, 5]) == [2, 3, 3, 5]
    assert _by_minute([], []) == []


def test_the_ledger_is_held_against_what_callers_were_told(tmp_path: Path) -> None:
    """A token too few is found."""
    path = tmp_path / "usage.jsonl"
    line = {
        "time": "2026-01-01T00:00:00.000+00:00",
        "boot": "a",
        "seq": 0,
        "what": "used",
        "key": "good",
        "model": "one",
        "responses": 2,
        "output_text_tokens": 9,
        "audio_in_seconds": 4.0,
    }
    path.write_text(json.dumps(line) + "\n")
    told = Told(said_s=4.0)
    for tokens in (4, 5):
        told.note({"status": "completed", "usage": _usage(tokens)})
    assert _ledger_faults(path, told) == []
    told.note({"status": "failed", "usage": None})
    assert _ledger_faults(path, told) == ["ledger: 2 responses, callers were told 3"]
    assert (told.replies, told.failed) == (2, 1)


def _usage(output_text: int) -> dict[str, Any]:
    none = {"text_tokens": 0, "audio_tokens": 0}
    return {
        "input_token_details": none,
        "output_token_details": {**none, "text_tokens": output_text},
    }


@pytest.mark.slow
def test_a_soak_of_a_few_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """A real server, and nothing is lost."""
    assert main(["--seconds", "5", "--callers", "1", "--kill-s", "3", "--no-save"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["lost"] == []
    assert result["replies"] > 0
    assert result["kills"] > 0
