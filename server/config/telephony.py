"""Settings of calls by telephone."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from server.config.server import MIN_SECRET_CHARS
from server.config.strict import Strict


class TwilioSettings(Strict):
    """Whom calls by Twilio are believed to come from.

    Attributes:
        auth_tokens: of the account; several while one is being replaced. They sign every request
            (`X-Twilio-Signature`).
    """

    auth_tokens: tuple[Annotated[str, Field(min_length=16)], ...] = Field(
        default=(), max_length=4, repr=False
    )


class TelnyxSettings(Strict):
    """Whom calls by Telnyx are believed to come from, and what they sound like.

    Attributes:
        public_key: of the account, Ed25519 in base64; it checks webhooks
            (`telnyx-signature-ed25519`).
        tolerance_s: how old a webhook's timestamp may be, or how far ahead.
        stream_token: that streams bring which an application starts by itself (Call Control's
            `stream_auth_token`); None takes none but those that a webhook was answered with.
        codec: of replies to streams that bring the token: what the application has given as
            `stream_bidirectional_codec`. What is heard says its own codec.
        rate_hz: of that codec (`stream_bidirectional_sampling_rate`); more than 8,000 with L16.
        l16_order: of the bytes of L16, in both directions. RTP has the larger byte first (RFC 3551,
            section 4.5.11); streams of Telnyx were reported to have the smaller one first.
    """

    public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")] | None = None
    tolerance_s: Annotated[int, Field(ge=1, le=3_600)] = 300
    stream_token: Annotated[str, Field(min_length=MIN_SECRET_CHARS)] | None = Field(
        default=None, repr=False
    )
    codec: Literal["PCMU", "PCMA", "L16"] = "PCMU"
    rate_hz: Literal[8_000, 16_000, 24_000] = 8_000
    l16_order: Literal["little", "big"] = "little"

    @model_validator(mode="after")
    def _g711_has_one_rate(self) -> "TelnyxSettings":
        if self.codec != "L16" and self.rate_hz != 8_000:
            raise ValueError(f"{self.codec} is 8000 Hz; only L16 has others")
        return self


class TelephonySettings(Strict):
    """How calls come by telephone; see docs/telephony.md. None do unless a provider is set.

    Attributes:
        public_url: where the provider reaches this server, such as `https://voice.example.com`.
            Signatures are over addresses, so this is believed and no header of a request is.
        session: what every call begins with, as a `session.update` of the API has it.
        greeting: whether the assistant speaks first.
        parameters: names of a call's own values that the model is told: `from`, `to`, and what the
            address of the webhook or a `<Parameter>` adds.
        dtmf_pause_s: pause after which keys that were pressed are passed on, where no # ends them.
        busy_text: that a caller hears for whom there is no place; empty for a busy tone.
    """

    public_url: Annotated[str, Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*[^/@?#])?$")] | None = (
        None
    )
    session: Mapping[str, Any] = Field(default_factory=dict)
    greeting: bool = False
    parameters: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    dtmf_pause_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    busy_text: str = "All lines are busy. Please call again later."
    twilio: TwilioSettings = TwilioSettings()
    telnyx: TelnyxSettings = TelnyxSettings()

    @property
    def is_on(self) -> bool:
        """Say whether calls are taken at all."""
        telnyx = self.telnyx
        return bool(self.twilio.auth_tokens or telnyx.public_key or telnyx.stream_token)

    @model_validator(mode="after")
    def _has_address(self) -> "TelephonySettings":
        if self.is_on and self.public_url is None:
            raise ValueError("public_url is needed: signatures are over the address")
        return self
