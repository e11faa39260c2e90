"""Skips that name what this machine lacks: the synthesisers are system packages."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest


def _need_library(name: str, package: str) -> None:
    try:
        ctypes.CDLL(name)
    except OSError:
        pytest.skip(f"{name} is not installed (Debian package {package})")


@pytest.fixture
def flite() -> None:
    """Skip without flite."""
    _need_library("libflite.so.1", "flite")


@pytest.fixture
def espeak() -> None:
    """Skip without espeak-ng, or without flite, whose phones label espeak-ng's words."""
    _need_library("libflite.so.1", "flite")
    _need_library("libespeak-ng.so.1", "libespeak-ng1")


@pytest.fixture
def festival() -> None:
    """Skip without festival or its voices."""
    if shutil.which("festival") is None:
        pytest.skip("festival is not installed (Debian package festival)")
    for voice, package in (
        ("us/cmu_us_slt_arctic_hts", "festvox-us-slt-hts"),
        ("english/kal_diphone", "festvox-kallpc16k"),
        ("english/ked_diphone", "festvox-kdlpc16k"),
    ):
        if not (Path("/usr/share/festival/voices") / voice).exists():
            pytest.skip(f"a festival voice is not installed (Debian package {package})")
