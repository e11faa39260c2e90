"""What a model is told about the whole session: a tone, a voice, how freely to speak.

A condition is worked out once, when a session opens, and then stays in the session's slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.errors import ConfigError
from model.family import Conditioner, Family

# The longest wave of the positions, in the unit of steps over 2 pi.
_LONGEST_PERIOD = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What one session's answers to the conditioners amount to.

    Attributes:
        added: float [dim], added to every input; None if nothing is.
        attended: float [L, dim], which every layer attends to; None if there is nothing.
    """

    added: Tensor | None
    attended: Tensor | None

    @property
    def num_attended(self) -> int:
        """Length of what is attended to, 0 if there is nothing."""
        return 0 if self.attended is None else len(self.attended)


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """What is given to a conditioner that takes vectors.

    Attributes:
        values: float [L, dim].
        is_present: bool [L]; what is absent is replaced by learned padding, which is seen.
    """

    values: Tensor
    is_present: Tensor


Said = str | Vectors


class ConditionerTable(nn.Module):
    """Bring one conditioner's answer to the model's width.

    Args:
        conditioner: what can be said.
        dim: width of the model.
    """

    def __init__(self, conditioner: Conditioner, dim: int) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.embed = (
            nn.Embedding(conditioner.num_rows, conditioner.dim) if conditioner.num_rows else None
        )
        self.out = nn.Linear(conditioner.dim, dim, bias=False)
        self.padding = nn.Parameter(torch.zeros(dim))

    def forward(self, said: Said | None) -> Tensor:
        """Return float [L, dim]; for nothing said, [1, dim] of padding.

        Raises:
            ConfigError: if this cannot be said.
        """
        if said is None:
            return self.padding[None]
        if isinstance(said, str):
            if self.embed is None or said not in self.conditioner.values:
                raise ConfigError(
                    f"condition: expected one of {', '.join(self.conditioner.values) or 'vectors'},"
                    f" got {said!r}"
                )
            row: Tensor = self.out(self.embed.weight[[self.conditioner.values.index(said)]])
            return row
        # A conditioner either has a table of values that can be named, or it takes vectors. Never
        # both.
        if self.embed is not None or said.values.shape[-1] != self.conditioner.dim:
            raise ConfigError(
                f"condition: expected vectors of width {self.conditioner.dim}, "
                f"got {said.values.shape[-1]}"
            )
        return torch.where(said.is_present[:, None], self.out(said.values), self.padding)


class Conditioners(nn.ModuleDict):
    """All conditioners of a model.

    Args:
        family: which there are.
        dim: width of the model.
    """

    def __init__(self, family: Family, dim: int) -> None:
        tables = {n: ConditionerTable(c, dim) for n, c in family.conditioners.items()}
        super().__init__(tables)
        self._position_scale = family.cross_position_scale

    @torch.inference_mode()
    def forward(self, said: Mapping[str, Said]) -> Condition:
        """Work out a condition.

        Args:
            said: by conditioner; what is left out is learned padding, in guidance the other side.

        Raises:
            ConfigError: if there is no such conditioner, or it does not take this.
        """
        unknown = sorted(said.keys() - self.keys())
        if unknown:
            raise ConfigError(f"no condition {unknown[0]}: there is {', '.join(self) or 'none'}")
        added, attended = None, []
        for name, table in self.items():
            assert isinstance(table, ConditionerTable)
            answer: Tensor = table(said.get(name))
            if table.conditioner.how == "cross":
                attended.append(answer)
            else:
                added = answer[0] if added is None else added + answer[0]
        if not attended:
            return Condition(added, None)
        steps = torch.cat(attended)
        if self._position_scale is not None:
            steps = steps + self._position_scale * _positions(steps)
        return Condition(added, steps)


def _positions(like: Tensor) -> Tensor:
    """Return waves for each step, cosines and then sines, of the shape of `like: [L, dim]`.

    Source: Vaswani et al. 2017, Attention is all you need, section 3.5.
    """
    # The first wave turns once in 2 pi steps, the last one once in 2 pi times 10,000, and those
    # between are spaced evenly on a logarithmic scale.
    half = like.shape[1] // 2
    index = torch.arange(half, device=like.device) / (half - 1)
    step = torch.arange(len(like), device=like.device)[:, None]
    phase = step / _LONGEST_PERIOD**index
    return torch.cat([phase.cos(), phase.sin()], dim=1)
