"""Fetch a known checkpoint from the hub into a folder, whole and as published.

What is fetched is one commit of each repository. Which one is written to `parley-pull.json` in the
folder before the first file, so that a pull that was interrupted goes on with the same; with it
stand size and sha256 of every file, once it has been checked.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from httpx2 import HTTPError  # what huggingface_hub speaks with, and lets through
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.errors import DownloadError, WeightsError
from model.files.published import read_json
from model.kyutai.catalogue import Entry, Expected, HubSource
from model.kyutai.voices import VOICES_ARCHIVE, convert_voices, voice_files

MANIFEST_FILE = "parley-pull.json"
_NEWEST = "main"
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched and checked.

    Attributes:
        repo: where it is from.
        num_bytes: its size.
        sha256: of its contents.
    """

    repo: str
    num_bytes: int
    sha256: str


@dataclass(slots=True)
class Manifest:
    """What a folder was filled with.

    Attributes:
        name: of the checkpoint.
        revisions: commit by repository.
        files: that were checked, by name.
    """

    name: str
    revisions: dict[str, str] = field(default_factory=dict)
    files: dict[str, Fetched] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, name: str) -> Manifest:
        """Read a folder's; a new one if it has none.

        Raises:
            WeightsError: if it is broken, or of another checkpoint.
        """
        if not (directory / MANIFEST_FILE).exists():
            return cls(name)
        found = cls.of(directory)
        if found.name != name:
            raise WeightsError(f"{directory}: holds {found.name}, not {name}")
        return found

    @classmethod
    def of(cls, directory: Path) -> Manifest:
        """Read that of a folder which has one.

        Raises:
            WeightsError: if it is broken.
        """
        path = directory / MANIFEST_FILE
        values = read_json(path)
        try:
            files = {file: Fetched(**fetched) for file, fetched in values["files"].items()}
            return cls(str(values["name"]), dict(values["revisions"]), files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{path}: not what a pull writes ({error!r})") from error

    def write(self, directory: Path) -> None:
        """Write it to its folder; what was there is replaced at once."""
        # Written beside it and renamed: a pull that is killed leaves the old file or the new one,
        # and never half of one.
        partial = directory / f"{MANIFEST_FILE}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(directory / MANIFEST_FILE)


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file on the hub."""

    repo: str
    revision: str
    name: str
    expected: Expected


def pull(
    entry: Entry,
    directory: Path,
    *,
    revision: str | None = None,
    hub: HfApi | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Fetch what is missing of a checkpoint, check it, and convert its voices.

    Args:
        entry: the checkpoint.
        directory: made if it is missing.
        revision: commit or branch of its first repository, in place of the one that is known or was
            taken before.
        hub: where to fetch from; None for the public one, or what `HF_ENDPOINT` says.
        report: told what is being done, a line each.

    Raises:
        DownloadError: if the hub cannot be reached, refuses, or does not have a file.
        WeightsError: if a file is not what was published.
    """
    hub = hub or HfApi()
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest.read(directory, entry.name)
    remote: list[_Remote] = []
    for source in entry.sources:
        asked = revision if source is entry.sources[0] else None
        remote += _resolve(hub, source, asked, manifest, report)
    manifest.write(directory)
    missing = [file for file in remote if not _is_there(directory, file, manifest)]
    _check_space(directory, missing)
    for file in remote:
        if file not in missing:
            report(f"{file.name}: there already")
            continue
        report(f"{file.name}: {_size(file.expected.num_bytes)} from {file.repo}")
        # A download that broke off leaves a part in the folder's cache, and the next one goes on
        # from there.
        with _hub_errors(file.repo):
            hub.hf_hub_download(file.repo, file.name, revision=file.revision, local_dir=directory)
        manifest.files[file.name] = _verify(directory / file.name, file)
        manifest.write(directory)
    if (directory / VOICES_ARCHIVE).exists() and not voice_files(directory):
        names = convert_voices(directory)
        report(f"{VOICES_ARCHIVE}: {len(names)} voices converted")
    return manifest


def check_pulled(directory: Path) -> int:
    """Compare the files that were pulled into a folder with what they were; all of it is read.

    Returns:
        How many files there are; 0 for a folder that no pull has filled.

    Raises:
        WeightsError: one is missing, was cut short or changed.
    """
    if not (directory / MANIFEST_FILE).exists():
        return 0
    files = Manifest.of(directory).files
    for name, fetched in files.items():
        path = directory / name
        if not path.is_file():
            raise WeightsError(f"{path}: missing, and {MANIFEST_FILE} has it")
        got = Fetched(fetched.repo, path.stat().st_size, _sha256(path))
        if got != fetched:
            raise WeightsError(
                f"{path}: expected {fetched.num_bytes} bytes with sha256 {fetched.sha256}, got "
                f"{got.num_bytes} with {got.sha256}"
            )
    return len(files)


def _resolve(
    hub: HfApi,
    source: HubSource,
    asked: str | None,
    manifest: Manifest,
    report: Callable[[str], None],
) -> Iterator[_Remote]:
    """Settle on a commit of a repository, and go through its files that are wanted."""
    # The commit that the user asks for comes first, then that of this folder, then the one that
    # Parley knows. A folder thus stays with its commit even if a later version of Parley knows a
    # newer one.
    pinned = asked or manifest.revisions.get(source.repo) or source.revision
    with _hub_errors(source.repo):
        info = hub.model_info(
            source.repo, revision=pinned or _NEWEST, files_metadata=True, timeout=_TIMEOUT_S
        )
    if info.sha is None:
        raise DownloadError(f"{source.repo}: the hub names no commit for {pinned or _NEWEST}")
    note = "" if pinned else ", the newest: no revision of it is known here"
    report(f"{source.repo}: commit {info.sha}{note}")
    if manifest.revisions.get(source.repo, info.sha) != info.sha:
        # Of another commit, what has been fetched is another file.
        manifest.files = {n: f for n, f in manifest.files.items() if f.repo != source.repo}
    manifest.revisions[source.repo] = info.sha
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for pattern, expected in source.files.items():
        names = [pattern] if pattern in there else sorted(fnmatch.filter(there, pattern))
        if not names:
            raise DownloadError(f"{source.repo}: {pattern}: not in commit {info.sha}")
        for name in names:
            lfs = there[name].lfs
            # Its name becomes a path here.
            if Path(name).name != name:
                raise DownloadError(f"{source.repo}: {name}: expected a file without folders")
            yield _Remote(
                source.repo,
                info.sha,
                name,
                Expected(
                    expected.num_bytes or there[name].size,
                    expected.sha256 or (lfs.sha256 if lfs else None),
                ),
            )


def _is_there(directory: Path, file: _Remote, manifest: Manifest) -> bool:
    """Say whether a file was fetched and checked before, and has its size still."""
    fetched, path = manifest.files.get(file.name), directory / file.name
    if fetched is None or not path.exists():
        return False
    # The sha256 was compared when the file came. To compare it at each pull would read many
    # gigabytes; the size tells of a file that was cut short since.
    return path.stat().st_size == fetched.num_bytes and file.expected.sha256 in (
        None,
        fetched.sha256,
    )


def _check_space(directory: Path, missing: list[_Remote]) -> None:
    # What a broken-off download left is counted twice: it is about whether it can be finished.
    needed = sum(file.expected.num_bytes or 0 for file in missing)
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DownloadError(
            f"{directory}: {_size(needed)} to fetch, and {_size(free)} of room on the disk"
        )


def _verify(path: Path, file: _Remote) -> Fetched:
    """Compare a file with what it should be; one that differs is removed."""
    # The size is compared first in what follows, since it says more to a person: 2.1 GB of 14.3 GB
    # was cut short, while a wrong hash says nothing about what happened.
    num_bytes = path.stat().st_size
    sha256 = _sha256(path)
    expected = file.expected
    for what, got, wanted in (
        ("bytes", num_bytes, expected.num_bytes),
        ("sha256", sha256, expected.sha256),
    ):
        if wanted is not None and got != wanted:
            path.unlink()
            raise WeightsError(
                f"{path}: expected {what} {wanted}, got {got}: not what was published, removed"
            )
    return Fetched(file.repo, num_bytes, sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Say what went wrong with a repository in a line, and what may be done about it."""
    try:
        yield
    # The order matters: a gated repository is a kind of repository that was not found, and an entry
    # that is not in the cache a kind of entry that is not there.
    except GatedRepoError as error:
        raise DownloadError(
            f"{repo}: its licence must be accepted first, at https://huggingface.co/{repo}; then "
            "log in with `hf auth login`, or put a token into HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"{repo}: no such repository, or not to be seen by you") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repo}: no such revision") from error
    except OfflineModeIsEnabled as error:
        raise DownloadError(f"{repo}: HF_HUB_OFFLINE forbids to fetch anything") from error
    except LocalEntryNotFoundError as error:
        raise DownloadError(
            f"{repo}: the hub cannot be reached; run the same command again to go on"
        ) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{repo}: no such file ({error})") from error
    except HfHubHTTPError as error:
        raise DownloadError(f"{repo}: the hub refused: {error}") from error
    except (HTTPError, OSError) as error:
        raise DownloadError(
            f"{repo}: broke off ({type(error).__name__}: {error}); run the same command again to "
            "go on"
        ) from error


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return "of unknown size"
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"
