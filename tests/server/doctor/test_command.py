"""`parley doctor` as a command."""

import json
import re
from pathlib import Path

import pytest

from server.cli import main
from server.commands.common import EXIT_CONFIG
from server.doctor.command import as_text
from server.doctor.finding import error
from server.names import parley_version

ROOT = Path(__file__).parents[3]
SCRIPTED = str(ROOT / "configs" / "scripted.yaml")
QUIET = ["--config", SCRIPTED, "--set", "server.port=0", "--set", "webrtc.port=0"]


def test_json_has_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, whose counts are those of its findings, and an exit code that says the same."""
    assert main(["doctor", *QUIET, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parley"] == parley_version()
    assert told["errors"] == 0
    statuses = [finding["status"] for finding in told["findings"]]
    assert told["warnings"] == statuses.count("warning")
    checks = {finding["check"] for finding in told["findings"]}
    assert checks >= {"clock", "descriptors", "disk", "gpu", "memory", "port.http", "weights"}
    for finding in told["findings"]:
        assert bool(finding["mend"]) is (finding["status"] in ("warning", "error"))


def test_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    """Each model's files are looked at, and findings on them say whose they are."""
    config = str(ROOT / "configs" / "several.yaml")
    ports = ["--set", "server.port=0", "--set", "webrtc.port=0"]
    broken = ["--set", "models.gone.dir=model/none"]
    assert main(["doctor", "--config", config, *ports, *broken, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    weights = [(each["status"], each["found"]) for each in found if each["check"] == "weights"]
    assert [status for status, _ in weights] == ["ok", "skipped", "error"]
    for (_, text), name in zip(weights, ("starter", "hibiki-tiny", "gone"), strict=True):
        assert text.startswith(f"{name}: ")


def test_an_error_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """And a person is told what to do."""
    keys = ["--set", "server.api_keys=[change-me-change-me]"]
    assert main(["doctor", *QUIET, *keys]) == 1
    out = capsys.readouterr().out
    assert "error    keys.strength" in out
    assert "→ make another" in out
    assert out.rstrip().splitlines()[-1].startswith("1 error, ")
    assert "change-me" not in out


def test_what_cannot_be_read_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """A public address without keys does not even begin."""
    assert main(["doctor", *QUIET, "--set", "server.host=0.0.0.0"]) == EXIT_CONFIG
    assert "server.api_keys" in capsys.readouterr().err


def test_a_finding_as_text() -> None:
    """What was found, and below it what to do."""
    found = as_text(error("port.http", "8000 is in use", "stop what uses it"))
    assert [line.split() for line in found.splitlines()] == [
        ["error", "port.http", "8000", "is", "in", "use"],
        ["→", "stop", "what", "uses", "it"],
    ]


def test_the_documented_checks_are_those_that_there_are() -> None:
    """docs/deploy.md lists them."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "server" / "doctor").glob("*.py"))
    table = text.partition("| check |")[2].partition("\n\n")[0]
    documented = {
        name for line in table.splitlines() for name in line.split("|")[1].split("`")[1::2]
    }
    used = set(re.findall(r'(?:ok|warning|error|skipped)\(\s*"([a-z_.]+)"', sources))
    used |= set(re.findall(r'\bname = "([a-z_.]+)"', sources)) - {"tls"}
    assert documented == used - {"tls"}
