"""Hold a session's configuration: what a client can see and set.

The internal shape is GA's; the beta dialect renames into it and out of it.
`server.protocol.settings.update` merges a client's patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from server.config.delegate import DelegateAnswers
from server.protocol.settings.tools import AnyTool, ToolChoice, tool_choice_json
from server.protocol.wire.checks import JsonObject

SessionKind: TypeAlias = Literal["realtime", "transcription"]
Modality: TypeAlias = Literal["audio", "text"]
Encoding: TypeAlias = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]
Consent: TypeAlias = Literal["offered", "given", "withdrawn"]
"""Whether a client has consented to a recording of its session; None where none can be made."""

# Source: Realtime API reference, session, include: its only value.
INCLUDE_LOGPROBS = "item.input_audio_transcription.logprobs"
# Source: Realtime API reference, session, audio.input.format and max_output_tokens.
PCM_RATE_HZ = 24_000
G711_RATE_HZ = 8_000
MAX_OUTPUT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Name an encoding of audio on the wire."""

    encoding: Encoding = "audio/pcm"

    @property
    def rate_hz(self) -> int:
        """Return the sample rate that goes with the encoding."""
        return PCM_RATE_HZ if self.encoding == "audio/pcm" else G711_RATE_HZ

    def to_json(self) -> JsonObject:
        """Write the format as the API does; only PCM states its rate."""
        if self.encoding == "audio/pcm":
            return {"type": self.encoding, "rate": PCM_RATE_HZ}
        return {"type": self.encoding}


# Source: Realtime API reference, session, turn_detection; Realtime guide, "Voice activity
# detection".


@dataclass(frozen=True, slots=True)
class ServerVad:
    """Turn detection by voice activity.

    `silence_duration_ms` is 500 when an object is given without it; a session that never set turn
    detection has 200 (both as captured from the hosted service).
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool = True

    def to_json(self) -> JsonObject:
        """Write all leaves: clients read `interrupt_response` from the echo."""
        return {
            "type": "server_vad",
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
            "create_response": self.create_response,
            "interrupt_response": self.interrupt_response,
        }


@dataclass(frozen=True, slots=True)
class SemanticVad:
    """Turn detection by the model's own sense of whether the user has finished."""

    eagerness: Eagerness = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def to_json(self) -> JsonObject:
        """Write all leaves."""
        return {
            "type": "semantic_vad",
            "eagerness": self.eagerness,
            "create_response": self.create_response,
            "interrupt_response": self.interrupt_response,
        }


TurnDetection: TypeAlias = ServerVad | SemanticVad


