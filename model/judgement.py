"""How far a checkpoint's own judgement is trusted: thresholds that were chosen on data.

They belong to the weights and stand in their card, `config.json`. `parley eval --ends --calibrate`
and `parley eval --doubt --calibrate` choose and write them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

from model.errors import ConfigError
from model.messages import Eagerness

EAGERNESS: tuple[Eagerness, ...] = get_args(Eagerness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Say from where on a model is believed.

    Attributes:
        ends: how sure the model's head for ends of turns has to be, 0 to 1, for each eagerness;
            None for weights without one, whose piece `<end>` says it.
        doubt_below: probability of a transcript, 0 to 1, below which it is nothing to rely on; 0
            to rely on every one.
    """

    ends: Mapping[Eagerness, float] | None = None
    doubt_below: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that are not probabilities.

        Raises:
            ConfigError: naming the field, what it is and what it must be.
        """
        if self.ends is not None and set(self.ends) != set(EAGERNESS):
            raise ConfigError(f"ends: expected {', '.join(EAGERNESS)}, got {', '.join(self.ends)}")
        named: dict[str, Any] = {f"ends.{name}": value for name, value in (self.ends or {}).items()}
        for name, value in (named | {"doubt_below": self.doubt_below}).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name}: expected a number from 0 to 1, got {value!r}")

    @property
    def doubt_score(self) -> float:
        """Return the log-probability that belongs to `doubt_below`."""
        return math.log(self.doubt_below) if self.doubt_below else -math.inf

    @classmethod
    def from_dict(cls, values: Any) -> Self:  # comes from a file, untyped
        """Build from parsed JSON.

        Raises:
            ConfigError: for something else than `to_dict` has written.
        """
        if not isinstance(values, dict) or set(values) - {"ends", "doubt_below"}:
            raise ConfigError(f"judgement: expected ends and doubt_below, got {values!r}")
        ends = values.get("ends")
        if ends is not None and not isinstance(ends, dict):
            raise ConfigError(f"ends: expected {', '.join(EAGERNESS)}, got {ends!r}")
        return cls(ends=ends, doubt_below=values.get("doubt_below", 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        ends = {} if self.ends is None else {"ends": {name: self.ends[name] for name in EAGERNESS}}
        return ends | {"doubt_below": self.doubt_below}
