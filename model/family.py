"""What checkpoints of the Kyutai family consist of beyond what every language model here has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ServedKind: TypeAlias = Literal["moshi", "personaplex", "hibiki"]
"""Kinds of the family that can be served, from a checkpoint or as a random twin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioner:
    """A property of the whole session that the model is told.

    Attributes:
        dim: width of what is given, before the projection to the model's width.
        values: what can be said, in the order of the table's rows; empty if vectors are given.
        num_rows: rows of the table, one more than its bins; 0 if vectors are given.
        how: added to every input, or attended to by every layer.
    """

    dim: int
    values: tuple[str, ...] = ()
    num_rows: int = 0
    how: Literal["sum", "cross"] = "sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Inputs, depth weights and heads of one checkpoint of the family.

    Its codes and pieces have a table each, with one row more than there are codes: the last row is
    the first input.

    Attributes:
        num_user_codebooks: codes of the user in a frame.
        text_out: text pieces that can come out.
        has_two_texts: whether a text token stands for two pieces (demultiplexed embedding).
        depth_sets: for each codebook that is made, which set of the depth weights makes it.
        depth_rank: width of the depth transformer's embeddings before their projection; None if
            they have its full width.
        has_depth_norms: whether each depth step normalises before its head.
        conditioners: by name, in the order in which they are added.
        cross_position_scale: of the positions added to what is attended to; None for none.
    """

    num_user_codebooks: int
    text_out: int
    has_two_texts: bool = False
    # For instance (0, 1, 2, 3, 4, 4, 4, 4): eight codebooks and five sets of weights, of which the
    # four finest codebooks share the last.
    depth_sets: tuple[int, ...] = ()
    depth_rank: int | None = None
    has_depth_norms: bool = False
    conditioners: Mapping[str, Conditioner] = field(default_factory=dict)
    cross_position_scale: float | None = None

    @property
    def has_summed_conditions(self) -> bool:
        """Whether a condition is added to every input."""
        return any(c.how == "sum" for c in self.conditioners.values())

    @property
    def has_cross_attention(self) -> bool:
        """Whether the backbone attends to a condition."""
        return any(c.how == "cross" for c in self.conditioners.values())
