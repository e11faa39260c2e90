"""The starter's recipe as a value: everything that decides what training makes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.codec.mel import MelCodecConfig
from model.config import LMConfig
from model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is trained, on how much, for how long.

    Attributes:
        seed: of all randomness.
        dialogues: conversations that are written and spoken.
        plain_dialogues: the first so many of them are questions and answers and nothing else; their
            speech can be taken over from a run of an older recipe.
        passes: times that the user speech is heard, each through other rooms and microphones.
        text_pieces: most pieces of the text vocabulary.
        codec_steps: training steps of the tokenizer.
        vocoder_steps: training steps of the vocoder.
        adversary_steps: training steps of the vocoder against critics.
        lm_steps: training steps of the language model.
        lm_rate: how fast it learns, 1 from random weights; less goes on gently from trained ones.
        recordings_share: share of a batch's dialogues that are the user's own recordings, if there
            are any.
        codec: sizes of the tokenizer.
        lm: sizes of the language model; its vocabulary is set by the text.
    """

    seed: int = 7
    dialogues: int = 26_000
    plain_dialogues: int = 0
    passes: int = 2
    text_pieces: int = 2048
    codec_steps: int = 1_500
    vocoder_steps: int = 900
    adversary_steps: int = 2_000
    lm_steps: int = 4_000
    lm_rate: float = 1.0
    recordings_share: float = 0.15
    codec: MelCodecConfig = field(default_factory=MelCodecConfig)
    lm: LMConfig = field(default_factory=LMConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Build from parsed YAML; raises `ConfigError` for an unknown key or a wrong type."""
        known = {f.name: f.type for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            msg = (
                f"training recipe: unknown keys {', '.join(unknown)}; "
                f"expected some of {', '.join(known)}"
            )
            raise ConfigError(msg)
        made: dict[str, Any] = {}
        # True is an int to Python. As a number of steps it would mean one, which nobody wants.
        for name, value in values.items():
            if name == "codec":
                made[name] = MelCodecConfig.from_dict(value)
            elif name == "lm":
                made[name] = LMConfig.from_dict(value)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                msg = f"training recipe: {name}: expected a number, got {value!r}"
                raise ConfigError(msg)
            else:
                made[name] = float(value) if known[name] == "float" else int(value)
        return cls(**made)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain mapping that `from_dict` takes."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**plain, "codec": self.codec.to_dict(), "lm": self.lm.to_dict()}
