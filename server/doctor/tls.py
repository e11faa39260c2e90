"""Whether clients will trust the certificate, and for how long."""

import datetime as dt
import itertools
import ssl
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from server.config.server import ServerSettings
from server.doctor.finding import Finding, error, ok, skipped, warning
from server.errors import ConfigError
from server.transport.certificate import check_certificate

# Let's Encrypt's clients renew 30 days before the end: with 14 left something has failed twice.
_DAYS_LEFT = 14
_NEW = "get a new certificate from whoever issued it"


def check_tls(
    settings: ServerSettings, now: dt.datetime, roots: Collection[x509.Name]
) -> Iterator[Finding]:
    """Look at the configured certificate, its chain and its key.

    Args:
        settings: of the server.
        now: what time it is.
        roots: names of the authorities that this machine trusts.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        yield skipped("tls", "server.tls_certificate is not set")
        return
    try:
        # OpenSSL also refuses keys and signatures that are too weak: Python asks for its level 2,
        # which is 112 bits (ssl, "Changed in version 3.10").
        check_certificate(settings)
    except ConfigError as problem:
        yield error(
            "tls.files",
            str(problem),
            "give the files as PEM, the certificate with its own key, on P-256 or of RSA with "
            "2,048 bits or more",
        )
        return
    yield ok("tls.files", "certificate and key can be read, and belong together")
    chain = x509.load_pem_x509_certificates(settings.tls_certificate.read_bytes())
    yield _time(chain, now)
    yield _names(chain[0])
    yield _chain(chain, roots)
    yield _secrecy(settings.tls_key)


def trusted_roots() -> frozenset[x509.Name]:
    """Return the names of the authorities that this machine trusts."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    with warnings.catch_warnings():
        # One authority of the usual list has a serial number of zero, which is not our affair.
        warnings.simplefilter("ignore")
        return frozenset(x509.load_der_x509_certificate(each).subject for each in found)


def _time(chain: list[x509.Certificate], now: dt.datetime) -> Finding:
    # Whichever ends first: a chain is as old as its oldest part.
    begin = max(each.not_valid_before_utc for each in chain)
    end = min(each.not_valid_after_utc for each in chain)
    if now < begin:
        return error(
            "tls.expiry", f"it is valid from {begin:%F %T} UTC on, and now is {now:%F %T}",
            "set this machine's clock, or wait",
        )  # fmt: skip
    if now >= end:
        return error("tls.expiry", f"it ended on {end:%F %T} UTC", _NEW)
    if end - now < dt.timedelta(days=_DAYS_LEFT):
        return warning(
            "tls.expiry", f"it ends in {(end - now).days} days, on {end:%F}",
            f"{_NEW}, and restart the server: it reads the files when it starts",
        )  # fmt: skip
    return ok("tls.expiry", f"it ends in {(end - now).days} days, on {end:%F}")


def _names(leaf: x509.Certificate) -> Finding:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in extension]
    except x509.ExtensionNotFound:
        names = []
    if not names:
        # RFC 9525, section 6.1: the common name is not looked at any more.
        return error(
            "tls.names", "it names no host (subjectAltName)",
            "get one with a subjectAltName of the name that clients connect to",
        )  # fmt: skip
    return ok("tls.names", f"it is for {', '.join(names)}")


def _chain(chain: list[x509.Certificate], roots: Collection[x509.Name]) -> Finding:
    name = "tls.chain"
    for each, issuer in itertools.pairwise(chain):
        try:
            each.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            return error(
                name,
                f"{each.subject.rfc4514_string()} was not issued by the next in the file, "
                f"{issuer.subject.rfc4514_string()}",
                "put the server's certificate first, then each issuer after what it issued",
            )
    last = chain[-1]
    if last.issuer in roots:
        return ok(name, "it leads to an authority that this machine trusts")
    if last.subject == last.issuer:
        return warning(
            name,
            "it ends with an authority of its own, which clients have to be told to trust",
            "nothing, if they are told; else get a certificate of a public authority",
        )
    return warning(
        name,
        f"the issuer {last.issuer.rfc4514_string()} is neither in the file nor trusted here: most "
        "clients will not get any further",
        "append the issuer's certificate (often called chain or fullchain) to the file",
    )


def _secrecy(key: Path) -> Finding:
    if key.stat().st_mode & 0o007:
        return warning(
            "tls.key_file", f"{key} can be read by every user of this machine", f"chmod o= {key}"
        )
    return ok("tls.key_file", "others cannot read the key")
