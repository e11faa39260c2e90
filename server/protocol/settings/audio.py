"""Check and merge the `audio` part of a session: formats, voice, turn detection, transcription."""

from collections.abc import Mapping
from typing import Any

from server.audio.speed import MAX_SPEED, MIN_SPEED
from server.errors import ClientError
from server.protocol.settings.config import (
    AudioFormat,
    Eagerness,
    Encoding,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    TurnDetection,
    VoiceMap,
)
from server.protocol.wire.checks import (
    JsonObject,
    Parser,
    array_at,
    boolean_at,
    choice_at,
    decimal_at,
    integer_at,
    invalid_choice,
    object_at,
    refuse_unknown_keys,
    required,
    string_at,
)


def input_changes(value: object, path: str, before: SessionConfig) -> JsonObject:
    """Return which fields of `SessionConfig` an `audio.input` object changes, and to what.

    Raises:
        ClientError: with the path of what is wrong.
    """
    given = object_at(value, path)
    refuse_unknown_keys(
        given, path, ("format", "transcription", "noise_reduction", "turn_detection")
    )
    changes: JsonObject = {}
    if "format" in given:
        changes["input_format"] = parse_format(given["format"], f"{path}.format")
    if "transcription" in given:
        changes["transcription"] = _merged_transcription(
            given["transcription"], f"{path}.transcription", before.transcription
        )
    if "noise_reduction" in given:
        changes["noise_reduction"] = _merged_noise_reduction(
            given["noise_reduction"], f"{path}.noise_reduction", before.noise_reduction
        )
    if "turn_detection" in given:
        changes["turn_detection"] = _parse_turn_detection(
            given["turn_detection"], f"{path}.turn_detection"
        )
    return changes


def output_changes(
    value: object, path: str, before: SessionConfig, voices: VoiceMap, *, is_voice_locked: bool
) -> JsonObject:
    """Return which fields of `SessionConfig` an `audio.output` object changes, and to what.

    Raises:
        ClientError: with the path of what is wrong.
    """
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("format", "voice", "speed"))
    changes: JsonObject = {}
    if "format" in given:
        changes["output_format"] = parse_format(given["format"], f"{path}.format")
    if "voice" in given:
        changes["voice"] = changed_voice(
            given["voice"], f"{path}.voice", before.voice, voices, is_locked=is_voice_locked
        )
    if "speed" in given:
        # Source: Realtime API reference, session, audio.output.speed: 0.25 to 1.5. More of it is
        # an extension, which no client notices that does not ask for it.
        changes["speed"] = decimal_at(
            given["speed"], f"{path}.speed", low=MIN_SPEED, high=MAX_SPEED
        )
    return changes


def parse_format(value: object, path: str) -> AudioFormat:
    """Return an audio format; PCM where only the rate is given, or nothing."""
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("type", "rate"))
    encodings: tuple[Encoding, ...] = ("audio/pcm", "audio/pcmu", "audio/pcma")
    encoding = choice_at(given.get("type", "audio/pcm"), f"{path}.type", encodings)
    # Source: Realtime API reference, session, audio.input.format: PCM is 24 kHz, G.711 is 8 kHz. A
    # rate that says otherwise is refused rather than resampled: the client would be mistaken.
    audio_format = AudioFormat(encoding)
    rate = given.get("rate")
    if rate is not None and integer_at(rate, f"{path}.rate") != audio_format.rate_hz:
        raise invalid_choice(str(rate), f"{path}.rate", (str(audio_format.rate_hz),))
    return audio_format


def parse_voice(value: object, path: str, voices: VoiceMap) -> str:
    """Return the name of a voice given as a string or as `{"id": name}`."""
    if isinstance(value, dict):
        refuse_unknown_keys(value, path, ("id",))
        value, path = required(value, "id", path), f"{path}.id"
    return choice_at(value, path, tuple(voices.names))


def changed_voice(
    value: object, path: str, current: str, voices: VoiceMap, *, is_locked: bool
) -> str:
    """Return the voice asked for; once there is assistant audio it must be the current one."""
    voice = parse_voice(value, path, voices)
    # Source: Realtime API reference, session, voice: it cannot change once the conversation has
    # assistant audio. Naming the voice that is in force is no change, and clients do that with
    # every update.
    if is_locked and voice != current:
        raise ClientError(
            "Cannot update a conversation's voice if assistant audio is present.",
            code="cannot_update_voice",
        )
    return voice


