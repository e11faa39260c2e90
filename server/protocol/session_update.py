"""Merge a client's partial updates into a session's configuration, all or nothing.

An update is validated whole before anything changes. Only keys that are present change; nested
objects merge leaf by leaf, except `turn_detection`, which is replaced as a whole with defaults for
its absent leaves. `null` is a value and differs from an absent key.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from server.errors import ClientError
from server.protocol.checks import (
    JsonObject,
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
    unsupported,
)
from server.protocol.session_config import (
    MAX_OUTPUT_TOKENS,
    AudioFormat,
    Eagerness,
    Encoding,
    Modality,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    TurnDetection,
    VoiceMap,
)

_TOOLS_REASON = "Tools are not available on this server yet."


def updated(
    config: SessionConfig, patch: JsonObject, voices: VoiceMap, *, is_voice_locked: bool
) -> SessionConfig:
    """Return the configuration after a `session.update`.

    Args:
        config: what is in force; it stays in force if the update is refused.
        patch: the `session` object as sent.
        voices: the voices there are.
        is_voice_locked: True once the conversation holds assistant audio.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    kind = string_at(required(patch, "type", "session"), "session.type")
    if kind == "transcription":
        raise ClientError(
            "Passing a transcription session update event to a realtime session is not allowed."
        )
    if kind != "realtime":
        # The hosted service quotes the word 'session' here, not the value.
        raise invalid_choice("session", "session.type", ("realtime", "transcription"))
    refuse_unknown_keys(patch, "session", (*_FIELDS, *_READ_ONLY, "audio"))
    changes: dict[str, Any] = {}
    for key, value in patch.items():
        name, parse = _FIELDS.get(key, (None, None))
        parsed = parse(value, f"session.{key}") if parse else None
        if name is not None:
            changes[name] = parsed
    if "audio" in patch:
        audio = object_at(patch["audio"], "session.audio")
        changes |= _audio_changes(audio, config, voices, is_voice_locked=is_voice_locked)
    return replace(config, **changes)


def parse_modalities(value: object, path: str) -> Modality:
    """Return the one output modality of a list that must hold exactly one."""
    names = [string_at(name, path) for name in array_at(value, path)]
    if names in (["audio"], ["text"]):
        return cast("Modality", names[0])
    raise ClientError(
        f"Invalid modalities: {names}. Supported combinations are: ['text'] and ['audio'].",
        code="invalid_value",
        param=path,
    )


def parse_max_output_tokens(value: object, path: str) -> int | None:
    """Return a limit, or None for "inf"."""
    if value == "inf":
        return None
    return integer_at(value, path, low=1, high=MAX_OUTPUT_TOKENS)


def parse_voice(value: object, path: str, voices: VoiceMap) -> str:
    """Return the name of a voice given as a string or as `{"id": name}`."""
    if isinstance(value, dict):
        value, path = required(value, "id", path), f"{path}.id"
    return choice_at(value, path, tuple(voices.names))


def parse_format(value: object, path: str) -> AudioFormat:
    """Return an audio format."""
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("type", "rate"))
    encodings = ("audio/pcm", "audio/pcmu", "audio/pcma")
    encoding = choice_at(given.get("type", "audio/pcm"), f"{path}.type", encodings)
    audio_format = AudioFormat(cast("Encoding", encoding))
    rate = given.get("rate")
    if rate is not None and integer_at(rate, f"{path}.rate") != audio_format.rate_hz:
        raise invalid_choice(str(rate), f"{path}.rate", (str(audio_format.rate_hz),))
    return audio_format


def check_tools(value: object, path: str) -> None:
    """Accept a list of tools only while it is empty."""
    if value is not None and array_at(value, path):
        raise unsupported(path, _TOOLS_REASON)


