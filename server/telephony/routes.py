"""Answer what telephone providers ask: what to do with a call, and its stream.

POST /v1/telephony/{provider}             a call comes → TwiML or TeXML that opens a stream
WS   /v1/telephony/{provider}/{ticket}    that stream
WS   /v1/telephony/telnyx                 a stream that an application started itself
POST /v1/telephony/calls/{call_id}/hangup the end of a call
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response

from server.errors import ClientError, ConfigError, DisconnectedError, OverloadedError
from server.protocol.dialects.ga import GaDialect
from server.session.counts import count_in
from server.session.session import Session
from server.session.transport import Player, Transport
from server.telephony.answers import MEDIA_TYPE, connected, refused
from server.telephony.call import CallParts, PhoneCall
from server.telephony.calls import PATH, PhoneCalls
from server.telephony.messages import MediaFormat, MessageError, Other, Provider, Started, read
from server.transport.body import read_body
from server.transport.door import check_draining, check_readiness, let_backend_in
from server.transport.envelope import RefusedError, at_capacity, error_response
from server.transport.gateway import Gateway
from server.transport.websocket import WebSocketTransport, leave_place

START_S = 10.0
"""For a stream to say which call it is: providers do so at once."""

_CLOSE_POLICY = 1008  # RFC 6455, section 7.4.1
_MAX_FIELDS = 256
_MAX_ID_CHARS = 256
_OWNER = "telephony"

_log = structlog.get_logger("telephone")


def phone_routes(phone: PhoneCalls) -> APIRouter:
    """Return the routes of those providers that are set."""
    router = APIRouter(tags=["telephony"])
    telnyx = phone.settings.telnyx
    providers: list[Provider] = ["twilio"] if phone.settings.twilio.auth_tokens else []
    if telnyx.public_key or telnyx.stream_token:
        providers.append("telnyx")
    for provider in providers:
        place = f"{PATH}/{provider}"
        router.add_api_route(
            place,
            _answering(provider),
            methods=["POST"],
            summary=f"Say what to do with a call, for {provider.title()}",
        )
        router.add_api_websocket_route(place, partial(_serve_stream, provider=provider))
        router.add_api_websocket_route(
            f"{place}/{{ticket}}", partial(_serve_stream, provider=provider)
        )
    router.add_api_route(
        f"{PATH}/calls/{{call_id}}/hangup", hang_up, methods=["POST"], summary="End a call"
    )
    return router


async def check_session(gateway: Gateway, phone: PhoneCalls) -> None:
    """Check the session that calls begin with, as far as that needs a running server.

    Raises:
        ConfigError: a function cannot be compiled.
    """
    try:
        await gateway.schemas.check(_OWNER, dict(phone.settings.session), "session")
    except ClientError as error:
        raise ConfigError(f"telephony.session: {error.message}") from None


# A call comes.


def _answering(provider: Provider) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return await _answered(request, provider)

    return answer


async def _answered(request: Request, provider: Provider) -> Response:
    gateway: Gateway = request.app.state.gateway
    phone: PhoneCalls = request.app.state.phone
    try:
        body = await read_body(request)
        form = _form(body)
        query = f"?{request.url.query}" if request.url.query else ""
        phone.check_webhook(provider, request.headers, f"/{provider}{query}", form, body)
        fields = dict(form)
        call_id = _call_id(fields)
    except ClientError as error:
        count_in(gateway.counts.phone_calls_refused, str(error.code))
        raise
    try:
        check_draining(gateway)
        check_readiness(phone.model)
        with phone.model.pool.place():
            pass  # there is a free slot; it is reserved from the stream's handshake on
    except (RefusedError, OverloadedError) as error:
        code = error.code if isinstance(error, RefusedError) else "rate_limit_exceeded"
        count_in(gateway.counts.phone_calls_refused, str(code))
        _log.warning("call refused", provider=provider, call_id=call_id, reason=code)
        return Response(refused(phone.settings.busy_text), media_type=MEDIA_TYPE)
    # The address of the webhook is signed as well, so parameters in it can be trusted: they are
    # passed on to the call.
    own = dict(parse_qsl(request.url.query, max_num_fields=_MAX_FIELDS))
    facts = {name: fields[key] for name, key in (("from", "From"), ("to", "To")) if key in fields}
    url = phone.stream_url(provider, call_id)
    return Response(connected(provider, url, own | facts), media_type=MEDIA_TYPE)


def _call_id(fields: Mapping[str, str]) -> str:
    call_id = fields.get("CallSid", "")
    if not 0 < len(call_id) <= _MAX_ID_CHARS:
        raise ClientError("The form has no CallSid.", code="missing_required_parameter")
    return call_id


def _form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        message = f"The body is not a form of at most {_MAX_FIELDS} fields."
        raise ClientError(message, code="invalid_value") from None


async def hang_up(request: Request) -> Response:
    """End a call."""
    await let_backend_in(request, "sessions")
    phone: PhoneCalls = request.app.state.phone
    phone.find(request.path_params["call_id"]).hang_up()
    return Response(status_code=200)


# Its stream.


async def _serve_stream(socket: WebSocket, provider: Provider) -> None:
    gateway: Gateway = socket.app.state.gateway
    phone: PhoneCalls = socket.app.state.phone
    gateway.counts.connections += 1
    with contextlib.ExitStack() as place:
        ticket = socket.path_params.get("ticket")
        # Its caller was told that it is connected before the drain began, which waits for it.
        is_expected = phone.is_expected(ticket)
        try:
            call_id, sends = phone.admit(provider, socket.headers, ticket)
            if not is_expected:
                check_draining(gateway)
            check_readiness(phone.model)
            try:
                # The slot is reserved until the stream has said which call it is and the session
                # has it.
                place.enter_context(phone.model.pool.place())
            except OverloadedError:
                raise at_capacity(phone.model.pool.max_sessions) from None
        except RefusedError as error:
            count_in(gateway.counts.refused, str(error.code))
            count_in(gateway.counts.phone_calls_refused, str(error.code))
            await socket.send_denial_response(error_response(error))
            return
        await socket.accept()
        transport = WebSocketTransport(socket)
        try:
            started = await _started(transport, provider, call_id)
            call = _new_call(gateway, phone, provider, started, transport, sends, place)
            phone.add(call)
        except (MessageError, RefusedError, DisconnectedError) as error:
            code = str(error.code) if isinstance(error, RefusedError) else "no_start"
            count_in(gateway.counts.phone_calls_refused, code)
            _log.warning("stream refused", provider=provider, error=str(error))
            await transport.close_with(_CLOSE_POLICY, str(error)[:120])
            return
        leave_place(socket)
        await _held(gateway, phone, call, provider)


async def _started(
    transport: WebSocketTransport, provider: Provider, call_id: str | None
) -> Started:
    """Wait until a stream says which call it is.

    Args:
        transport: the stream.
        provider: whose.
        call_id: the call that the stream must be for; None for any.

    Raises:
        MessageError: it does not, or not in time, or it is another one.
        DisconnectedError: it is gone.
    """
    try:
        async with asyncio.timeout(START_S):
            message = read(await transport.receive(), provider)
            if isinstance(message, Other) and message.event == "connected":
                message = read(await transport.receive(), provider)
    except TimeoutError:
        raise MessageError(f"no 'start' came within {START_S:g} s") from None
    if not isinstance(message, Started):
        raise MessageError("the stream's first messages are not 'connected' and 'start'")
    if call_id is not None and message.call_id != call_id:
        raise MessageError("the stream is another call's than the one it was opened for")
    return message


def _new_call(
    gateway: Gateway,
    phone: PhoneCalls,
    provider: Provider,
    started: Started,
    transport: WebSocketTransport,
    sends: MediaFormat,
    place: contextlib.ExitStack,
) -> PhoneCall:
    def new_session(line: Transport, player: Player) -> Session:
        return gateway.new_session(
            phone.model, line, GaDialect(), phone.config, player, carrier="telephony"
        )

    parts = CallParts(
        phone.settings,
        phone.model.pool.info.sample_rate_hz,
        gateway.settings.server.send_timeout_s,
        new_session,
        place.close,
    )
    return PhoneCall(provider, started, transport, sends, parts)


async def _held(gateway: Gateway, phone: PhoneCalls, call: PhoneCall, provider: Provider) -> None:
    count_in(gateway.counts.phone_calls, provider)
    reason = "stopping"
    try:
        reason = await call.run()
    finally:
        phone.forget(call)
        count_in(gateway.counts.phone_calls_ended, reason)
