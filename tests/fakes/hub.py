"""A hub on this machine: repositories of a few bytes, answered as huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import HfApi

_SMALL = 20  # bytes, up to which a file is in git itself, without a sha256


@dataclass(slots=True)
class Repo:
    """One repository.

    Attributes:
        files: contents of each commit, by the names of both.
        branches: the commit that each names.
        error: what is answered instead, as the hub's own code; "" for nothing.
    """

    files: dict[str, dict[str, bytes]]
    branches: dict[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(slots=True)
class FakeHub:
    """What the hub has, and what it was asked.

    Attributes:
        repos: by owner and name.
        api: to be given to what is tested.
        asked: method and path of every request, in order.
        broken_after: bytes after which a download breaks off, once; None for never.
        ranges: from where downloads went on.
    """

    repos: dict[str, Repo]
    api: HfApi
    asked: list[str] = field(default_factory=list)
    broken_after: int | None = None
    ranges: list[int] = field(default_factory=list)


def commit(number: int) -> str:
    """Return a name as commits have them."""
    return f"{number:040x}"


def repo(files: Mapping[str, bytes], number: int = 1) -> Repo:
    """Return a repository with one commit, the newest."""
    return Repo({commit(number): dict(files)}, {"main": commit(number)})


@contextmanager
def fake_hub(repos: dict[str, Repo]) -> Iterator[FakeHub]:
    """Serve repositories as long as it is open."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub = FakeHub(repos, HfApi(endpoint=endpoint, token=False))
    server.hub = hub  # type: ignore[attr-defined]  # handlers only know their server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes."""

    def do_HEAD(self) -> None:
        """Say what a file is like."""
        self._answer(has_body=False)

    def do_GET(self) -> None:
        """Give a file, or say what a repository holds."""
        self._answer(has_body=True)

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    @property
    def _hub(self) -> FakeHub:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]  # as above
        return hub

    def _answer(self, *, has_body: bool) -> None:
        path = self.path.partition("?")[0]
        self._hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner_and_name = "/".join(parts[2:4] if is_api else parts[:2])
        repository = self._hub.repos.get(owner_and_name)
        if repository is None or repository.error:
            self._refuse(repository.error if repository else "RepoNotFound")
            return
        asked = parts[5] if is_api else parts[3]
        sha = repository.branches.get(asked, asked)
        if sha not in repository.files:
            self._refuse("RevisionNotFound")
        elif is_api:
            self._describe(owner_and_name, sha, repository.files[sha])
        elif (name := "/".join(parts[4:])) not in repository.files[sha]:
            self._refuse("EntryNotFound")
        else:
            self._give(sha, repository.files[sha][name], has_body=has_body)

    def _refuse(self, code: str) -> None:
        status = {
            "GatedRepo": HTTPStatus.FORBIDDEN, "Broken": HTTPStatus.INTERNAL_SERVER_ERROR,
        }.get(code, HTTPStatus.NOT_FOUND)  # fmt: skip
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "no")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _describe(self, name: str, sha: str, files: Mapping[str, bytes]) -> None:
        siblings = []
        for file, data in files.items():
            sibling = {"rfilename": file, "size": len(data), "blobId": "0" * 40}
            if len(data) > _SMALL:
                digest = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"size": len(data), "sha256": digest, "pointerSize": 130}
            siblings.append(sibling)
        self._send(json.dumps({"id": name, "sha": sha, "siblings": siblings}).encode(), {})

    def _give(self, sha: str, data: bytes, *, has_body: bool) -> None:
        headers = {
            "X-Repo-Commit": sha,
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        if not has_body:
            self.send_response(HTTPStatus.OK)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            return
        start = 0
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").partition("-")[0])
            self._hub.ranges.append(start)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(data[start:], headers, is_part=start > 0)

    def _send(self, data: bytes, headers: Mapping[str, str], *, is_part: bool = False) -> None:
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = self._hub.broken_after
        if cut is not None and "Range" not in self.headers and "ETag" in headers:
            self._hub.broken_after = None
            data = data[:cut]
        self.wfile.write(data)
