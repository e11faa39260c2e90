"""The configuration of nginx in the documentation is the one that is run."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FILLED = {"first": "10.0.0.1:8000", "second": "10.0.0.2:8000", "listen": "443 ssl"}


def test_the_documented_configuration_is_what_is_run() -> None:
    """But for addresses."""
    text = (ROOT / "tests" / "rolling" / "nginx.conf").read_text()
    run = text.partition("  # [docs/deploy.md]\n")[2].partition("  # [end]")[0]
    run = re.sub(r"\{(first|second|listen)\}", lambda hit: _FILLED[hit[1]], textwrap.dedent(run))
    assert "{first}" not in run
    documented = (ROOT / "docs" / "deploy.md").read_text().partition("```nginx\n")[2]
    assert documented.partition("```")[0] == run
