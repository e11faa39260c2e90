"""What the README says is true: its example holds the conversation that it promises."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.files.sound import read_sound
from server.client.local import local_server

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "starter.yaml"

needs_starter = pytest.mark.skipif(
    not (ROOT / "model" / "starter" / "config.json").exists(),
    reason="needs the starter's weights in model/starter",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the shipped starter with its shipped configuration."""
    with local_server(CONFIG) as address:
        yield address


def _example() -> str:
    """Return the README's one Python program."""
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(programs) == 1
    return str(programs[0])


@needs_starter
def test_the_example_holds_three_turns_with_memory(url: str, tmp_path: Path) -> None:
    """The stock client is understood, answered in speech, and remembered across turns."""
    program = _example().replace("http://127.0.0.1:8000", url.replace("ws://", "http://"))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "heard: my name is peter",
        "reply: nice to meet you peter",
        "heard: what is the capital of france",
        "reply: the capital of france is paris",
        "heard: what is my name",
        "reply: your name is peter",
    ]
    for name in ("my_name_is_peter", "capital_of_france", "what_is_my_name"):
        reply = read_sound(tmp_path / f"{name}.reply.wav", 24_000)
        assert len(reply) > 24_000 // 2
        assert abs(reply).max() > 0.05


def test_every_link_leads_somewhere() -> None:
    """Files that the README, what stands beside it, and the docs point at exist."""
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_commands_of_the_readme_are_targets() -> None:
    """Every `make` command that the documents name is in the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for document in (*ROOT.glob("[A-Z]*.md"), ROOT / "docs" / "development.md"):
        named = re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(), re.MULTILINE)
        assert set(named) <= set(targets), document.name
