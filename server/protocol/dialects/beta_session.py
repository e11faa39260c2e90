"""Read and write sessions in the beta shape: one flat object with older names.

Everything here is renaming. What a beta client asks for is checked by the same code as GA, and
refusals are renamed back.
"""

from collections.abc import Collection, Mapping
from typing import Any

from server.errors import ClientError
from server.protocol.settings.config import AudioFormat, Modality, SessionConfig
from server.protocol.wire.checks import (
    JsonObject,
    array_at,
    choice_at,
    object_at,
    string_at,
    unknown_parameter,
)

# Source: Realtime API reference, beta, session; Realtime guide, "Beta to GA migration".
Places = Mapping[str, tuple[str, ...]]

_TRANSCRIPTION_PLACES: Places = {
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
}
# Beta's key of the session → where GA has it.
SESSION_PLACES: Places = {
    **_TRANSCRIPTION_PLACES,
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
}
# Keys that are the same in both shapes, or beta's alone.
_READ_ONLY = ("id", "object", "expires_at", "client_secret")
_SAME = (
    *("type", "model", "instructions", "tools", "tool_choice", "tracing", "prompt", "include"),
    "delegate",
    "recording",
)
_BETA_ONLY = (*SESSION_PLACES, "temperature")

_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_FORMAT_NAMES = {ga: beta for beta, ga in _FORMATS.items()}


def read_session(session: JsonObject) -> JsonObject:
    """Return a beta client's session in the internal vocabulary.

    Raises:
        ClientError: a key does not exist in beta, or its value is not one of beta's.
    """
    _refuse_unknown(session, (*_BETA_ONLY, *_SAME, *_READ_ONLY, "max_output_tokens"))
    kept = _without_early_forms(session)
    if "max_output_tokens" in kept:
        # The first documentation called it so; both are understood.
        kept["max_response_output_tokens"] = kept.pop("max_output_tokens")
    return {"type": "realtime", **moved(kept, SESSION_PLACES, "session")}


def read_transcription_session(session: JsonObject) -> JsonObject:
    """Return a beta client's transcription session in the internal vocabulary.

    Raises:
        ClientError: a key does not exist in beta, or its value is not one of beta's.
    """
    # A transcription session has an output only in the published types.
    known = (*_TRANSCRIPTION_PLACES, *_READ_ONLY, "include", "modalities", "recording")
    _refuse_unknown(session, known)
    kept = _without_early_forms(session)
    kept.pop("modalities", None)
    return {**moved(kept, _TRANSCRIPTION_PLACES, "session"), "type": "transcription"}


def looks_beta(session: JsonObject) -> bool:
    """Say whether a session that a client sent first shows that it speaks beta."""
    # GA demands `type` in a session, and beta has none. A session that has neither it nor a telling
    # key, such as one with instructions alone, reads the same in both shapes.
    telling = (
        "modalities",
        "input_audio_format",
        "output_audio_format",
        "turn_detection",
        "voice",
        "max_response_output_tokens",
    )
    return "type" not in session and any(key in session for key in telling)


def refuse_beta_keys(session: JsonObject, path: str) -> None:
    """Refuse keys of beta's in a session in the GA shape, and say where GA has them.

    Raises:
        ClientError: there is one.
    """
    for key in session:
        if key not in _BETA_ONLY:
            continue
        hint = "It belongs to the beta API, and this connection speaks GA"
        place = SESSION_PLACES.get(key)
        meant = f": use '{'.'.join((path, *place))}'." if place else ", which has no such setting."
        raise unknown_parameter(f"{path}.{key}", hint + meant)


def _refuse_unknown(session: JsonObject, known: Collection[str]) -> None:
    for key in session:
        if key in known:
            continue
        meant = [beta for beta, place in SESSION_PLACES.items() if place[0] == key]
        meant = [beta for beta in meant if beta in known]
        hint = ""
        if meant:
            names = ", ".join(f"'session.{beta}'" for beta in meant)
            hint = f"It belongs to the GA API, and this connection speaks beta: use {names}."
        raise unknown_parameter(f"session.{key}", hint)


