"""Hold the telephone calls of a server, and check who may begin one."""

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from server.config.settings import Settings
from server.config.telephony import TelephonySettings
from server.errors import ClientError, ConfigError
from server.protocol.settings.config import SessionConfig
from server.session.session import Session
from server.telephony.call import PhoneCall
from server.telephony.messages import MediaFormat, Provider
from server.telephony.signatures import (
    TELNYX_HEADER,
    TELNYX_TIME_HEADER,
    TELNYX_TOKEN_HEADER,
    TWILIO_HEADER,
    TelnyxVerifier,
    is_twilio,
)
from server.telephony.tickets import Tickets
from server.transport.envelope import RefusedError
from server.transport.models import Models, ServedModel, asked_model

PATH = "/v1/telephony"


class PhoneCalls:
    """Check who calls, and know the calls there are.

    Args:
        settings: of the whole server.
        models: that there are.
        clock: Unix time in seconds.

    Raises:
        ConfigError: the session that calls begin with is not valid, or a key is not one.

    Attributes:
        settings: of telephony.
        model: that all calls have.
        config: that they begin with.
    """

    def __init__(
        self, settings: Settings, models: Models, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings: TelephonySettings = settings.telephony
        self.model, self.config = _begun_with(self.settings, models)
        self._tickets = Tickets(settings.server.key_secrets, clock)
        self._verifier = _verifier(self.settings, clock)
        self._calls: dict[str, PhoneCall] = {}

    # The book of calls.

    @property
    def num_calls(self) -> int:
        """Count the calls there are."""
        return len(self._calls)

    @property
    def num_expected(self) -> int:
        """Count the calls whose webhook was answered here a moment ago, and that are to come."""
        return self._tickets.num_expected

    def is_expected(self, ticket: str | None) -> bool:
        """Say whether a stream is that of such a call."""
        return ticket is not None and self._tickets.is_expected(ticket)

    def add(self, call: PhoneCall) -> None:
        """Know a call.

        Raises:
            RefusedError: there is one of this id already.
        """
        if call.id in self._calls:
            raise RefusedError(409, "This call has a stream already.", code="call_has_stream")
        self._calls[call.id] = call

    def forget(self, call: PhoneCall) -> None:
        """Know a call no more."""
        del self._calls[call.id]

    def has(self, call_id: str) -> bool:
        """Say whether there is a call of this id."""
        return call_id in self._calls

    def find(self, call_id: str) -> PhoneCall:
        """Return a call.

        Raises:
            RefusedError: there is none of this id here.
        """
        call = self._calls.get(call_id)
        if call is None:
            message = f"No call '{call_id[:100]}': it has ended, or never was."
            raise RefusedError(404, message, code="call_not_found")
        return call

    def check(self, call_id: str) -> None:
        """Say whether there is a call, as `find` does."""
        self.find(call_id)

    async def session(self, call_id: str) -> Session:
        """Return a call's session.

        Raises:
            RefusedError: there is no such call, or it has ended.
        """
        session = self.find(call_id).session
        if session is None:
            raise RefusedError(404, f"The call '{call_id}' has ended.", code="call_not_found")
        return session

    # Who may begin one.

    def check_webhook(
        self,
        provider: Provider,
        headers: Mapping[str, str],
        place: str,
        form: Sequence[tuple[str, str]],
        body: bytes,
    ) -> None:
        """Check who asks what to do with a call.

        Args:
            provider: by whose address it was asked.
            headers: of the request, names in lower case.
            place: path below `PATH`, and the query.
            form: that the body has.
            body: as it came.

        Raises:
            RefusedError: it was not the provider, or a request that was taken already.
        """
        if provider == "twilio":
            url = f"{self.settings.public_url}{PATH}{place}"
            tokens = self.settings.twilio.auth_tokens
            if not is_twilio(headers.get(TWILIO_HEADER), tokens, url, form):
                raise _not_signed("its X-Twilio-Signature is missing, or wrong for this address")
            return
        if self._verifier is None:
            raise _not_signed("telephony.telnyx.public_key is not set")
        reason = self._verifier.why_not(
            headers.get(TELNYX_HEADER), headers.get(TELNYX_TIME_HEADER), body
        )
        if reason is not None:
            raise _not_signed(reason)

    def stream_url(self, provider: Provider, call_id: str) -> str:
        """Return where the stream of a call is to go, once."""
        ticket = self._tickets.make(provider, call_id)
        return f"{_websocket(self.settings.public_url or '')}{PATH}/{provider}/{ticket}"

    def admit(
        self, provider: Provider, headers: Mapping[str, str], ticket: str | None
    ) -> tuple[str | None, MediaFormat]:
        """Let a stream in.

        Args:
            provider: by whose address it comes.
            headers: of the handshake, names in lower case.
            ticket: at the end of the address, None for none.

        Returns:
            The id of the call that the stream must be for, None for any; and the format of its
            sound.

        Raises:
            RefusedError: nobody was told to open it.
        """
        telnyx = self.settings.telnyx
        if ticket is None:
            offered = headers.get(TELNYX_TOKEN_HEADER, "")
            token = telnyx.stream_token
            if (
                provider == "telnyx"
                and token
                and hmac.compare_digest(offered.encode(), token.encode())
            ):
                return None, MediaFormat(telnyx.codec, telnyx.rate_hz)
            raise _not_signed("it has no ticket in its address, nor the stream_token")
        if provider == "twilio":
            # The signature is checked first, so a stranger cannot use a ticket up.
            base = _websocket(self.settings.public_url or "")
            url = f"{base}{PATH}/{provider}/{ticket}"
            tokens = self.settings.twilio.auth_tokens
            if not is_twilio(headers.get(TWILIO_HEADER), tokens, url):
                raise _not_signed("its X-Twilio-Signature is missing, or wrong for this address")
        call_id = self._tickets.take(ticket, provider)
        if call_id is None:
            raise _not_signed("its ticket is none, is too old, or was used")
        # Telnyx gives a call one id in a TeXML webhook and another one in a stream.
        return (call_id if provider == "twilio" else None), MediaFormat()


def _not_signed(reason: str) -> RefusedError:
    return RefusedError(403, f"The request is not believed: {reason}.", code="invalid_signature")


def _websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")


def _begun_with(settings: TelephonySettings, models: Models) -> tuple[ServedModel, SessionConfig]:
    """Return the model that every call has, and what it begins with."""
    given = {**settings.session, "type": "realtime"}
    try:
        model, said = models.called(asked_model(given))
        return model, replace(model.config(given), model=said)
    except ClientError as error:
        where = f" ({error.param})" if error.param else ""
        raise ConfigError(f"telephony.session: {error.message}{where}") from None


def _verifier(settings: TelephonySettings, clock: Callable[[], float]) -> TelnyxVerifier | None:
    key = settings.telnyx.public_key
    if key is None:
        return None
    try:
        base64.b64decode(key, validate=True)
        return TelnyxVerifier(key, settings.telnyx.tolerance_s, clock)
    except (binascii.Error, ValueError):
        raise ConfigError("telephony.telnyx.public_key: it is no Ed25519 key") from None
