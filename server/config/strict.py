"""What every section of the settings is."""

from pydantic import BaseModel, ConfigDict


# A mistyped key would otherwise be a default that nobody chose: `max_sesions: 4` would serve as
# many as before, and say nothing.
class Strict(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
