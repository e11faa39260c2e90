"""Run a server of one's own for as long as a command needs it."""

import contextlib
import http
import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from server.errors import ParleyError
from server.names import ROOT

_START_TIMEOUT_S = 120.0  # a cold disk may take a while to read PyTorch
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05


class ServerStartError(ParleyError):
    """Report that the server did not come up, with its own last words."""


@contextlib.contextmanager
def local_server(config: Path, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Serve on a free port of the loopback interface; yields the address, such as "ws://…".

    A process of its own: the client's timing then never waits for the server's Python.

    Args:
        config: path of the YAML file.
        overrides: further settings, as "a.b=c".

    Raises:
        ServerStartError: it exited, or was not ready in time.
    """
    # Asked of the system and given back: for a moment somebody else could take it. Then the server
    # says that it is taken, and nothing worse happens.
    port = _free_port()
    # The caller stops it after its last conversation, so there is nothing to drain. Further
    # settings come after these, and so they win.
    ours = [f"server.port={port}", "server.host=127.0.0.1", "server.drain_s=0"]
    settings = [*ours, *overrides]
    command = [sys.executable, "-m", "server.cli", "serve", "--config", str(config.resolve())]
    for setting in settings:
        command += ["--set", setting]
    with tempfile.TemporaryFile("w+") as log:
        # The command is ours, word for word; settings are its arguments, never a shell's.
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)  # noqa: S603
        try:
            _wait_until_ready(process, port, log)
            yield f"ws://127.0.0.1:{port}"
        finally:
            # SIGTERM, so that it can end its engine's process; what does not end in time is killed.
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise ServerStartError(f"the server stopped: {_last_words(log)}")
        if _is_ready(port):
            return
        time.sleep(_POLL_S)
    raise ServerStartError(f"the server was not ready within {_START_TIMEOUT_S:.0f} s")


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_POLL_S * 20)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    # The command ends with one line that says what is wrong; above it is only how far it came.
    return lines[-1].removeprefix("parley: ") if lines else "it said nothing"
