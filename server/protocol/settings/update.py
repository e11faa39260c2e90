"""Merge a client's partial updates into a session's configuration, all or nothing.

An update is validated whole before anything changes. Only keys that are present change; nested
objects merge leaf by leaf, except `turn_detection`, which is replaced as a whole with defaults for
its absent leaves. `null` is a value and differs from an absent key.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from server.config.delegate import DelegateAnswers
from server.errors import ClientError
from server.protocol.settings.audio import input_changes, output_changes
from server.protocol.settings.config import (
    INCLUDE_LOGPROBS,
    MAX_OUTPUT_TOKENS,
    Consent,
    Modality,
    SessionConfig,
    SessionKind,
    VoiceMap,
)
from server.protocol.settings.tools import (
    MAX_TOOLS,
    check_choice_exists,
    parse_tool_choice,
    parse_tools,
)
from server.protocol.wire.checks import (
    JsonObject,
    Parser,
    array_at,
    boolean_at,
    choice_at,
    decimal_at,
    integer_at,
    object_at,
    refuse_deep,
    refuse_unknown_keys,
    required,
    string_at,
    unsupported,
)

T = TypeVar("T")

# A worked example of merging. In force: server_vad with silence_duration_ms 700, transcription in
# English.
#
#     audio.input.turn_detection: {"type": "server_vad"}   silence_duration_ms is its default, 500
#     audio.input.transcription: {"prompt": "names"}       the language stays, the prompt comes
#     audio.input.transcription: null                      no transcripts
#     (nothing of audio)                                   all of it stays
#
# Source: Realtime API reference, client events, session.update: "only the fields that are present
# are updated"; to clear a field an empty value is sent.

# Source: Realtime API reference, beta, session, temperature: 0.6 to 1.2.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.6, 1.2


def updated(
    config: SessionConfig,
    patch: JsonObject,
    voices: VoiceMap,
    *,
    is_voice_locked: bool,
    max_tools: int = MAX_TOOLS,
) -> SessionConfig:
    """Return the configuration after a `session.update`.

    Args:
        config: what is in force; it stays in force if the update is refused.
        patch: the `session` object in the internal vocabulary.
        voices: the voices there are.
        is_voice_locked: True once the conversation holds assistant audio.
        max_tools: how many functions a session may offer.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    # Source: Realtime API reference, client events, session.update: the type cannot change.
    kind = _kind_of(patch)
    if kind != config.kind:
        raise ClientError(
            f"Passing a {kind} session update event to a {config.kind} session is not allowed."
        )
    fields = _FIELDS if kind == "realtime" else _TRANSCRIPTION_FIELDS
    own_keys = ("model", "tools", "tracing") if kind == "realtime" else ()
    refuse_unknown_keys(patch, "session", (*_READ_ONLY, *fields, *own_keys, "audio", "recording"))
    changes: dict[str, Any] = {}
    for key, (name, parse) in fields.items():
        if key in patch:
            changes[name] = parse(patch[key], f"session.{key}")
    if "tools" in patch:
        changes["tools"] = parse_tools(patch["tools"], "session.tools", max_tools=max_tools)
    if "tracing" in patch:
        changes["tracing"] = _changed_tracing(patch["tracing"], "session.tracing", config.tracing)
    if patch.get("model") is not None:
        # One client always sends its own default model: a mismatch is neither applied nor refused.
        string_at(patch["model"], "session.model")
    if "recording" in patch:
        changes["recording"] = _changed_recording(patch["recording"], config)
    if "audio" in patch:
        changes |= _audio_changes(patch["audio"], config, voices, is_voice_locked=is_voice_locked)
    # Here, and not before, something changes: one new frozen value, or none.
    result = replace(config, **changes)
    check_choice_exists(result.tool_choice, result.tools, "session.tool_choice")
    return result


