"""What keys have used today is known after a restart."""

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from server.config.server import KeyLimits
from server.session.accounts import Account
from server.session.today import take_up, used_today

NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)


def _written(path: Path, *lines: dict[str, Any], end: str = "") -> None:
    with path.open("a") as file:
        for number, line in enumerate(lines):
            head = {"time": f"{line.pop('at')}.000+00:00", "boot": "0123abcd", "seq": number}
            file.write(json.dumps({**head, "what": "used", **line}) + "\n")
        file.write(end)


def test_only_today_counts(tmp_path: Path) -> None:
    """Of what was written just after midnight, only what lies after it."""
    path = tmp_path / "usage.jsonl"
    _written(
        path,
        {"at": "2026-11-29T23:59:59", "key": "shop", "session": "s", "seconds": 100.0},
        {"at": "2026-11-30T00:00:02", "key": "shop", "session": "s", "seconds": 5.0},
        {"at": "2026-11-30T08:00:00", "key": "shop", "session": "s", "seconds": 30.0},
        {"at": "2026-11-30T08:00:00", "key": "other", "session": "t", "seconds": 7.0},
        {"at": "2026-11-30T08:00:01", "key": "shop", "seconds": 60.0},
        {"at": "2026-11-30T08:00:02", "key": None, "session": "u", "seconds": 9.0},
        end='{"time": "2026-11-30T',  # half a line, of a server that was killed
    )
    assert used_today(path, NOW.timestamp()) == {"shop": 92.0, "other": 7.0, "": 9.0}


def test_files_that_were_put_aside_today_count_as_well(tmp_path: Path) -> None:
    """Others are not opened."""
    path = tmp_path / "usage.jsonl"
    aside, old, others = (
        tmp_path / f"usage-{name}.jsonl"
        for name in ("20261130T100000Z-0123abcd-0", "20261129T100000Z-0123abcd-0", "of-somebody")
    )
    line = {"at": "2026-11-30T08:00:00", "key": "shop", "session": "s", "seconds": 1.0}
    for each in (path, aside, old, others):
        _written(each, dict(line))
        os.utime(each, (NOW.timestamp(), NOW.timestamp()))
    yesterday_s = NOW.timestamp() - 86_400
    os.utime(old, (yesterday_s, yesterday_s))
    assert used_today(path, NOW.timestamp()) == {"shop": 2.0}


def test_a_damaged_line_is_told_and_keeps_nobody_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands before it counts."""
    path = tmp_path / "usage.jsonl"
    line = {"at": "2026-11-30T08:00:00", "key": "shop", "session": "s", "seconds": 1.0}
    _written(path, dict(line), end='{"time": "2026-11-30", nonsense\n')
    assert used_today(path, NOW.timestamp()) == {"shop": 1.0}
    assert "use of today is not known" in "".join(capsys.readouterr())
    assert used_today(tmp_path / "none.jsonl", NOW.timestamp()) == {}


def test_bounded_keys_go_on_where_they_were(tmp_path: Path) -> None:
    """Whose minutes are not bounded has nothing to take up."""
    path = tmp_path / "usage.jsonl"
    # It may become midnight while this runs: there is as much of tomorrow.
    today = dt.datetime.now(dt.UTC)
    tomorrow = today + dt.timedelta(days=1)
    for day in (today, tomorrow):
        at = f"{day:%F}T00:00:00"
        _written(path, *({"at": at, "key": key, "seconds": 600.0} for key in ("shop", "other")))
    os.utime(path, (tomorrow.timestamp(), tomorrow.timestamp()))
    shop, other = Account("shop", KeyLimits(minutes_a_day=10)), Account("other", KeyLimits())
    take_up([shop, other], path)
    reached = shop.reached()
    assert reached is not None
    assert "used its 10 minutes" in reached.text
    assert other.reached() is None
    fresh = Account("shop", KeyLimits(minutes_a_day=10))
    take_up([fresh], None)
    assert fresh.reached() is None
