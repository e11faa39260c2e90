"""Certificates as they come: too old, too new, in the wrong order, weak."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from server.config.server import ServerSettings
from server.doctor.tls import check_tls, trusted_roots
from server.transport.certificate import self_signed

NOW = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        """Return the certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Return its key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def made(
    name: str,
    issuer: Signer | None = None,
    *,
    days: tuple[int, int] = (-10, 80),
    names: tuple[str, ...] = ("voice.example",),
    rsa_bits: int = 0,
) -> Signer:
    """Make a certificate that begins and ends so many days from now."""
    key = rsa.generate_private_key(65_537, rsa_bits) if rsa_bits else _curve_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=days[0]))
        .not_valid_after(NOW + dt.timedelta(days=days[1]))
    )
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternative, critical=False)
    return Signer(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


ROOT = made("root", days=(-1_000, 1_000))
MIDDLE = made("middle", ROOT, days=(-500, 500))
GOOD = made("voice.example", MIDDLE)


def _looked(tmp_path: Path, *chain: Signer, key: Signer | None = None) -> dict[str, str]:
    """Write a chain, look at it, and return status by check."""
    certificate, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(each.pem for each in chain))
    key_file.write_bytes((key or chain[0]).key_pem)
    key_file.chmod(0o600)
    settings = ServerSettings(tls_certificate=certificate, tls_key=key_file)
    roots = {ROOT.certificate.subject}
    return {found.check: found.status for found in check_tls(settings, NOW, roots)}


def _bad(looked: dict[str, str]) -> dict[str, str]:
    return {check: status for check, status in looked.items() if status != "ok"}


def test_a_whole_chain(tmp_path: Path) -> None:
    """With the root left out, as it should be."""
    assert not _bad(_looked(tmp_path, GOOD, MIDDLE))


@pytest.mark.parametrize(
    ("chain", "bad"),
    [
        ((made("a", MIDDLE, days=(-80, -1)), MIDDLE), {"tls.expiry": "error"}),
        ((made("a", MIDDLE, days=(2, 80)), MIDDLE), {"tls.expiry": "error"}),
        ((made("a", MIDDLE, days=(-80, 5)), MIDDLE), {"tls.expiry": "warning"}),
        ((made("a", MIDDLE, names=()), MIDDLE), {"tls.names": "error"}),
        ((made("a", MIDDLE, rsa_bits=1_024), MIDDLE), {"tls.files": "error"}),
        ((GOOD,), {"tls.chain": "warning"}),
        ((GOOD, ROOT), {"tls.chain": "error"}),
        ((made("of its own"),), {"tls.chain": "warning"}),
        ((GOOD, made("middle", ROOT)), {"tls.chain": "error"}),
    ],
    ids=[
        "ended", "not yet", "soon", "no name", "weak", "no issuer", "a gap", "self-signed",
        "a namesake",
    ],
)  # fmt: skip
def test_what_clients_would_refuse(
    tmp_path: Path, chain: tuple[Signer, ...], bad: dict[str, str]
) -> None:
    """Each by its check, and nothing else with it."""
    assert _bad(_looked(tmp_path, *chain)) == bad


def test_the_key_of_another(tmp_path: Path) -> None:
    """It ends there: what cannot be loaded is not looked at any further."""
    assert _looked(tmp_path, GOOD, MIDDLE, key=ROOT) == {"tls.files": "error"}


def test_a_key_that_everybody_can_read(tmp_path: Path) -> None:
    """A warning; and what is made by Parley itself is kept from others."""
    certificate, key = self_signed(tmp_path, "127.0.0.1")
    settings = ServerSettings(tls_certificate=certificate, tls_key=key)

    def status() -> str:
        now = dt.datetime.now(dt.UTC)
        found = {each.check: each.status for each in check_tls(settings, now, ())}
        return found["tls.key_file"]

    assert status() == "ok"
    key.chmod(0o644)
    assert status() == "warning"


def test_none_is_set() -> None:
    """Then there is nothing to look at."""
    (found,) = check_tls(ServerSettings(), NOW, ())
    assert found.status == "skipped"


def test_this_machine_trusts_somebody() -> None:
    """The roots come from where Python's own connections have them."""
    assert all(isinstance(each, x509.Name) for each in trusted_roots())
