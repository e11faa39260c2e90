"""Hold a reply that was begun before it was certain that the user had finished."""

from dataclasses import dataclass, field

from model.messages import InputTranscript
from server.images.picture import Picture
from server.protocol.filters.verdicts import Passed, ResponseOutput
from server.protocol.reply.reply import Reply

# What belongs to an early reply is told from the rest by names: the transcript by the commit's,
# outputs by the number of the response. If the user goes on, this object is dropped or replaced,
# and what the engine still sends under the old names finds nobody: it is stale.


@dataclass(slots=True)
class Speculation:
    """Keep what the engine makes of a turn's end that may not be one.

    Attributes:
        commit_id: names the tentative commit to the engine.
        reply: not announced yet.
        pictures: that the engine was told of the turn.
        transcript: of the turn, if it has come.
        made: of the reply so far.
    """

    commit_id: str
    reply: Reply
    pictures: tuple[Picture, ...] = ()
    transcript: InputTranscript | None = None
    made: list[ResponseOutput] = field(default_factory=list)

    def takes(self, output: Passed) -> bool:
        """Keep an output if it belongs here, and say whether it did."""
        if isinstance(output, InputTranscript) and output.item_id == self.commit_id:
            self.transcript = output
            return True
        if isinstance(output, ResponseOutput) and output.turn == self.reply.turn:
            self.made.append(output)
            return True
        return False