def check_tool_choice(value: object, path: str) -> str:
    """Accept the choices that ask for no tool."""
    if isinstance(value, dict):
        raise unsupported(path, _TOOLS_REASON)
    choice = choice_at(value, path, ("none", "auto", "required"))
    if choice == "required":
        raise unsupported(path, _TOOLS_REASON)
    return choice


def _parse_turn_detection(value: object, path: str) -> TurnDetection | None:
    if value is None:
        return None
    given = object_at(value, path)
    kind = choice_at(required(given, "type", path), f"{path}.type", ("server_vad", "semantic_vad"))
    common = {
        key: boolean_at(given[key], f"{path}.{key}")
        for key in ("create_response", "interrupt_response")
        if given.get(key) is not None
    }
    if kind == "semantic_vad":
        refuse_unknown_keys(given, path, ("type", "eagerness", *_RESPONSE_FLAGS))
        eagerness = choice_at(
            given.get("eagerness") or "auto", f"{path}.eagerness", ("low", "medium", "high", "auto")
        )
        return SemanticVad(cast("Eagerness", eagerness), **common)
    refuse_unknown_keys(given, path, ("type", *_SERVER_VAD_LEAVES, *_RESPONSE_FLAGS))
    leaves = {
        key: check(given[key], f"{path}.{key}")
        for key, check in _SERVER_VAD_LEAVES.items()
        if given.get(key) is not None
    }
    return ServerVad(**leaves, **common)


_RESPONSE_FLAGS = ("create_response", "interrupt_response")
_SERVER_VAD_LEAVES: Mapping[str, Callable[[object, str], Any]] = {
    "threshold": lambda value, path: decimal_at(value, path, low=0.0, high=1.0),
    "prefix_padding_ms": lambda value, path: integer_at(value, path, low=0),
    "silence_duration_ms": lambda value, path: integer_at(value, path, low=0),
    "idle_timeout_ms": lambda value, path: integer_at(value, path, low=5_000, high=30_000),
}


def _parse_transcription(value: object, path: str) -> Transcription | None:
    if value is None:
        return None
    given = object_at(value, path)
    # `delay`, `languages` and `keywords` are known to the API and mean nothing to our listener.
    refuse_unknown_keys(
        given, path, ("model", "language", "prompt", "languages", "keywords", "delay")
    )
    fields = {
        key: string_at(given[key], f"{path}.{key}")
        for key in ("model", "language", "prompt")
        if given.get(key) is not None
    }
    return Transcription(fields)


def _parse_noise_reduction(value: object, path: str, before: Mapping[str, Any] | None) -> Any:
    if value is None:
        return None
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("type", "strength"))
    kind = choice_at(required(given, "type", path), f"{path}.type", ("near_field", "far_field"))
    reduction: JsonObject = {"type": kind}
    # An absent strength keeps its value; clients that never send one are not shown the key.
    if "strength" in given:
        reduction["strength"] = decimal_at(given["strength"], f"{path}.strength", low=0.0, high=1.0)
    elif before and "strength" in before:
        reduction["strength"] = before["strength"]
    return reduction


def _audio_changes(
    audio: JsonObject, config: SessionConfig, voices: VoiceMap, *, is_voice_locked: bool
) -> JsonObject:
    refuse_unknown_keys(audio, "session.audio", ("input", "output"))
    changes: JsonObject = {}
    if "input" in audio:
        path = "session.audio.input"
        given = object_at(audio["input"], path)
        refuse_unknown_keys(
            given, path, ("format", "transcription", "noise_reduction", "turn_detection")
        )
        if given.get("format") is not None:
            changes["input_format"] = parse_format(given["format"], f"{path}.format")
        if "transcription" in given:
            changes["transcription"] = _parse_transcription(
                given["transcription"], f"{path}.transcription"
            )
        if "noise_reduction" in given:
            changes["noise_reduction"] = _parse_noise_reduction(
                given["noise_reduction"], f"{path}.noise_reduction", config.noise_reduction
            )
        if "turn_detection" in given:
            changes["turn_detection"] = _parse_turn_detection(
                given["turn_detection"], f"{path}.turn_detection"
            )
    if "output" in audio:
        path = "session.audio.output"
        given = object_at(audio["output"], path)
        refuse_unknown_keys(given, path, ("format", "voice", "speed"))
        if given.get("format") is not None:
            changes["output_format"] = parse_format(given["format"], f"{path}.format")
        if given.get("voice") is not None:
            changes["voice"] = changed_voice(
                given["voice"], f"{path}.voice", config.voice, voices, is_locked=is_voice_locked
            )
        if given.get("speed") is not None:
            changes["speed"] = decimal_at(given["speed"], f"{path}.speed", low=0.25, high=1.5)
    return changes


