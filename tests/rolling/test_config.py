"""The configurations of proxies in the documentation are those that are run."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FILLED = {"first": "10.0.0.1:8000", "second": "10.0.0.2:8000"}


@pytest.mark.parametrize(
    ("file", "language", "listen"),
    [
        ("nginx.conf", "nginx", "443 ssl"),
        ("haproxy.cfg", "haproxy", ":443 ssl crt /etc/parley.pem"),
    ],
)
def test_the_documented_configuration_is_what_is_run(file: str, language: str, listen: str) -> None:
    """But for addresses."""
    text = (ROOT / "tests" / "rolling" / file).read_text()
    run = re.search(r"^ *# \[docs/deploy.md\]\n(.*?)^ *# \[end\]", text, re.DOTALL | re.MULTILINE)
    assert run is not None
    filled = re.sub(
        r"\{(first|second|listen)\}",
        lambda hit: {**_FILLED, "listen": listen}[hit[1]],
        textwrap.dedent(run[1]),
    )
    assert "{first}" not in filled
    documented = (ROOT / "docs" / "deploy.md").read_text().partition(f"```{language}\n")[2]
    assert documented.partition("```")[0] == filled