# Source: Realtime API reference, session, turn_detection: the leaves and their ranges; the range of
# idle_timeout_ms is 5,000 to 30,000.
_RESPONSE_FLAGS: Mapping[str, Parser[bool]] = {
    "create_response": boolean_at,
    "interrupt_response": boolean_at,
}
_EAGERNESS: tuple[Eagerness, ...] = ("low", "medium", "high", "auto")
_SERVER_VAD_LEAVES: Mapping[str, Parser[Any]] = {
    "threshold": lambda value, path: decimal_at(value, path, low=0.0, high=1.0),
    "prefix_padding_ms": lambda value, path: integer_at(value, path, low=0),
    "silence_duration_ms": lambda value, path: integer_at(value, path, low=0),
    "idle_timeout_ms": lambda value, path: (
        None if value is None else integer_at(value, path, low=5_000, high=30_000)
    ),
    **_RESPONSE_FLAGS,
}
_SEMANTIC_VAD_LEAVES: Mapping[str, Parser[Any]] = {
    "eagerness": lambda value, path: choice_at(value, path, _EAGERNESS),
    **_RESPONSE_FLAGS,
}


def _parse_turn_detection(value: object, path: str) -> TurnDetection | None:
    """Return turn detection as given: absent leaves take their defaults, not what was before."""
    # null means push to talk. Source: Realtime guide, "Voice activity detection", disable VAD.
    if value is None:
        return None
    given = object_at(value, path)
    kind = choice_at(required(given, "type", path), f"{path}.type", ("server_vad", "semantic_vad"))
    leaves = _SERVER_VAD_LEAVES if kind == "server_vad" else _SEMANTIC_VAD_LEAVES
    refuse_unknown_keys(given, path, ("type", *leaves))
    parsed = {
        key: parse(given[key], f"{path}.{key}") for key, parse in leaves.items() if key in given
    }
    return ServerVad(**parsed) if kind == "server_vad" else SemanticVad(**parsed)


def _string_or_null(value: object, path: str) -> None:
    if value is not None:
        string_at(value, path)


def _strings(value: object, path: str) -> None:
    for index, entry in enumerate(array_at(value, path)):
        string_at(entry, f"{path}[{index}]")


# Source: Realtime API reference, session, audio.input.transcription.
_TRANSCRIPTION_LEAVES: Mapping[str, Parser[object]] = {
    "model": _string_or_null,
    "language": _string_or_null,
    "prompt": _string_or_null,
    # Checked and then forgotten: our transcription does not use them, and echoing them breaks one
    # known client.
    "languages": _strings,
    "keywords": _strings,
    "delay": lambda value, path: choice_at(
        value, path, ("minimal", "low", "medium", "high", "xhigh")
    ),
}
_ECHOED_TRANSCRIPTION_LEAVES = ("model", "language", "prompt")


def _merged_transcription(
    value: object, path: str, before: Transcription | None
) -> Transcription | None:
    if value is None:
        return None
    given = object_at(value, path)
    refuse_unknown_keys(given, path, _TRANSCRIPTION_LEAVES)
    for key, check in _TRANSCRIPTION_LEAVES.items():
        if key in given:
            check(given[key], f"{path}.{key}")
    merged = {**(before.fields if before else {}), **given}
    return Transcription(
        {
            key: merged[key]
            for key in _ECHOED_TRANSCRIPTION_LEAVES
            if merged.get(key) is not None  # null clears a leaf
        }
    )


def _merged_noise_reduction(
    value: object, path: str, before: Mapping[str, Any] | None
) -> JsonObject | None:
    if value is None:
        return None
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("type", "strength"))
    # Source: Realtime API reference, session, audio.input.noise_reduction.
    kind = choice_at(required(given, "type", path), f"{path}.type", ("near_field", "far_field"))
    reduction: JsonObject = {"type": kind}
    # An absent strength keeps its value; clients that never send one are not shown the key.
    if "strength" in given:
        reduction["strength"] = decimal_at(given["strength"], f"{path}.strength", low=0.0, high=1.0)
    elif before and "strength" in before:
        reduction["strength"] = before["strength"]
    return reduction
