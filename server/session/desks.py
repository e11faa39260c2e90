"""Join what carries out a session's questions to others than the client and the engine."""

from collections.abc import Callable
from dataclasses import dataclass

from server.delegate.desk import DelegateDesk
from server.filters.desk import FilterDesk
from server.mcp.desk import ToolDesk
from server.protocol.delegate.outcomes import AskModel, DelegateCommand, DropAsk
from server.protocol.filters.verdicts import CheckWords
from server.protocol.machine import Outcome
from server.protocol.mcp.outcomes import ToolCommand
from server.protocol.settings.config import SessionConfig

# A worked example, of a session that has a tool, a check and a text model:
#
#     the machine returns     goes to     and comes back as (`deliver`)
#     CheckWords(1, ...)      filters     Verdict(1, ...)
#     ListTools, CallTool     tools       ToolsListed, ToolReturned, or what went wrong
#     AskModel("ask_1", ...)  delegate    AnswerText, AnswerCall, and AnswerDone at the end
#
# Each question is a task of its desk. So a slow server holds up its own question only, and when the
# session ends, all its tasks are cancelled.


@dataclass(frozen=True, slots=True)
class Desks:
    """Hold what all sessions ask.

    Attributes:
        tools: speak to MCP servers.
        filters: check words.
        delegate: asks the text model.
    """

    tools: ToolDesk
    filters: FilterDesk
    delegate: DelegateDesk

    def for_session(
        self, config: SessionConfig, deliver: Callable[[Outcome], None]
    ) -> "SessionDesks":
        """Return one session's part.

        Args:
            config: of the session.
            deliver: takes what comes of its questions, in the event loop.
        """
        return SessionDesks(self, config, deliver)


class SessionDesks:
    """Carry out the questions of one session.

    Args:
        desks: of all sessions.
        config: of the session.
        deliver: takes what comes of its questions.

    Attributes:
        filters: check words; what the user types is checked by them as well.
    """

    def __init__(
        self, desks: Desks, config: SessionConfig, deliver: Callable[[Outcome], None]
    ) -> None:
        user = config.safety_identifier
        self._tools = desks.tools.for_session(config.id, deliver, user)
        self.filters = desks.filters.for_session(config.id, deliver)
        self._delegate = desks.delegate.for_session(config.id, deliver)

    def put(self, question: ToolCommand | CheckWords | DelegateCommand) -> None:
        """Ask; what comes of it is delivered."""
        match question:
            case CheckWords():
                self.filters.put(question)
            case AskModel() | DropAsk():
                self._delegate.put(question)
            case _:
                self._tools.put(question)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._tools.close()
        await self.filters.close()
        await self._delegate.close()
