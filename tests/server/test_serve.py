"""The address to serve on; test_ending.py has how a server ends."""

import contextlib
import socket

import pytest

from server.errors import ConfigError
from server.serve import listening_socket


def test_a_busy_port_is_a_clear_error() -> None:
    """The message names the port and a way out."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port} on 127.0.0.1 is in use") as caught:
            listening_socket("127.0.0.1", port)
        assert f"server.port={port + 1}" in str(caught.value)


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    """Only addresses of this machine can be listened on."""
    with pytest.raises(ConfigError, match=r"server\.host: cannot listen on 192\.0\.2\.1"):
        listening_socket("192.0.2.1", 0)
