"""Draw session updates, mostly right and now and then wrong, and say whether an echo shows them."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Patch = dict[str, Any]

# Wrong for nearly every field, each in its own way.
JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        0.5,
        10**9,
        10**400,
        "",
        "x",
        "\ud800",
        [],
        [1],
        {},
        {"type": "x"},
        {"x": 1},
    ]
)
_TEXT = st.text(max_size=8)
_VOICE = st.sampled_from(["alloy", "echo"])
_FLAGS: Patch = {"create_response": st.booleans(), "interrupt_response": st.booleans()}
_SERVER_VAD = st.fixed_dictionaries(
    {"type": st.just("server_vad")},
    optional={
        "threshold": st.floats(0, 1),
        "prefix_padding_ms": st.integers(0, 10_000),
        "silence_duration_ms": st.integers(0, 10_000),
        "idle_timeout_ms": st.none() | st.integers(5_000, 30_000),
        **_FLAGS,
    },
)
_SEMANTIC_VAD = st.fixed_dictionaries(
    {"type": st.just("semantic_vad")},
    optional={"eagerness": st.sampled_from(["low", "medium", "high", "auto"]), **_FLAGS},
)
_TRANSCRIPTION = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["whisper-1", "gpt-4o-transcribe"]),
        "language": st.none() | st.just("en"),
        "prompt": _TEXT,
        "keywords": st.lists(_TEXT, max_size=2),
    },
)
_NOISE_REDUCTION = st.fixed_dictionaries(
    {"type": st.sampled_from(["near_field", "far_field"])}, optional={"strength": st.floats(0, 1)}
)
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_TOOL = st.fixed_dictionaries(
    {"type": st.just("function"), "name": st.sampled_from(["f", "g", "look_up"])},
    optional={"description": _TEXT, "parameters": st.just(_SCHEMA), "strict": st.booleans()},
)
_INCLUDE = st.none() | st.just(["item.input_audio_transcription.logprobs"])
_INPUT: Mapping[str, st.SearchStrategy[Any]] = {
    "audio.input.format": st.sampled_from(
        [{}, {"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}]
    ),
    "audio.input.transcription": st.none() | _TRANSCRIPTION,
    "audio.input.noise_reduction": st.none() | _NOISE_REDUCTION,
    "audio.input.turn_detection": st.none() | _SERVER_VAD | _SEMANTIC_VAD,
}
_SHARED: Mapping[str, st.SearchStrategy[Any]] = {
    "instructions": _TEXT,
    "tools": st.lists(_TOOL, max_size=3, unique_by=lambda tool: tool["name"]),
    "tool_choice": st.sampled_from(
        ["none", "auto", "required", {"type": "function", "name": "look_up"}]
    ),
    "tracing": st.sampled_from([None, "auto", {"workflow_name": "w", "metadata": {"a": [1]}}]),
    "include": _INCLUDE,
}
GA_FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    **_SHARED,
    **_INPUT,
    "output_modalities": st.sampled_from([["audio"], ["text"]]),
    "max_output_tokens": st.just("inf") | st.integers(1, 4096),
    "truncation": st.sampled_from(
        ["auto", "disabled", {"type": "retention_ratio", "retention_ratio": 0.5}]
    ),
    "prompt": st.none()
    | st.sampled_from(
        [
            {"id": "pmpt_1", "variables": {"name": "Ada"}, "version": "2"},
            {"id": "p", "variables": {"a": {"type": "input_text", "text": "t"}}},
            {"id": "p", "variables": {"a": {"type": "input_image", "image_url": "data:,"}}},
            {"id": "p", "variables": {"a": {"type": "input_file", "file_id": "f"}}},
        ]
    ),
    "parallel_tool_calls": st.booleans(),
    "reasoning": st.just({"effort": "low"}),
    "audio.output.format": st.just({"type": "audio/pcmu"}),
    "audio.output.voice": _VOICE,
    "audio.output.speed": st.floats(0.25, 4),
}
GA_TRANSCRIPTION_FIELDS = {**_INPUT, "include": _INCLUDE}
_BETA_FORMAT = st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"])
_BETA_INPUT: Mapping[str, st.SearchStrategy[Any]] = {
    "input_audio_format": _BETA_FORMAT,
    "input_audio_transcription": _INPUT["audio.input.transcription"],
    "input_audio_noise_reduction": _INPUT["audio.input.noise_reduction"],
    "turn_detection": _INPUT["audio.input.turn_detection"],
}
BETA_FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    **_SHARED,
    **_BETA_INPUT,
    "output_audio_format": _BETA_FORMAT,
    "modalities": st.sampled_from([["text"], ["audio", "text"]]),
    "voice": _VOICE,
    "speed": st.floats(0.25, 4),
    "temperature": st.floats(0.6, 1.2),
    "max_response_output_tokens": GA_FIELDS["max_output_tokens"],
}
BETA_TRANSCRIPTION_FIELDS = {**_BETA_INPUT, "include": _INCLUDE}


_NAMES = sorted(
    {part for name in (*GA_FIELDS, *BETA_FIELDS) for part in name.split(".")}
    | {"type", "name", "id", "rate", "parameters", "threshold", "model", "metadata", "variables"}
    | {"retention_ratio", "token_limits", "strength", "function", "client_secret", "x"}
)
_ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    JUNK | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)


def anything() -> st.SearchStrategy[Any]:
    """Draw any JSON as a session, with keys that mean something somewhere."""
    return _ANY_JSON | st.dictionaries(st.sampled_from(_NAMES), _ANY_JSON, max_size=4)


@st.composite
def patches(
    draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[Any]], kind: str | None = None
) -> Patch:
    """Draw a patch; about one value in twelve is junk, and now and then a key is."""
    patch: Patch = {} if kind is None else {"type": kind}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=5)):
        is_junk = draw(st.integers(0, 11)) == 0
        put(patch, name, draw(JUNK if is_junk else fields[name]))
    if draw(st.integers(0, 29)) == 0:
        put(patch, draw(st.sampled_from(["x", "audio.x", "audio.input.x", "modality"])), 1)
    return patch


def put(patch: Patch, name: str, value: Any) -> None:
    """Put a value at a dotted place."""
    *sections, last = name.split(".")
    for section in sections:
        patch = patch.setdefault(section, {})
    patch[last] = value


def at(session: Patch, name: str) -> Any:
    """Return the value at a dotted place; None for a key that is only echoed once it is set."""
    value: Any = session
    for section in name.split("."):
        value = value.get(section) if isinstance(value, dict) else None
    return value


# Taken and not shown: they mean nothing here, or clients break on their echo.
_NOT_SHOWN = ("keywords", "strict", "create_response", "interrupt_response", "idle_timeout_ms")


def shows(echo: Any, sent: Any, *, is_transcription: bool = False) -> bool:
    """Say whether an echo shows what was sent, beside defaults for what was not."""
    if isinstance(sent, list) and isinstance(echo, list):
        return len(sent) == len(echo) and all(
            shows(*pair, is_transcription=is_transcription) for pair in zip(echo, sent, strict=True)
        )
    if not (isinstance(sent, dict) and isinstance(echo, dict)):
        return bool(echo == sent)
    hidden = _NOT_SHOWN if is_transcription else _NOT_SHOWN[:2]
    return all(
        shows(echo.get(key), value, is_transcription=is_transcription)
        for key, value in sent.items()
        if key not in hidden
    )
