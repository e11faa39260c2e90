"""Know after a restart what API keys have used today: it stands in the ledger."""

import datetime as dt
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from server.errors import ConfigError
from server.session.accounts import Account
from server.session.ledger import put_aside, read_ledger

_log = structlog.get_logger("accounts")


def take_up(accounts: Sequence[Account], ledger: Path | None) -> None:
    """Count what the ledger has of today for the keys whose minutes of a day are bounded.

    Args:
        accounts: of all keys, just made.
        ledger: file of this server; None without one.
    """
    timed = [account for account in accounts if account.is_timed]
    if ledger is None or not timed:
        return
    used = used_today(ledger, time.time())
    for account in timed:
        account.take_up(used.get(account.name, 0.0))


def used_today(ledger: Path, now_s: float) -> Mapping[str, float]:
    """Return for how many seconds of today (UTC) sessions of each key have lasted.

    What cannot be read is left out, and said in the log: a damaged line keeps no server from its
    callers.

    Args:
        ledger: file that a server writes; those that it has put aside are found beside it.
        now_s: Unix time.
    """
    midnight = dt.datetime.fromtimestamp(now_s, dt.UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    used: defaultdict[str, float] = defaultdict(float)
    for path in (*put_aside(ledger), ledger):
        try:
            # One that was put aside before midnight has nothing of today.
            if path.stat().st_mtime < midnight.timestamp():
                continue
            for line in read_ledger(path, f"{midnight:%F}"):
                used[str(line.get("key") or "")] += _seconds_of_today(line, midnight)
        except (OSError, ConfigError) as error:
            _log.error("use of today is not known", error=str(error))
    return dict(used)


def _seconds_of_today(line: Mapping[str, object], midnight: dt.datetime) -> float:
    # For example, of a line of 5 s that was written at 00:00:02 two are today's. Of what was added
    # up over many sessions it is not known, and all of it counts.
    seconds = float(str(line.get("seconds", 0.0)))
    if line.get("session") is None:
        return seconds
    written = dt.datetime.fromisoformat(str(line["time"]))
    return min(seconds, (written - midnight).total_seconds())
