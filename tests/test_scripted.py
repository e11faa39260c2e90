"""What docs/scripted.md promises is true: its example runs as it stands and prints what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

from server.local import local_server

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "scripted.yaml"


def _blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "scripted.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_worked_example_works(tmp_path: Path) -> None:
    """Script, client and output are those of the document."""
    (script,), (program,), (output,) = (_blocks(kind) for kind in ("yaml", "python", "text"))
    path = tmp_path / "script.yaml"
    path.write_text(script)
    with local_server(CONFIG, [f"model.script={path}"]) as url:
        finished = subprocess.run(
            [
                sys.executable,
                "-c",
                program.replace("http://127.0.0.1:8000", url.replace("ws://", "http://")),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == output
