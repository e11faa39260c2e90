"""Write down what became of calls."""

import json
from pathlib import Path

import pytest

from server.errors import ConfigError
from server.mcp.audit import AuditLog
from server.protocol.mcp.outcomes import Decision


def test_lines_and_rotation(tmp_path: Path) -> None:
    """One object a line; a full file is put aside, and only so many are kept."""
    path = tmp_path / "deep" / "audit.jsonl"
    log = AuditLog(path, max_bytes=1_000, num_old=2)
    for number in range(40):
        decision = Decision("denied", f"mcpr_{number}", "maps", "delete", '{"a":"ü"}', "no")
        log.write("sess_1", decision, "user-7" if number % 2 else "")
    log.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [
        *("audit.jsonl", "audit.jsonl.1", "audit.jsonl.2")
    ]
    (*_, last) = path.read_text(encoding="utf-8").splitlines()
    line = json.loads(last)
    del line["time"]
    assert line == {
        "session_id": "sess_1",
        "safety_identifier": "user-7",
        "what": "denied",
        "item_id": "mcpr_39",
        "server_label": "maps",
        "name": "delete",
        "arguments": '{"a":"ü"}',
        "reason": "no",
    }


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Is said when the server starts."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="audit_file"):
        AuditLog(tmp_path / "file" / "audit.jsonl")
