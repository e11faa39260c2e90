"""Where finished recordings are kept, for how long, and how many of them."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from server.config.records import RecordingSettings, S3Settings
from server.errors import ConfigError
from server.recording.files import num_bytes, remove

# Of one request to a store.
_TIMEOUT_S = 20
_DAY_S = 24 * 3600
# Of what may be deleted: 20261130T131500Z_sess_…_1, as the recorder names it.
_NAME = re.compile(r"\d{8}T\d{6}Z_")


@dataclass(frozen=True, slots=True)
class Kept:
    """A recording that is kept.

    Attributes:
        name: of it.
        num_bytes: that it takes.
        at_s: when it was put there, in Unix time.
    """

    name: str
    num_bytes: int
    at_s: float


class Store(Protocol):
    """Keep finished recordings."""

    def put(self, folder: Path) -> None:
        """Take a recording; its folder is gone afterwards.

        Raises:
            OSError: it cannot be taken now, and is still there.
        """
        ...

    def kept(self) -> list[Kept]:
        """List what is kept."""
        ...

    def delete(self, name: str) -> None:
        """Delete a recording."""
        ...


class FolderStore:
    """Keep recordings in a folder of this machine.

    Args:
        folder: that has a folder for each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, folder: Path) -> None:
        """Take a recording."""
        folder.replace(self._folder / folder.name)

    def kept(self) -> list[Kept]:
        """List what is kept."""
        return [
            Kept(folder.name, num_bytes(folder), folder.stat().st_mtime)
            for folder in self._folders()
        ]

    def delete(self, name: str) -> None:
        """Delete a recording."""
        remove(self._folder / name)

    def _folders(self) -> Iterator[Path]:
        # Recordings that are being written or wait have folders with other names. Further folders
        # are not ours, and stay.
        yield from (each for each in self._folder.iterdir() if _NAME.match(each.name))


class S3Store:
    """Keep recordings in a bucket: one object a file, below a key that is the recording's name.

    Args:
        settings: of the bucket.

    Raises:
        ConfigError: its package is not installed.
    """

    def __init__(self, settings: S3Settings) -> None:
        try:
            # Loaded only where it is used: it takes half a second and 40 MB.
            import boto3  # noqa: PLC0415
            from botocore.config import Config  # noqa: PLC0415
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                f"recordings.s3: {error.name} is not installed; "
                "`pip install .[s3]` in Parley's folder does it"
            ) from None
        self._bucket, self._prefix = settings.bucket, settings.prefix
        self._errors = (BotoCoreError, ClientError)
        config = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S)
        self._client: Any = boto3.client(
            "s3", endpoint_url=settings.endpoint_url, region_name=settings.region, config=config
        )

    def put(self, folder: Path) -> None:
        """Upload a recording. The JSON file comes last: where it is, the rest is as well."""
        with self._telling():
            for file in sorted(folder.iterdir(), key=lambda each: each.suffix == ".json"):
                self._client.upload_file(
                    str(file), self._bucket, f"{self._prefix}{folder.name}/{file.name}"
                )
        remove(folder)

    def kept(self) -> list[Kept]:
        """List what is kept."""
        found: dict[str, Kept] = {}
        with self._telling():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for each in page.get("Contents", ()):
                    name, _, file = each["Key"].removeprefix(self._prefix).partition("/")
                    if not file or "/" in file or not _NAME.match(name):
                        continue  # somebody else's
                    before = found.get(name, Kept(name, 0, 0.0))
                    at_s = max(before.at_s, each["LastModified"].timestamp())
                    found[name] = Kept(name, before.num_bytes + each["Size"], at_s)
        return [*found.values()]

    def delete(self, name: str) -> None:
        """Delete a recording."""
        with self._telling():
            listed = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=f"{self._prefix}{name}/"
            )
            keys = [{"Key": each["Key"]} for each in listed.get("Contents", ())]
            if keys:
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys})

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise OSError(f"bucket {self._bucket}: {error}") from error


def make_store(settings: RecordingSettings) -> Store:
    """Return where recordings go.

    Raises:
        ConfigError: a package is missing.
    """
    return S3Store(settings.s3) if settings.s3.bucket else FolderStore(settings.dir)


def enforce(
    store: Store,
    settings: RecordingSettings,
    clock: Callable[[], float] = time.time,
) -> list[str]:
    """Delete what is kept too long, or is too much; returns the names, oldest first.

    Raises:
        OSError: the store cannot be asked.
    """
    if not settings.keep_days and not settings.max_bytes:
        return []
    kept = sorted(store.kept(), key=lambda each: (each.at_s, each.name))
    # Oldest first. For example, of 4, 3 and 5 GB with a limit of 9, the first goes, and 8 stay.
    too_many = sum(each.num_bytes for each in kept) - settings.max_bytes
    gone: list[str] = []
    for each in kept:
        is_old = settings.keep_days and clock() - each.at_s > settings.keep_days * _DAY_S
        if not is_old and not (settings.max_bytes and too_many > 0):
            continue
        store.delete(each.name)
        too_many -= each.num_bytes
        gone.append(each.name)
    return gone