@dataclass(frozen=True, slots=True)
class Transcription:
    """Ask for transcripts of the user's speech; the served model writes them, whichever is named.

    Only these keys are echoed: one known client fails if there are others.
    """

    fields: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Write what was given."""
        return dict(self.fields)


@dataclass(frozen=True, slots=True)
class VoiceMap:
    """Map the voice names that clients may ask for onto the engine's voices.

    Attributes:
        names: client's name → engine's name, in the order of the error text.
        default: the client's name of a session that sets none.
    """

    names: Mapping[str, str]
    default: str

    def engine_voice(self, name: str) -> str:
        """Return the engine's voice for a name that was checked before."""
        return self.names[name]


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Hold everything a client can see and set of a session.

    Accepted and echoed, without any effect: `tracing`, `parallel_tool_calls`, `reasoning` and
    `temperature`. The model writes transcripts by itself: it only matters whether `transcription`
    is set.

    Attributes:
        kind: a transcription session only listens; its `voice`, tools and the like mean nothing.
        model: its name, as the client is told; which model serves was decided before.
        expires_at: Unix time in seconds; 0 before a client has connected.
        speed: of the reply's speech, 0.25 to 4.
        max_output_tokens: of one response, 1 to 4096; None for no limit.
        temperature: only beta clients see and set it, 0.6 to 1.2.
        delegate: what a text model answers, our own; None for what the server does.
        safety_identifier: who the user is, by a name of the application's own, for logs; clients
            neither see nor set it. Empty where nobody said.
        recording: whether the session may be recorded. Not of the API; shown only to clients that
            have set it.
    """

    id: str
    model: str
    voice: str
    expires_at: int
    kind: SessionKind = "realtime"
    instructions: str = ""
    output_modality: Modality = "audio"
    input_format: AudioFormat = AudioFormat()
    transcription: Transcription | None = None
    noise_reduction: Mapping[str, Any] | None = None
    turn_detection: TurnDetection | None = field(
        default_factory=lambda: ServerVad(silence_duration_ms=200)
    )
    output_format: AudioFormat = AudioFormat()
    speed: float = 1.0
    tools: tuple[AnyTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_output_tokens: int | None = None
    truncation: str | Mapping[str, Any] = "auto"
    tracing: str | Mapping[str, Any] | None = None
    prompt: Mapping[str, Any] | None = None
    include: tuple[str, ...] | None = None
    # Echoed only once set: models that do not reason have neither.
    parallel_tool_calls: bool | None = None
    reasoning: Mapping[str, Any] | None = None
    temperature: float = 0.8
    delegate: DelegateAnswers | None = None
    safety_identifier: str = ""
    recording: Consent | None = None

    @property
    def is_recorded(self) -> bool:
        """Say whether the client has consented to a recording, and not taken that back."""
        return self.recording == "given"

    @property
    def is_transcribing(self) -> bool:
        """Say whether the client wants transcripts of the user's speech."""
        return self.kind == "transcription" or self.transcription is not None

    @property
    def includes_logprobs(self) -> bool:
        """Say whether the client wants log-probabilities with its transcripts."""
        return INCLUDE_LOGPROBS in (self.include or ())

    def to_json(self) -> JsonObject:
        """Write the full effective session in the GA shape."""
        is_realtime = self.kind == "realtime"
        session = self._realtime_json() if is_realtime else self._transcription_json()
        return session | self.recording_json()

    def recording_json(self) -> JsonObject:
        """Write what the client has said of a recording, as part of the session."""
        if self.recording in (None, "offered"):
            return {}
        return {"recording": {"consent": self.is_recorded}}

    def _realtime_json(self) -> JsonObject:
        session = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.id,
            "model": self.model,
            "output_modalities": [self.output_modality],
            "instructions": self.instructions,
            "tools": [tool.to_json() for tool in self.tools],
            "tool_choice": tool_choice_json(self.tool_choice),
            "max_output_tokens": max_output_tokens_json(self.max_output_tokens),
            "tracing": self.tracing,
            "truncation": self.truncation,
            "prompt": self.prompt,
            "expires_at": self.expires_at,
            "audio": {
                "input": self._input_json(),
                "output": {
                    "format": self.output_format.to_json(),
                    "voice": self.voice,
                    "speed": self.speed,
                },
            },
            "include": self._include_json(),
        }
        if self.parallel_tool_calls is not None:
            session["parallel_tool_calls"] = self.parallel_tool_calls
        if self.reasoning is not None:
            session["reasoning"] = self.reasoning
        if self.delegate is not None:
            session["delegate"] = self.delegate
        return session

    def _transcription_json(self) -> JsonObject:
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": self.id,
            "expires_at": self.expires_at,
            "audio": {"input": self._input_json()},
            "include": self._include_json(),
        }

    def _input_json(self) -> JsonObject:
        detection = self.turn_detection.to_json() if self.turn_detection else None
        if detection is not None and self.kind == "transcription":
            # Source: Realtime API reference, transcription sessions.
            # They are about responses, and there are none.
            for leaf in ("create_response", "interrupt_response", "idle_timeout_ms"):
                detection.pop(leaf, None)
        return {
            "format": self.input_format.to_json(),
            "transcription": self.transcription and self.transcription.to_json(),
            "noise_reduction": self.noise_reduction,
            "turn_detection": detection,
        }

    def _include_json(self) -> list[str] | None:
        return None if self.include is None else list(self.include)


def max_output_tokens_json(limit: int | None) -> int | str:
    """Write a limit as the API does."""
    return "inf" if limit is None else limit
