"""Let requests in: by where they come from, and by their key."""

import contextlib
import re
from collections.abc import Callable, Collection, Iterator

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from server.config.server import KeyScope, is_loopback
from server.session.accounts import Account
from server.session.drain import DRAINING
from server.session.link import NOT_READY
from server.session.session import Session
from server.transport.api_keys import ApiKey
from server.transport.auth import Admitted, admitted, check_api_key, is_welcome_origin, offered_key
from server.transport.envelope import RETRY_AFTER_S, RefusedError, error_response
from server.transport.ephemeral import EphemeralKey
from server.transport.gateway import Gateway
from server.transport.models import ServedModel

# What whoever watches over servers asks for; the last has a key of its own.
_WATCHED = frozenset(("/livez", "/readyz", "/healthz"))
_WATCHED_WITH_KEY = _WATCHED | {"/metrics"}
# A host name or address, and perhaps a port: RFC 9110, 7.2.
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/?#]+)(:\d{1,5})?")
# Azure's addresses, where a key may be in the query as well.
_AZURE = "/openai/"
# RFC 9110, section 15.5.2: who you are is not known. What may not be done, although that is known,
# is 403 (section 15.5.4), and no reason to slow anybody down.
_WRONG_KEY = 401
# Pages cannot set headers of a WebSocket; what stands in an address is logged.
_SECRET_HEADER = "parley-resume"  # noqa: S105 - a name
_SECRET_SUBPROTOCOL = "parley-resume."  # noqa: S105 - the same


class KnownHosts:
    """Refuse requests that name a host which the server is not known by: ASGI middleware.

    A server without keys is protected by its loopback address alone. A page on the web can point
    its own name at 127.0.0.1 after it was loaded (DNS rebinding); then the browser takes the server
    for that page's own, and only the `Host` header tells.

    Args:
        app: that the others get to.
        names: it is known by, `*.example.com` for all below; those of this machine besides.
        has_keys: whether keys are needed.
    """

    def __init__(
        self, app: ASGIApp, names: Collection[str] = (), *, has_keys: bool = False
    ) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._watched = _WATCHED_WITH_KEY if has_keys else _WATCHED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests whose `Host` names this machine, or one of the allowed names."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # An example of the attack. A page of evil.example is loaded from its own server. Then its
        # name leads to 127.0.0.1. The page asks evil.example:8000, which is us, and the browser
        # lets it read the answer: to the browser it is the same site. The request still says `Host:
        # evil.example:8000`.
        connection = HTTPConnection(scope)
        # Who watches servers asks by address: a kubelet, and Prometheus, by the pod's.
        is_watched = self._names and scope["path"] in self._watched
        if is_watched or is_known_host(connection.headers.get("host"), self._names):
            await self._app(scope, receive, send)
            return
        if self._names:
            message = "This server does not answer to that name; server.allowed_hosts lists them."
        else:
            message = (
                "Without API keys this server answers to the names of this machine only, such as "
                "localhost or 127.0.0.1."
            )
        answer = error_response(RefusedError(403, message, code="forbidden"))
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer)
        else:
            await answer(scope, receive, send)


def is_known_host(host: str | None, names: Collection[str] = ()) -> bool:
    """Say whether a `Host` header names this machine or one of some names, in lower case.

    A request without one is HTTP/1.0's.
    """
    if host is None:
        return True
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    # `*.example.com` is for voice.example.com and for a.voice.example.com.
    above = (f"*{name[at:]}" for at, letter in enumerate(name) if letter == ".")
    return is_loopback(name) or name in names or any(each in names for each in above)


def check_origin(connection: HTTPConnection, gateway: Gateway) -> None:
    """Refuse another site's page: where no key protects the server, or only some may use it.

    Raises:
        RefusedError: it is one.
    """
    headers, allowed = connection.headers, gateway.settings.server.allowed_origins
    origin, host = headers.get("origin"), headers.get("host")
    if not is_welcome_origin(origin, host, allowed, has_keys=bool(gateway.api_keys)):
        raise RefusedError(403, "Pages of other sites may not use this server.", code="forbidden")


async def let_backend_in(
    connection: HTTPConnection, scope: KeyScope | None = None
) -> ApiKey | None:
    """Let in who has an API key; returns it, None where none is needed.

    Args:
        connection: the request.
        scope: what is wanted; None for what every key may.

    Raises:
        RefusedError: the key is missing or wrong or may not do this, or too many wrong ones came
            from there.
    """
    gateway, key = _gateway(connection), _key(connection)
    await _wait(connection, gateway, key)
    try:
        return check_api_key(key, gateway.api_keys, scope)
    except RefusedError as error:
        _note(connection, gateway, key, error)
        raise


