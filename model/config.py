"""Configuration of the language model: sizes, streams, windows. One frozen value per checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from model.errors import ConfigError
from model.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class LMConfig:
    """Describe the unified transformer and its depth transformer.

    Attributes:
        dim: width of the backbone.
        num_layers: backbone layers.
        num_heads: query heads; `dim` is a multiple.
        num_kv_heads: key and value heads; divides `num_heads`.
        ff_dim: hidden width of the gated MLP.
        text_vocab: text pieces, special pieces included.
        num_codebooks: audio codes per stream and step; index 0 is semantic.
        codebook_size: entries per codebook.
        audio_rank: width of the frozen codebook vectors.
        delays: steps by which each codebook's code comes late, one per codebook.
        audio_entry_layer: layer at which LISTEN steps enter the stack; 0 runs them through all.
        rope_base: base of the rotary frequencies.
        norm_eps: added to the mean square in RMSNorm.
        text_window: text steps that stay visible.
        audio_window: audio steps that stay visible.
        prefix_steps: pinned steps a slot can hold.
        rewind_steps: steps per ring beyond its window, so that a rewind this far is exact.
        depth_dim: width of the depth transformer.
        depth_layers: its layers.
        depth_heads: its heads.
        depth_ff: hidden width of its MLP.
        has_end_head: 1 if a head says at every frame of the user whether the turn is over, else 0.
        picture_size: pixels of a picture's side, 0 for a model that sees none.
        patch_size: pixels of a patch's side; divides `picture_size`.
        family: what a checkpoint of the Kyutai family has besides; None for the starter, whose
            codes enter through the codec's vectors. Not part of the starter's files.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    num_kv_heads: int = 4
    ff_dim: int = 704
    text_vocab: int = 2048
    num_codebooks: int = 8
    codebook_size: int = 1024
    audio_rank: int = 96
    delays: tuple[int, ...] = (0, 1, 1, 1, 1, 1, 1, 1)
    audio_entry_layer: int = 0
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    # A worked example of what a call remembers: 256 steps of words and 188 of sound, 15 s. A
    # question of 4 s takes 50 steps of sound and perhaps ten of words. So its sound is gone after a
    # few turns, and its words after some twenty-five.
    text_window: int = 256
    audio_window: int = 188  # 15 s of 80 ms frames
    prefix_steps: int = 16
    rewind_steps: int = 128  # about 10 s of audio
    depth_dim: int = 256
    depth_layers: int = 2
    depth_heads: int = 4
    depth_ff: int = 704
    has_end_head: int = 0
    picture_size: int = 0
    patch_size: int = 16
    family: Family | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that cannot belong together.

        Raises:
            ConfigError: naming the field, what it is and what it must be.
        """
        # The annotations are texts here, since they are not evaluated: "int" and not int. True is
        # an int to Python, and no size.
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int)):
                msg = f"{field.name}: expected an integer, got {value!r}"
                raise ConfigError(msg)
        may_be_zero = {"audio_entry_layer", "rewind_steps", "has_end_head", "picture_size"}
        if self.family:  # one ring for all, and perhaps ears only
            may_be_zero |= {"text_window", "prefix_steps", "audio_rank", "num_codebooks"}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < (0 if field.name in may_be_zero else 1):
                msg = f"{field.name}: expected a positive number, got {value}"
                raise ConfigError(msg)
        if not (self.rope_base > 0 and self.norm_eps > 0):
            msg = f"rope_base and norm_eps: must be > 0, got {self.rope_base}, {self.norm_eps}"
            raise ConfigError(msg)
        # A head's channels turn in pairs, so each head needs an even number of them.
        _check_multiple("dim", self.dim, 2 * self.num_heads, "twice num_heads")
        _check_multiple("num_heads", self.num_heads, self.num_kv_heads, "num_kv_heads")
        _check_multiple("depth_dim", self.depth_dim, self.depth_heads, "depth_heads")
        _check_multiple("picture_size", self.picture_size, self.patch_size, "patch_size")
        # At least one layer must be left that hears: a LISTEN step that enters behind the last one
        # would change nothing.
        if self.audio_entry_layer >= self.num_layers:
            msg = (
                f"audio_entry_layer: must be below {self.num_layers}, got {self.audio_entry_layer}"
            )
            raise ConfigError(msg)
        if len(self.delays) != self.num_codebooks or min(self.delays, default=0) < 0:
            msg = f"delays: expected {self.num_codebooks} numbers >= 0, got {self.delays}"
            raise ConfigError(msg)

    @property
    def num_patches(self) -> int:
        """Patches of a picture, a step each."""
        return (self.picture_size // self.patch_size) ** 2

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the backbone."""
        return self.dim // self.num_heads

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from parsed JSON or YAML; a missing key takes its default.

        Args:
            values: field names to values; lists become tuples, whole numbers may stand for floats.

        Raises:
            ConfigError: for an unknown key, a wrong type or a value out of range.
        """
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        del known["family"]
        unknown = sorted(set(values) - set(known))
        if unknown:
            msg = f"unknown keys in the model configuration: {', '.join(unknown)}"
            raise ConfigError(msg)
        return cls(**{name: _convert(name, value, known[name]) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        assert self.family is None, "only the starter is stored like this"
        # JSON knows no tuples: the delays come back as a list, and `from_dict` turns them around.
        values = dataclasses.asdict(self)
        del values["family"]
        return {**values, "delays": list(self.delays)}


def _convert(name: str, value: Any, kind: Any) -> Any:  # values come from files, untyped
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind.startswith("tuple") and isinstance(value, list | tuple):
        return tuple(_convert(name, item, "int") for item in value)
    msg = f"{name}: expected {kind}, got {value!r}"
    raise ConfigError(msg)


def _check_multiple(name: str, value: int, divisor: int, what: str) -> None:
    if value % divisor:
        msg = f"{name}: must be a multiple of {what} ({divisor}), got {value}"
        raise ConfigError(msg)
