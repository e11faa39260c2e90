"""Write instructions by templates that the operator keeps, and clients fill in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.errors import ClientError
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import unsupported

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
# As long as any text of a client's may be.
_MAX_CHARS = 65_536

# A worked example. The operator has
#
#     prompts: {guide: {versions: {"1": "You are {{name}}, and know {{city}}."}}}
#
# and a session says
#
#     prompt: {id: "guide", variables: {name: "Ada", city: {type: "input_text", text: "Oslo"}}}
#
# Its instructions are "You are Ada, and know Oslo.", unless it has some of its own: what a session
# says explicitly overrides the template.
#
# Source: Realtime API reference, session, prompt; Responses guide, "Reusable prompts".


@dataclass(frozen=True, slots=True)
class Template:
    """Hold one prompt.

    Attributes:
        versions: name of a version → its text, with `{{variable}}` where clients fill something in.
        default: the version of those who name none.
    """

    versions: Mapping[str, str]
    default: str


@dataclass(frozen=True, slots=True)
class PromptBook:
    """Hold the prompts of a server.

    Attributes:
        templates: by their ids. Where there are none at all, a session's `prompt` is another
            service's, and means nothing.
    """

    templates: Mapping[str, Template] = field(default_factory=dict)

    def instructions(self, config: SessionConfig) -> str:
        """Return the instructions of a session: its own, or those of its prompt."""
        return config.instructions or self.text(config.prompt)

    def text(self, prompt: Mapping[str, Any] | None) -> str:
        """Return what a prompt says; nothing, if it is none of ours."""
        if prompt is None or not self.templates:
            return ""
        try:
            return self._filled(prompt, "prompt")
        except ClientError:
            return ""  # the prompt was valid when the ephemeral key was made

    def check(self, prompt: Mapping[str, Any] | None, path: str) -> None:
        """Refuse a prompt that there is not, or that cannot be filled in.

        Raises:
            ClientError: saying what is wrong with it.
        """
        if prompt is not None and self.templates:
            self._filled(prompt, path)

    def _filled(self, prompt: Mapping[str, Any], path: str) -> str:
        template = self.templates.get(prompt["id"])
        if template is None:
            raise _invalid(f"There is no prompt '{prompt['id']}' here.", f"{path}.id")
        version = prompt.get("version") or template.default
        text = template.versions.get(version)
        if text is None:
            known = ", ".join(f"'{name}'" for name in template.versions)
            problem = f"The prompt '{prompt['id']}' has no version '{version}', only {known}."
            raise _invalid(problem, f"{path}.version")
        given = prompt.get("variables") or {}
        # In one pass: what a client fills in is no template itself.
        filled = _VARIABLE.sub(lambda match: _value(match[1], given, path), text)
        if len(filled) > _MAX_CHARS:
            raise ClientError(
                f"Invalid '{path}': with its variables the prompt has {len(filled)} characters, "
                f"and at most {_MAX_CHARS} are taken.",
                code="string_above_max_length",
                param=path,
            )
        return filled


NO_PROMPTS = PromptBook()


def _value(name: str, given: Mapping[str, Any], path: str) -> str:
    place = f"{path}.variables.{name}"
    match given.get(name):
        case None:
            raise ClientError(
                f"Missing required parameter: '{place}'.",
                code="missing_required_parameter",
                param=place,
            )
        case str(text) | {"type": "input_text", "text": str(text)}:
            return text
        case _:
            raise unsupported(place, "Only text can be filled into instructions.")


def _invalid(message: str, path: str) -> ClientError:
    return ClientError(message, code="invalid_value", param=path)