def _without_early_forms(session: JsonObject) -> JsonObject:
    """Return a copy without what is the server's to say, and without forms of 2024."""
    kept = {key: value for key, value in session.items() if key != "client_secret"}
    detection = kept.get("turn_detection")
    if isinstance(detection, dict) and detection.get("type") == "none":
        # Very early clients switch detection off so.
        kept["turn_detection"] = None
    transcription = kept.get("input_audio_transcription")
    if isinstance(transcription, dict) and "enabled" in transcription:
        rest = {key: value for key, value in transcription.items() if key != "enabled"}
        kept["input_audio_transcription"] = rest if transcription["enabled"] else None
    return kept


def moved(given: JsonObject, places: Places, path: str) -> JsonObject:
    """Return an object with its beta keys where GA has them.

    Raises:
        ClientError: a value is not one of beta's.
    """
    result = {key: value for key, value in given.items() if key not in places}
    for key, value in given.items():
        if key not in places:
            continue
        *sections, last = places[key]
        inner = result
        for section in sections:
            # A copy: what the client sent stays as it is.
            inner[section] = dict(object_at(inner.get(section, {}), f"{path}.{section}"))
            inner = inner[section]
        inner[last] = _ga_value(key, value, f"{path}.{key}")
    return result


def _ga_value(key: str, value: Any, path: str) -> Any:
    """Translate the values that beta writes differently; `Any`, as all JSON."""
    if key in ("input_audio_format", "output_audio_format"):
        return {"type": _FORMATS[choice_at(value, path, tuple(_FORMATS))]}
    if key == "modalities":
        names = [string_at(name, path) for name in array_at(value, path)]
        if names == ["text"]:
            return ["text"]
        if sorted(names) == ["audio", "text"]:
            return ["audio"]
        raise ClientError(
            f"Invalid modalities: {names}. Supported combinations are: ['text'] and "
            "['audio', 'text'].",
            code="invalid_value",
            param=path,
        )
    return value


def renamed(error: ClientError, places: Places, path: str) -> ClientError:
    """Name a refused parameter as a beta client wrote it, in itself and in the message."""
    param = error.param or ""
    for beta, place in places.items():
        ga_path, beta_path = ".".join((path, *place)), f"{path}.{beta}"
        if param == ga_path and error.code == "unknown_parameter":
            # GA has it, so the client itself wrote GA's name.
            return error
        if f"{param}.".startswith((f"{ga_path}.", f"{ga_path}[")):
            return ClientError(
                error.message.replace(ga_path, beta_path, 1),
                code=error.code,
                param=param.replace(ga_path, beta_path, 1),
                kind=error.kind,
            )
    return error


def session_json(config: SessionConfig, client_secret: JsonObject | None = None) -> JsonObject:
    """Write the full effective session in the beta shape.

    Args:
        config: of either kind.
        client_secret: the key and its expiry, where the session is made over HTTP.
    """
    ga = config.to_json()
    audio_in = ga["audio"]["input"]
    heard = {
        "input_audio_format": format_name(config.input_format),
        "input_audio_transcription": audio_in["transcription"],
        "input_audio_noise_reduction": audio_in["noise_reduction"],
        "turn_detection": audio_in["turn_detection"],
        "include": ga["include"],
        "expires_at": config.expires_at,
        "client_secret": client_secret,
    }
    if config.kind == "transcription":
        described = {"id": config.id, "object": "realtime.transcription_session", **heard}
        return described | config.recording_json()
    session = {
        "id": config.id,
        "object": "realtime.session",
        "model": config.model,
        "modalities": modalities(config.output_modality),
        "instructions": config.instructions,
        "voice": config.voice,
        "output_audio_format": format_name(config.output_format),
        "tools": ga["tools"],
        "tool_choice": ga["tool_choice"],
        "temperature": config.temperature,
        "max_response_output_tokens": ga["max_output_tokens"],
        "speed": config.speed,
        "tracing": config.tracing,
        **heard,
    }
    if config.prompt is not None:
        session["prompt"] = config.prompt
    if config.delegate is not None:
        session["delegate"] = config.delegate
    return session | config.recording_json()


def modalities(modality: Modality) -> list[str]:
    """Write an output modality as beta does: speech has words beside it."""
    return ["audio", "text"] if modality == "audio" else ["text"]


def format_name(audio_format: AudioFormat) -> str:
    """Write an audio format as beta does."""
    return _FORMAT_NAMES[audio_format.encoding]
