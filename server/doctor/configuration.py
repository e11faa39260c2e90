"""What the settings allow that their author may not have meant."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from server.config.filters import ChatCheck, ModerationsCheck
from server.config.server import ServerSettings, is_loopback
from server.config.settings import Settings
from server.doctor.finding import Finding, error, ok, skipped, warning
from server.doctor.host import Host
from server.doctor.strength import random_bits
from server.transport.door import is_known_host

# What 16 and 32 hexadecimal digits at random have at least, by that estimate, but for one in a
# thousand. A key is tried over the network, a secret as fast as a machine hashes.
_KEY_BITS, _SECRET_BITS = 35, 90
# A network of proxies is a few hundred addresses; half of the internet is not.
_WIDEST_PREFIX = {4: 8, 6: 16}


def check_keys(server: ServerSettings) -> Iterator[Finding]:
    """Look at keys and secrets; none is ever shown."""
    if not server.has_keys:
        yield skipped("keys.strength", "no keys are set: only this machine can connect")
        return
    yield from _guessable(
        "keys.strength",
        server.api_keys,
        _KEY_BITS,
        "key {} of server.api_keys can be guessed: it has words or patterns",
        "make another: `parley key NAME`, or `openssl rand -hex 24`",
    ) or [ok("keys.strength", "no key looks as if somebody made it up")]
    if not server.key_secrets:
        yield skipped("keys.secrets", "ephemeral keys work on this server alone, until it restarts")
        return
    wrong = _guessable(
        "keys.secrets",
        server.key_secrets,
        _SECRET_BITS,
        "secret {} of server.key_secrets can be guessed: whoever does makes keys",
        "make another: `openssl rand -hex 32`",
    )
    if shared := set(server.key_secrets) & set(server.api_keys):
        wrong.append(
            error(
                "keys.secrets",
                f"{len(shared)} of server.key_secrets is an API key as well: its holder can make "
                "keys",
                "make a secret of its own: `openssl rand -hex 32`",
            )
        )
    yield from wrong or [ok("keys.secrets", "no secret looks as if somebody made it up")]


def _guessable(
    check: str, secrets: Sequence[str], bits: int, found: str, mend: str
) -> list[Finding]:
    """Return an error for each secret with fewer bits, which `found` names by its number."""
    return [
        error(check, found.format(number), mend)
        for number, secret in enumerate(secrets, 1)
        if random_bits(secret) < bits
    ]


def check_exposure(
    settings: Settings, host: Host, *, config: Path, guessed: Mapping[str, int]
) -> Iterator[Finding]:
    """Look at what strangers may do.

    Args:
        settings: of the server.
        host: whose process it is.
        config: file that the settings are from.
        guessed: models of which neither `parley capacity` nor the settings have said how many
            sessions there may be, and how many are let in.
    """
    yield from _proxies(settings.server)
    yield from _limits(settings)
    yield from _hosts(settings)
    yield from _elsewhere(settings)
    yield from _files(settings, config)
    if is_loopback(settings.server.host):
        yield skipped("config.public", "only this machine can connect")
        return
    warnings = list(_public(settings, host, guessed))
    yield from warnings or [ok("config.public", "what strangers may do is bounded")]


def _public(settings: Settings, host: Host, guessed: Mapping[str, int]) -> Iterator[Finding]:
    """Yield what matters once others can reach the server."""
    server = settings.server
    has_proxy = any(not _is_of_this_machine(each) for each in server.trusted_proxies)
    if server.tls_certificate is None and not has_proxy:
        yield warning(
            "config.plain",
            f"{server.host} can be reached from elsewhere, without TLS: keys and voices can be "
            "read on the way, and browsers give pages no microphone",
            "set server.tls_certificate and server.tls_key, or put a proxy in front and name it in "
            "server.trusted_proxies",
        )
    if server.api_keys:
        yield warning(
            "config.plain_keys",
            "server.api_keys has keys as they are: who reads the configuration can use them",
            "use server.keys, which has hashes: `parley key NAME`",
        )
    unbounded = [key.name for key in server.keys if not key.limits.model_dump(exclude_none=True)]
    if unbounded:
        yield warning(
            "config.key_limits",
            f"{', '.join(unbounded)}: may take every session, without limits",
            "set limits (max_sessions, minutes_a_day, sessions_a_minute); docs/deploy.md has them",
        )
    if not server.session_limit_s or not server.idle_limit_s:
        yield warning(
            "config.session_limit",
            "a session may last for ever, and keeps its place: server.max_session_s or "
            "server.idle_session_s is 0",
            "leave them out: an hour, and ten minutes without a word",
        )
    if server.has_openapi:
        yield warning(
            "config.openapi", "server.openapi describes the HTTP side to everybody",
            "leave it out, unless you mean it",
        )  # fmt: skip
    for name, sessions in guessed.items():
        yield warning(
            "config.capacity",
            f"nobody knows how many sessions with {name} this machine holds; {sessions} are let in",
            "run `parley capacity`, or set max_sessions of its engine",
        )
    if host.user_id == 0:
        yield warning(
            "config.root", "the server would run as root", "run it as a user of its own; the image "
            "does, and so does systemd with User= and DynamicUser=",
        )  # fmt: skip
    if not server.drain_s:
        yield warning(
            "config.drain", "server.drain_s is 0: a restart cuts every call",
            "leave it out (25 s), or set it to the length of your calls",
        )  # fmt: skip


def _proxies(server: ServerSettings) -> Iterator[Finding]:
    for each in server.trusted_proxies:
        if _is_wide(each):
            yield error(
                "config.proxies",
                f"server.trusted_proxies has {each}: anybody could say by X-Forwarded-For who they "
                "are, and guess keys without being slowed down",
                "name the addresses of your proxies only",
            )


def _limits(settings: Settings) -> Iterator[Finding]:
    timed = [key.name for key in settings.server.keys if key.limits.minutes_a_day is not None]
    if timed and settings.usage.ledger is None:
        yield warning(
            "config.key_minutes",
            f"{', '.join(timed)}: minutes_a_day begins anew whenever the server is restarted",
            "set usage.ledger: what was used today is read from it",
        )


def _hosts(settings: Settings) -> Iterator[Finding]:
    known, telephony = settings.server.allowed_hosts, settings.telephony
    if not known or not telephony.is_on or telephony.public_url is None:
        return
    # The server knows names in lower case.
    name = urlsplit(telephony.public_url).netloc
    if not is_known_host(name, [each.lower() for each in known]):
        yield error(
            "config.hosts",
            f"providers call {name}, which is not in server.allowed_hosts: every call is refused",
            "add it there, or correct telephony.public_url",
        )


def _is_wide(proxy: str) -> bool:
    if proxy == "*":
        return True
    try:
        network = ipaddress.ip_network(proxy, strict=False)
    except ValueError:
        return False  # a socket's path
    return network.prefixlen < _WIDEST_PREFIX[network.version]


def _is_of_this_machine(proxy: str) -> bool:
    try:
        return ipaddress.ip_network(proxy, strict=False).is_loopback
    except ValueError:
        return False


def _elsewhere(settings: Settings) -> Iterator[Finding]:
    """Yield what matters of other servers that are asked, and of TURN."""
    if "*" in settings.mcp.allowed:
        yield warning(
            "config.mcp", "mcp.allowed has *: clients may name any MCP server on the internet",
            "list the hosts that you mean",
        )  # fmt: skip
    for name, url in {name: url for name, url, _ in _tokens(settings)}.items():
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield warning(
                "config.tokens", f"{name}: its token crosses the network in the clear",
                "use its https address",
            )  # fmt: skip
    if settings.approvals.rules and settings.approvals.audit_file is None:
        yield warning(
            "config.audit", "calls are held for a person's yes, and no file says who gave it",
            "set approvals.audit_file",
        )  # fmt: skip
    for ice in settings.webrtc.ice_servers:
        if ice.credential is not None and any(url.startswith("turn") for url in ice.urls):
            yield warning(
                "config.turn",
                f"{ice.urls[0]}: every client is given the same credential, which never ends",
                "set a secret in its place, shared with the TURN server (coturn: use-auth-secret)",
            )


def _tokens(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield each token for another server: its setting, the address that it is for, itself."""
    for label, server in settings.mcp.servers.items():
        for token in filter(None, (server.authorization, *server.headers.values())):
            yield f"mcp.servers.{label}", server.url or "", token
    delegate = settings.delegate
    for token in filter(None, (delegate.authorization, *delegate.headers.values())):
        yield "delegate.url", delegate.url or "", token
    for number, check in enumerate(settings.filters.checks):
        if isinstance(check, ModerationsCheck | ChatCheck) and check.api_key:
            yield f"filters.checks.{number}", check.url, check.api_key


def _files(settings: Settings, config: Path) -> Iterator[Finding]:
    server = settings.server
    tokens = (token for _, _, token in _tokens(settings))
    secrets = (*server.api_keys, *server.key_secrets, *tokens)
    if secrets and config.is_file() and config.stat().st_mode & 0o004:
        text = config.read_text(encoding="utf-8", errors="replace")
        if any(secret in text for secret in secrets):
            yield warning(
                "config.file", f"{config} has secrets, and every user of this machine can read it",
                f"chmod o= {config}, or give them by the environment",
            )  # fmt: skip
