"""Certificates for TLS: check what is configured, and make one for trying it out."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.config.server import ServerSettings
from server.errors import ConfigError

# Beside each other, and kept: a client is told once to trust the first of them.
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
_DAYS = 90
# Made anew this long before its end, so that it does not end in a long trial.
_DAYS_LEFT = 7


def check_certificate(settings: ServerSettings) -> None:
    """Load the configured certificate and key, so that what is wrong with them is said at start.

    Raises:
        ConfigError: a file cannot be read, or they do not belong together.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        # No password: an encrypted key would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=""
        )
    except (OSError, ssl.SSLError, ValueError) as error:
        # Neither says which of the files it is about.
        for name, path in (
            ("tls_certificate", settings.tls_certificate),
            ("tls_key", settings.tls_key),
        ):
            if not path.is_file():
                raise ConfigError(f"server.{name}: {path} does not exist") from None
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"server.tls_certificate: {settings.tls_certificate} and {settings.tls_key} cannot be "
            f"used: {reason}; expected a certificate and its unencrypted key, both as PEM"
        ) from None


def self_signed(directory: Path, host: str) -> tuple[Path, Path]:
    """Return the files of a certificate that is signed with its own key, and of that key.

    They are made only where there are none that are still valid. So a client that trusts the
    certificate can go on doing so.

    Args:
        directory: for both files.
        host: that it is for, besides the names of this machine.
    """
    certificate, key = directory / _CERTIFICATE, directory / _KEY
    if not _holds(certificate, key, host):
        _make(certificate, key, host)
    return certificate, key


def _names(host: str) -> list[x509.GeneralName]:
    """Return whom the certificate is for."""
    # Clients compare the address they dialled with these names, and not with the common name (RFC
    # 9525). A number is an iPAddress there and a name a dNSName (RFC 5280, section 4.2.1.6).
    texts = dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
    return [_name(text) for text in texts if text not in ("0.0.0.0", "::", "")]  # noqa: S104 - no name


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _holds(certificate: Path, key: Path, host: str) -> bool:
    if not (certificate.is_file() and key.is_file()):
        return False
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    left = found.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left > dt.timedelta(days=_DAYS_LEFT) and list(names) == _names(host)


def _make(certificate: Path, key: Path, host: str) -> None:
    # P-256: every client has it, and a key is made at once.
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Parley, for trying it out")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A client's clock may be somewhat slow, and would take a fresh certificate for one of the
        # future.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        # It can sign no other certificate. So a thief of this key cannot make one for other names.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.parent.mkdir(parents=True, exist_ok=True)
    # Made before it is written: at no moment can another user of the machine read it.
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
