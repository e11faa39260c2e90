"""Note what a session is told and served, for whoever wants to do it again."""

from __future__ import annotations

from dataclasses import dataclass

from model.messages import CommandNoted


@dataclass(slots=True)
class Notes:
    """Count the commands of one session.

    Attributes:
        session_id: whose they are.
        seed: of its choices.
        num_commands: that were carried out, its `Open` included.
    """

    session_id: str
    seed: int
    num_commands: int = 0

    def command(self, at_s: float) -> CommandNoted:
        """Note that the next command is carried out."""
        number, self.num_commands = self.num_commands, self.num_commands + 1
        return CommandNoted(self.session_id, number, at_s, self.seed)
