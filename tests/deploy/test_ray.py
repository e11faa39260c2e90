"""What `make test-ray` installs beside Parley is pinned, and fits it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(
    r"^([a-z0-9._-]+)==([^ ;\\]+)([^\\\n]*)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE
)


def _pins(path: Path) -> dict[str, set[str]]:
    """Return the versions of each package; each has hashes, and nothing is without a version."""
    text = "".join(
        line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")
    )
    found = _PIN.findall(text)
    assert all(hashes for *_, hashes in found)
    assert len(found) == len(re.findall(r"^[^ \n]", text, re.MULTILINE))
    pins: dict[str, set[str]] = {}
    for name, version, _, _ in found:
        pins.setdefault(name, set()).add(version)
    return pins


def test_ray_and_the_server_have_the_same_versions_of_what_both_need() -> None:
    """Ray's come first on the path of its replicas, whose server was tested with ours."""
    rays, ours = _pins(ROOT / "tests/ray/requirements.txt"), _pins(ROOT / "constraints-serve.txt")
    assert "ray" in rays
    shared = rays.keys() & ours.keys()
    assert len(shared) > 10
    assert {name: rays[name] for name in shared} == {name: ours[name] for name in shared}