async def let_session_in(connection: HTTPConnection) -> Admitted:
    """Let in who may have a session; returns by what it comes.

    Raises:
        RefusedError: the key is missing, wrong or expired or may not do this, or too many wrong
            ones came from there.
    """
    gateway, key = _gateway(connection), _key(connection)
    await _wait(connection, gateway, key)
    try:
        return admitted(key, gateway.api_keys, gateway.keys)
    except RefusedError as error:
        _note(connection, gateway, key, error)
        raise


async def let_back_in(connection: HTTPConnection, session_id: str) -> Session:
    """Let a client back into its session, by the secret that it was told.

    Raises:
        RefusedError: there is no such session, or the secret is wrong, or too many wrong keys came
            from that address.
    """
    gateway = _gateway(connection)
    offered = connection.scope.get("subprotocols", [])
    secret = connection.headers.get(_SECRET_HEADER) or next(
        (each[len(_SECRET_SUBPROTOCOL) :] for each in offered if _is_secret(each)), ""
    )
    await gateway.tries.wait(_host(connection))
    session = gateway.comebacks.find(session_id, secret)
    if session is None:
        # Which of the two it is, is nobody's business.
        gateway.tries.fail(_host(connection), connection.url.path)
        raise RefusedError(
            404,
            "There is no such session to come back to: it has ended, or the secret is not its own.",
            code="session_not_found",
        )
    return session


def _is_secret(subprotocol: str) -> bool:
    return subprotocol.startswith(_SECRET_SUBPROTOCOL)


@contextlib.contextmanager
def counted(account: Account | None, end: Callable[[str], None]) -> Iterator[None]:
    """Count a session with the API key by which it comes, while it is open.

    Args:
        account: of the key, None without one.
        end: see `Account.opened`.

    Raises:
        RefusedError: the key has had what it may have.
    """
    if account is None:
        yield
        return
    reached = account.reached()
    if reached is not None:
        raise RefusedError(
            429,
            reached.text,
            code="rate_limit_exceeded",
            kind="rate_limit_error",
            retry_after_s=reached.retry_after_s,
        )
    with account.opened(end):
        yield


def check_readiness(model: ServedModel) -> None:
    """Refuse everybody while a model has no engine.

    Raises:
        RefusedError: no session with it can be served.
    """
    if not model.pool.is_running:
        raise not_ready()


def not_ready() -> RefusedError:
    """Make the error for who comes while there is no engine."""
    return RefusedError(503, NOT_READY, code="not_ready", kind="server_error", retry_after_s=1)


def check_draining(gateway: Gateway) -> None:
    """Refuse what would outlive a server that is about to stop.

    Raises:
        RefusedError: it is.
    """
    if gateway.drain.is_begun:
        raise RefusedError(
            503,
            DRAINING,
            code="draining",
            kind="server_error",
            retry_after_s=1,
        )


def check_room(key: EphemeralKey | None) -> None:
    """Refuse one session too many of an ephemeral key.

    Raises:
        RefusedError: so many are open with it already as may be.
    """
    if key is not None and len(key.ends) >= key.max_sessions:
        raise RefusedError(
            429,
            f"This ephemeral key has its {key.max_sessions} sessions open already.",
            code="rate_limit_exceeded",
            kind="rate_limit_error",
            retry_after_s=RETRY_AFTER_S,
        )


def _gateway(connection: HTTPConnection) -> Gateway:
    gateway: Gateway = connection.app.state.gateway
    return gateway


def _key(connection: HTTPConnection) -> str | None:
    key = offered_key(connection.headers, connection.scope.get("subprotocols", ()))
    # In an address a key ends up in logs. Only Azure's clients have no other way.
    if key is None and connection.url.path.startswith(_AZURE):
        return connection.query_params.get("api-key")
    return key


async def _wait(connection: HTTPConnection, gateway: Gateway, key: str | None) -> None:
    if key is not None:
        await gateway.tries.wait(_host(connection))


def _note(
    connection: HTTPConnection, gateway: Gateway, key: str | None, error: RefusedError
) -> None:
    # No key at all is no try, and neither is one that is right and may not do this. Counted by
    # address: whoever guesses sends another key each time, and only the address stays.
    if key is not None and error.status == _WRONG_KEY:
        gateway.tries.fail(_host(connection), connection.url.path)


def _host(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client else None
