"""A checkpoint is fetched whole and as published, or not at all, and from one commit."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from model.errors import DownloadError, WeightsError
from model.kyutai.catalogue import Entry, Expected, HubSource
from model.kyutai.pull import MANIFEST_FILE, check_pulled, pull
from tests.fakes.hub import FakeHub, commit, fake_hub, repo
from tests.fakes.pickles import saved

WEIGHTS, PIECES = bytes(range(256)) * 40, b"pieces"
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}", "README.md": b"read me"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with a model in one repository and its pieces in another."""
    with fake_hub({"a/model": repo(FILES, 7), "b/pieces": repo({"t.model": PIECES}, 8)}) as hub:
        yield hub


def entry(**files: Expected) -> Entry:
    """Return a checkpoint of both repositories."""
    wanted = {"model.safetensors": Expected(), "*.json": Expected(), **files}
    sources = (
        HubSource("a/model", None, wanted), HubSource("b/pieces", None, {"t.model": Expected()}),
    )  # fmt: skip
    return Entry("tiny", "tiny", "moshi", "CC0", is_gated=False, sources=sources)


def test_all_files_and_no_others(hub: FakeHub, tmp_path: Path) -> None:
    """With what is known of them beside them, and every step reported."""
    lines: list[str] = []
    pull(entry(), tmp_path / "new", hub=hub.api, report=lines.append)
    names = {path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")}
    assert names == {"model.safetensors", "config.json", "t.model", MANIFEST_FILE}
    assert (tmp_path / "new/model.safetensors").read_bytes() == WEIGHTS
    manifest = json.loads((tmp_path / "new" / MANIFEST_FILE).read_text())
    assert manifest["revisions"] == {"a/model": commit(7), "b/pieces": commit(8)}
    assert manifest["files"]["model.safetensors"] == {
        "repo": "a/model", "num_bytes": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }  # fmt: skip
    assert f"a/model: commit {commit(7)}, the newest: no revision of it is known here" in lines
    assert "model.safetensors: 0.01 MB from a/model" in lines


def test_a_folder_keeps_to_its_commit(hub: FakeHub, tmp_path: Path) -> None:
    """Whatever has become of the branch, unless another revision is asked for."""
    pull(entry(), tmp_path, hub=hub.api)
    model = hub.repos["a/model"]
    model.files[commit(9)] = {**FILES, "model.safetensors": b"newer"}
    model.branches["main"] = commit(9)
    (tmp_path / "config.json").unlink()
    lines: list[str] = []
    pull(entry(), tmp_path, hub=hub.api, report=lines.append)
    assert f"a/model: commit {commit(7)}" in lines
    assert "model.safetensors: there already" in lines
    assert (tmp_path / "config.json").exists()
    pull(entry(), tmp_path, hub=hub.api, revision="main")
    assert (tmp_path / "model.safetensors").read_bytes() == b"newer"
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert manifest["revisions"] == {"a/model": commit(9), "b/pieces": commit(8)}


def test_a_revision_that_is_known_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    """Not the newest one."""
    hub.repos["a/model"].branches["main"] = commit(9)
    hub.repos["a/model"].files[commit(9)] = {}
    known = entry()
    pinned = replace(known.sources[0], revision=commit(7))
    pull(replace(known, sources=(pinned, known.sources[1])), tmp_path, hub=hub.api)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_files_are_compared_with_what_they_were(hub: FakeHub, tmp_path: Path) -> None:
    """Each of them, by its contents; a folder that no pull has filled has none to compare."""
    assert check_pulled(tmp_path) == 0
    pull(entry(), tmp_path, hub=hub.api)
    assert check_pulled(tmp_path) == 3
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(WeightsError, match=r"model\.safetensors: expected \d+ bytes with sha256"):
        check_pulled(tmp_path)
    weights.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: missing"):
        check_pulled(tmp_path)


def test_what_is_there_is_not_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    """A second pull only asks what there is."""
    pull(entry(), tmp_path, hub=hub.api)
    hub.asked.clear()
    pull(entry(), tmp_path, hub=hub.api)
    assert not [request for request in hub.asked if "/resolve/" in request]


def test_a_pull_that_broke_off_goes_on(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the byte where it was; huggingface_hub tries again by itself, after a second."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 256)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.broken_after = 1024
    pull(entry(), tmp_path, hub=hub.api)
    assert hub.ranges == [1024]
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("expected", "match"),
    [
        (Expected(sha256="0" * 64), r"expected sha256 0{64}, got [0-9a-f]{64}: not what was pub"),
        (Expected(num_bytes=5), "expected bytes 5, got 10240: not what was published, removed"),
    ],
)
def test_a_file_that_is_not_what_was_published(
    hub: FakeHub, tmp_path: Path, expected: Expected, match: str
) -> None:
    """Is removed, and the pull fails."""
    with pytest.raises(WeightsError, match=match):
        pull(entry(**{"model.safetensors": expected}), tmp_path, hub=hub.api)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("GatedRepo", r"a/model: its licence must be accepted first, at https://.*a/model"),
        ("RepoNotFound", "a/model: no such repository"),
        ("RevisionNotFound", "a/model: no such revision"),
        ("Broken", "a/model: the hub refused: "),
    ],
)
def test_what_the_hub_refuses(hub: FakeHub, tmp_path: Path, error: str, match: str) -> None:
    """Is said in a line, with what may be done about it."""
    hub.repos["a/model"].error = error
    with pytest.raises(DownloadError, match=match):
        pull(entry(), tmp_path, hub=hub.api)