def _audio_changes(
    value: object, config: SessionConfig, voices: VoiceMap, *, is_voice_locked: bool
) -> JsonObject:
    """Return which fields an `audio` object changes; a transcription session has an input only."""
    path = "session.audio"
    audio = object_at(value, path)
    refuse_unknown_keys(
        audio, path, ("input", "output") if config.kind == "realtime" else ("input",)
    )
    changes: JsonObject = {}
    if "input" in audio:
        changes |= input_changes(audio["input"], f"{path}.input", config)
    if "output" in audio:
        changes |= output_changes(
            audio["output"], f"{path}.output", config, voices, is_voice_locked=is_voice_locked
        )
    return changes


def requested(
    defaults: SessionConfig, request: JsonObject, voices: VoiceMap, *, max_tools: int = MAX_TOOLS
) -> SessionConfig:
    """Return the configuration that a new session is asked to begin with.

    Args:
        defaults: what is in force where the request says nothing.
        request: the `session` object in the internal vocabulary; its type and model apply.
        voices: the voices there are.
        max_tools: how many functions a session may offer.

    Raises:
        ClientError: with the path of the first thing that is wrong.
    """
    base = replace(defaults, kind=_kind_of(request))
    config = updated(base, request, voices, is_voice_locked=False, max_tools=max_tools)
    return replace(config, model=request.get("model") or config.model)


def parse_modalities(value: object, path: str) -> Modality:
    """Return the one output modality of a list that must hold exactly one."""
    # Source: Realtime API reference, session, output_modalities: ["audio"] or ["text"], never both.
    names = [string_at(name, path) for name in array_at(value, path)]
    modalities: tuple[Modality, ...] = ("audio", "text")
    for modality in modalities:
        if names == [modality]:
            return modality
    raise ClientError(
        f"Invalid modalities: {names}. Supported combinations are: ['text'] and ['audio'].",
        code="invalid_value",
        param=path,
    )


def parse_max_output_tokens(value: object, path: str) -> int | None:
    """Return a limit, or None for "inf"."""
    # Source: Realtime API reference, session, max_output_tokens: 1 to 4,096, or "inf".
    if value == "inf":
        return None
    return integer_at(value, path, low=1, high=MAX_OUTPUT_TOKENS)


def parse_temperature(value: object, path: str) -> float:
    """Return a sampling temperature, which only the beta shape has."""
    return decimal_at(value, path, low=MIN_TEMPERATURE, high=MAX_TEMPERATURE)


def _kind_of(patch: JsonObject) -> SessionKind:
    kind = required(patch, "type", "session")
    kinds: tuple[SessionKind, ...] = ("realtime", "transcription")
    return choice_at(kind, "session.type", kinds)


def _optional(parse: Parser[T]) -> Parser[T | None]:
    """Let null through."""
    return lambda value, path: None if value is None else parse(value, path)


def _changed_tracing(value: object, path: str, before: str | Mapping[str, Any] | None) -> Any:
    """Return the tracing asked for: once it is on, it cannot be changed."""
    # Source: Realtime API reference, session, tracing: once enabled it cannot be modified.
    tracing = None if value is None else _parse_tracing(value, path)
    if before is not None and tracing != before:
        raise ClientError(
            "Cannot update a session's tracing configuration once tracing is enabled.",
            code="cannot_update_tracing",
            param=path,
        )
    return tracing


def _changed_recording(value: object, config: SessionConfig) -> Consent | None:
    """Return whether the session may be recorded from now on. Not of the API."""
    path = "session.recording"
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("consent",))
    is_given = boolean_at(required(given, "consent", path), f"{path}.consent")
    if config.recording is not None:
        return "given" if is_given else "withdrawn"
    if is_given:
        raise ClientError(
            "This server makes no recordings.", code="recording_not_offered", param=path
        )
    return None


def _parse_tracing(value: object, path: str) -> str | JsonObject:
    if isinstance(value, str):
        return choice_at(value, path, ("auto",))
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("workflow_name", "group_id", "metadata"))
    for key in ("workflow_name", "group_id"):
        if key in given:
            string_at(given[key], f"{path}.{key}")
    if "metadata" in given:
        refuse_deep(object_at(given["metadata"], f"{path}.metadata"), f"{path}.metadata")
    return given


def _parse_truncation(value: object, path: str) -> str | JsonObject:
    # Source: Realtime API reference, session, truncation.
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


