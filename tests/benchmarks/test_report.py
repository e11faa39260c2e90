"""A figure comes with where it comes from, and its last line is JSON."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.report import keep, percentile, print_table, provenance

CONFIG = Path(__file__).parents[2] / "configs" / "starter.yaml"


def test_the_last_line_is_json_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever finds the line later can tell what was measured, and on what."""
    source = provenance(CONFIG)
    print_table([{"sessions": 1, "p50": 12.5}, {"sessions": 10, "p50": 7}])
    keep("latency", source, {"n": 3}, is_saved=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["sessions   p50", "       1  12.5", "      10     7"]
    kept = json.loads(lines[-1])
    assert (kept["benchmark"], kept["n"]) == ("latency", 3)
    assert kept["provenance"]["config"] == "starter.yaml"
    assert len(kept["provenance"]["config_sha256"]) == 12
    assert kept["provenance"]["torch"].startswith("2.")
    assert kept["provenance"]["num_cores"] >= 1


def test_another_configuration_has_another_hash(tmp_path: Path) -> None:
    """A changed setting cannot pass for the shipped one."""
    changed = tmp_path / "starter.yaml"
    changed.write_text(CONFIG.read_text() + "\nvad: {}\n")
    assert provenance(changed).config_sha256 != provenance(CONFIG).config_sha256


def test_percentiles() -> None:
    """Rounded to a digit; no value gives no number rather than a flattering zero."""
    assert percentile([10.0, 20.0, 30.04], 50) == 20.0
    assert percentile([10.0, 20.0, 30.04], 100) == 30.0
    assert math.isnan(percentile([], 50))
