"""What a check has to say."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "error", "skipped"]
"""`error`: the server does not start so, or not rightly. `warning`: it does, and somebody should
know. `skipped`: not looked at, since this configuration does not need it.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: its name, which stays the same: `tls.expiry`.
        status: how it is.
        found: what was seen, a sentence.
        mend: what to do about it; empty where nothing is to be done.
    """

    check: str
    status: Status
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, mend: str) -> Finding:
    """Return a finding that somebody should know of."""
    return Finding(check, "warning", found, mend)


def error(check: str, found: str, mend: str) -> Finding:
    """Return a finding that has to be mended."""
    return Finding(check, "error", found, mend)


def skipped(check: str, found: str) -> Finding:
    """Return that something was not looked at, and why."""
    return Finding(check, "skipped", found)
