"""TLS by two settings, and by a certificate of our own."""

import json
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from server.config.server import ServerSettings
from server.config.settings import Settings
from server.errors import ConfigError
from server.transport.certificate import check_certificate, self_signed
from tests.server.fakes import EchoEngine
from tests.server.serving import serving


async def test_a_session_over_tls(tmp_path: Path) -> None:
    """With a client that trusts the certificate, and checks it."""
    certificate, key = self_signed(tmp_path, "127.0.0.1")
    assert key.stat().st_mode & 0o077 == 0
    before = certificate.read_bytes()
    self_signed(tmp_path, "127.0.0.1")
    assert certificate.read_bytes() == before, "it is kept"
    settings = Settings(server=ServerSettings(tls_certificate=certificate, tls_key=key))
    check_certificate(settings.server)
    trust = ssl.create_default_context(cafile=str(certificate))
    async with serving(EchoEngine(), settings) as served:
        url = served.url.replace("ws:", "wss:")
        async with connect(f"{url}/v1/realtime", ssl=trust) as client:
            assert json.loads(await client.recv())["type"] == "session.created"


def test_what_cannot_be_used_is_said_at_start(tmp_path: Path) -> None:
    """A missing file, a wrong one, one without the other."""
    certificate, _ = self_signed(tmp_path, "localhost")
    missing = ServerSettings(tls_certificate=certificate, tls_key=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"tls_key: .*none\.pem does not exist"):
        check_certificate(missing)
    with pytest.raises(ConfigError, match="cannot be used"):
        check_certificate(ServerSettings(tls_certificate=certificate, tls_key=certificate))
    with pytest.raises(ValueError, match="belong together"):
        ServerSettings(tls_certificate=certificate)
