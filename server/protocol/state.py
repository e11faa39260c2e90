"""Hold what all parts of one session's protocol share."""

from dataclasses import dataclass, field

from model.messages import EngineInfo, Open
from server.config.server import DEFAULTS
from server.protocol.delegate.policy import DelegatePolicy
from server.protocol.ids import Ids
from server.protocol.items.conversation import Conversation
from server.protocol.items.recordings import Recordings
from server.protocol.items.sight import Sight
from server.protocol.mcp.policy import NO_POLICY, ToolPolicy
from server.protocol.mcp.toolbox import Listings
from server.protocol.moments import Moment
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.settings.prompts import NO_PROMPTS, PromptBook
from server.protocol.settings.request import ResponseRequest, session_request

# One value that every part of a session's protocol holds, in the place of callbacks from one to
# another. The configuration in it is frozen: a session.update makes a new one, and puts it here as
# a whole, so that no part ever sees half of an update. A worked example:
#
#     session.update {"instructions": "be brief"}
#     `updated` checks all of it, and returns a SessionConfig, which `state.config` is from then on
#     turns      ask `state.config.turn_detection` at the next sound
#     replies    ask `state.request` at the next response
#     the feed   is told that instructions changed: its memory is outdated
#
# Who writes what: `config` the machine alone; `conversation` and `recordings` turns, replies and
# edits.


@dataclass(slots=True)
class SessionState:
    """Hold a session's configuration, as it is now, and its conversation.

    Attributes:
        config: in force; a `session.update` puts another in its place.
        info: of the engine.
        voices: that clients may ask for.
        ids: makes ids.
        conversation: the items.
        recordings: their sound.
        sight: what the user's camera has shown, which becomes part of the turn that ends next.
        policy: which calls need a person's yes, and what waits for calls.
        max_context_tokens: that a response of the conversation may be based on.
        listings: what MCP servers have.
        delegate: what a text model answers; None where there is none.
        prompts: that a client may name.
        moments: what has happened since somebody asked.
    """

    config: SessionConfig
    info: EngineInfo
    voices: VoiceMap
    ids: Ids
    conversation: Conversation
    recordings: Recordings
    sight: Sight
    policy: ToolPolicy = NO_POLICY
    max_context_tokens: int = DEFAULTS.max_context_tokens
    listings: Listings = field(default_factory=Listings)
    delegate: DelegatePolicy | None = None
    prompts: PromptBook = NO_PROMPTS
    moments: list[Moment] = field(default_factory=list)

    @property
    def session_id(self) -> str:
        """Return the id, by which the engine knows the conversation as well."""
        return self.config.id

    @property
    def rate_hz(self) -> int:
        """Return the rate of the engine's sound, in and out."""
        return self.info.sample_rate_hz

    @property
    def request(self) -> ResponseRequest:
        """Return what a response is made with that no client asked for."""
        return session_request(self.config)

    @property
    def instructions(self) -> str:
        """Return the session's instructions, those of its prompt where it has none of its own."""
        return self.prompts.instructions(self.config)

    def opening(self) -> Open:
        """Return the command that begins the conversation in the engine, as things are now."""
        voice = self.voices.engine_voice(self.config.voice)
        return Open(self.session_id, voice, self.instructions, self.config.is_recorded)
