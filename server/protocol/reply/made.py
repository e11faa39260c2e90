"""Name what an engine makes of a response."""

from typing import TypeAlias

from model.messages import (
    CallArguments,
    CallDone,
    CallStarted,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    ResponseWord,
)
from server.protocol.filters.verdicts import Blocked, Retell

Made: TypeAlias = (
    ResponseStarted
    | ResponseText
    | ResponseAudio
    | ResponseWord
    | CallStarted
    | CallArguments
    | CallDone
)
"""What the engine makes of a response before its end."""

ResponseOutput: TypeAlias = Made | ResponseDone | ResponseFailed | Blocked | Retell