def test_files_that_the_hub_does_not_have(hub: FakeHub, tmp_path: Path) -> None:
    """By name or pattern, before anything is fetched."""
    for name in ("lost.bin", "lost-*.bin"):
        with pytest.raises(DownloadError, match=rf"a/model: {name[:5]}.*: not in commit 0*7"):
            pull(entry(**{name: Expected()}), tmp_path, hub=hub.api)
    assert list(tmp_path.iterdir()) == []
    hub.repos["a/model"] = repo({**FILES, "sub/x.json": b""}, 7)
    del hub.repos["a/model"].files[commit(7)]["config.json"]
    with pytest.raises(DownloadError, match=r"sub/x.json: expected a file without folders"):
        pull(entry(), tmp_path, hub=hub.api)


def test_no_network(tmp_path: Path) -> None:
    """Says so."""
    with pytest.raises(DownloadError, match=r"a/model: broke off \(.*again to go on"):
        pull(entry(), tmp_path, hub=HfApi(endpoint="http://127.0.0.1:9", token=False))


def test_no_room(hub: FakeHub, tmp_path: Path) -> None:
    """Is found out before anything is fetched."""
    huge = entry(**{"model.safetensors": Expected(num_bytes=10**18)})
    with pytest.raises(DownloadError, match=r"1000000000.00 GB to fetch, and .* of room"):
        pull(huge, tmp_path, hub=hub.api)
    assert not [request for request in hub.asked if "/resolve/" in request]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ('{"name": "tiny"}', "not what a pull writes"),
        ('{"name": "tiny", "revisions": {}, "files": {"a": {"repo": 1}}}', "not what a pull"),
        ('{"name": "other", "revisions": {}, "files": {}}', "holds other, not tiny"),
    ],
)
def test_a_folder_of_something_else(hub: FakeHub, tmp_path: Path, text: str, match: str) -> None:
    """Is not filled with this."""
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(WeightsError, match=match):
        pull(entry(), tmp_path, hub=hub.api)


def test_voices_are_converted_on_the_way(hub: FakeHub, tmp_path: Path) -> None:
    """Once: the archive stays, and nobody reads its pickles again."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        cache = torch.zeros((1, 3, 4), dtype=torch.int64)
        data = saved({"embeddings": torch.ones(2, 1, 1, 8), "cache": cache})
        info = tarfile.TarInfo("voices/NATF0.pt")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    hub.repos["a/model"].files[commit(7)]["voices.tgz"] = file.getvalue()
    lines: list[str] = []
    wanted = entry(**{"voices.tgz": Expected()})
    pull(wanted, tmp_path, hub=hub.api, report=lines.append)
    assert lines[-1] == "voices.tgz: 1 voices converted"
    assert (tmp_path / "voices/NATF0.safetensors").exists()
    lines.clear()
    pull(wanted, tmp_path, hub=hub.api, report=lines.append)
    assert lines[-1].startswith("t.model: there already")
