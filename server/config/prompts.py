"""Settings of prompts that sessions name."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from server.config.strict import Strict


class PromptSettings(Strict):
    """A prompt that sessions may name by its id; see docs/api.md.

    Attributes:
        versions: name of a version → instructions, with `{{variable}}` where clients fill something
            in.
        default: the version of those who name none; left out, the last one.
    """

    versions: Annotated[Mapping[str, str], Field(min_length=1)]
    default: str | None = None

    @model_validator(mode="after")
    def _has_default(self) -> "PromptSettings":
        if self.default is not None and self.default not in self.versions:
            raise ValueError(f"default {self.default!r} is none of the versions")
        return self