# Source: Realtime API reference, session, prompt: a template's id, version and variables.
# Kinds of variables in a prompt, and what each can have; all of it is text.
_VARIABLE_LEAVES: Mapping[str, tuple[str, ...]] = {
    "input_text": ("text",),
    "input_image": ("image_url", "file_id", "detail"),
    "input_file": ("file_data", "file_id", "file_url", "filename"),
}


def parse_prompt(value: object, path: str) -> JsonObject:
    """Return a reference to a prompt; whether there is one is for `PromptBook` to say."""
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("id", "version", "variables"))
    string_at(required(given, "id", path), f"{path}.id")
    if given.get("version") is not None:
        string_at(given["version"], f"{path}.version")
    variables = given.get("variables")
    if variables is None:
        return given
    path = f"{path}.variables"
    parsed = {
        name: _parse_variable(variable, f"{path}.{name}")
        for name, variable in object_at(variables, path).items()
    }
    return {**given, "variables": parsed}


def _parse_variable(value: object, path: str) -> str | JsonObject:
    if isinstance(value, str):
        return value
    given = object_at(value, path)
    kind = choice_at(required(given, "type", path), f"{path}.type", tuple(_VARIABLE_LEAVES))
    refuse_unknown_keys(given, path, ("type", *_VARIABLE_LEAVES[kind]))
    for key, leaf in given.items():
        string_at(leaf, f"{path}.{key}")
    if kind == "input_text":
        required(given, "text", path)
    if kind != "input_image":
        return given
    # Clients cannot read an image without it.
    detail = given.get("detail", "auto")
    choice_at(detail, f"{path}.detail", ("auto", "low", "high", "original"))
    return {**given, "detail": detail}


def _parse_include(value: object, path: str) -> tuple[str, ...]:
    known = (INCLUDE_LOGPROBS,)
    return tuple(
        choice_at(name, f"{path}[{index}]", known)
        for index, name in enumerate(array_at(value, path))
    )


def parse_reasoning(value: object, path: str) -> JsonObject:
    """Return how much a model is to reason; ours does not, so it is only echoed.

    Clients of other APIs of the same maker send `none`, which is what our models do anyway.
    """
    given = object_at(value, path)
    refuse_unknown_keys(given, path, ("effort",))
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh")
    choice_at(required(given, "effort", path), f"{path}.effort", efforts)
    return given


def parse_delegate(value: object, path: str) -> DelegateAnswers:
    """Return what a client wants a text model to answer."""
    answers: tuple[DelegateAnswers, ...] = ("unable", "always", "never")
    return choice_at(value, path, answers)


def refuse_delegate(answers: DelegateAnswers | None, path: str, *, is_there: bool) -> None:
    """Refuse to leave answers to a text model where there is none.

    Raises:
        ClientError: there is none, and it is asked for.
    """
    if answers in ("unable", "always") and not is_there:
        raise unsupported(path, "This server has no text model to ask.")


_READ_ONLY = ("type", "id", "object", "expires_at")
_Field = tuple[str, Parser[object]]
# Key on the wire → field of `SessionConfig` and its parser.
_TRANSCRIPTION_FIELDS: Mapping[str, _Field] = {"include": ("include", _optional(_parse_include))}
_FIELDS: Mapping[str, _Field] = {
    **_TRANSCRIPTION_FIELDS,
    "instructions": ("instructions", string_at),
    "output_modalities": ("output_modality", parse_modalities),
    "tool_choice": ("tool_choice", parse_tool_choice),
    "max_output_tokens": ("max_output_tokens", parse_max_output_tokens),
    "truncation": ("truncation", _parse_truncation),
    "prompt": ("prompt", _optional(parse_prompt)),
    "parallel_tool_calls": ("parallel_tool_calls", _optional(boolean_at)),
    "reasoning": ("reasoning", _optional(parse_reasoning)),
    # Only in beta: the beta dialect passes it on, the GA dialect refuses it.
    "temperature": ("temperature", parse_temperature),
    # Our own.
    "delegate": ("delegate", _optional(parse_delegate)),
}