def changed_voice(
    value: object, path: str, current: str, voices: VoiceMap, *, is_locked: bool
) -> str:
    """Return the voice asked for; once there is assistant audio it must be the current one."""
    voice = parse_voice(value, path, voices)
    if is_locked and voice != current:
        raise ClientError(
            "Cannot update a conversation's voice if assistant audio is present.",
            code="cannot_update_voice",
        )
    return voice


def _optional(parse: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    """Let null through."""
    return lambda value, path: None if value is None else parse(value, path)


def _parse_truncation(value: object, path: str) -> str | JsonObject:
    if isinstance(value, str):
        return choice_at(value, path, ("auto", "disabled"))
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("type", "retention_ratio", "token_limits"))
    choice_at(required(given, "type", path), f"{path}.type", ("retention_ratio",))
    ratio = required(given, "retention_ratio", path)
    decimal_at(ratio, f"{path}.retention_ratio", low=0.0, high=1.0)
    limits = given.get("token_limits")
    if limits is not None:
        limits_path = f"{path}.token_limits"
        refuse_unknown_keys(object_at(limits, limits_path), limits_path, ("post_instructions",))
        if "post_instructions" in limits:
            integer_at(limits["post_instructions"], f"{limits_path}.post_instructions", low=0)
    return given


def _parse_tracing(value: object, path: str) -> str | JsonObject:
    if isinstance(value, str):
        return choice_at(value, path, ("auto",))
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("workflow_name", "group_id", "metadata"))
    return given


def _parse_prompt(value: object, path: str) -> JsonObject:
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("id", "version", "variables"))
    string_at(required(given, "id", path), f"{path}.id")
    return given


def _parse_include(value: object, path: str) -> tuple[str, ...]:
    known = ("item.input_audio_transcription.logprobs",)
    return tuple(choice_at(name, path, known) for name in array_at(value, path))


def _parse_reasoning(value: object, path: str) -> JsonObject:
    given = object_at(value, path)
    efforts = ("minimal", "low", "medium", "high", "xhigh")
    choice_at(given.get("effort", "low"), f"{path}.effort", efforts)
    return given


_READ_ONLY = ("type", "id", "object", "expires_at")
# Key on the wire → field of `SessionConfig` (None: checked, then ignored) and its parser.
_FIELDS: Mapping[str, tuple[str | None, Callable[[object, str], Any]]] = {
    # One client always sends its own default model: a mismatch is neither applied nor refused.
    "model": (None, _optional(string_at)),
    "instructions": ("instructions", string_at),
    "output_modalities": ("output_modality", parse_modalities),
    "tools": (None, check_tools),
    "tool_choice": ("tool_choice", check_tool_choice),
    "max_output_tokens": ("max_output_tokens", parse_max_output_tokens),
    "truncation": ("truncation", _parse_truncation),
    "tracing": ("tracing", _optional(_parse_tracing)),
    "prompt": ("prompt", _optional(_parse_prompt)),
    "include": ("include", _optional(_parse_include)),
    "parallel_tool_calls": ("parallel_tool_calls", _optional(boolean_at)),
    "reasoning": ("reasoning", _optional(_parse_reasoning)),
}
