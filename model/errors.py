"""The root of Parley's exception tree, and the branches that the model side raises.

    ParleyError
    ├── ConfigError          a setting is missing, unknown or out of range (start-up)
    │   └── ScriptError      a script is broken, or asks for what cannot be
    ├── WeightsError         a weight file is missing, broken or does not fit the model
    ├── DownloadError        the hub cannot be reached, refuses, or does not have a file
    ├── TextError            text cannot be encoded, or a tokenizer file does not fit
    ├── GrammarError         a function's parameters are no schema that calls can be kept within
    ├── OverloadedError      no capacity for another session (refuse at admission)
    │   └── OutOfPagesError  no memory for another step, as long as others have theirs
    └── EngineError          ours: the engine cannot do what it was asked
        └── RewindError      the state no longer holds what a rewind asks for

The gateway adds its own branches in `server/errors.py`; imports point right, so the root is here.
"""

from __future__ import annotations


class ParleyError(Exception):
    """Say that something Parley understands went wrong; every error of ours derives from this."""


class ConfigError(ParleyError):
    """Refuse a setting that is missing, unknown or out of range."""


class ScriptError(ConfigError):
    """Refuse a script of the scripted engine, naming the place."""


class WeightsError(ParleyError):
    """Refuse a weight file, naming the file, the tensor, what was found and what was expected."""


class DownloadError(ParleyError):
    """Report that something cannot be fetched, with what may be done about it."""


class TextError(ParleyError):
    """Refuse text that cannot be encoded, or a tokenizer file that does not fit the model."""


class GrammarError(ParleyError):
    """Refuse a JSON schema that cannot be compiled; the message is the reason, without a subject.

    The code that reports it adds whose schema it is.
    """


class OverloadedError(ParleyError):
    """Refuse a session because the measured capacity is reached."""


class OutOfPagesError(OverloadedError):
    """Report that all pages of memory are in use; nothing was changed, and others can give way."""


class EngineError(ParleyError):
    """Report that the engine cannot do what it was asked."""


class RewindError(EngineError):
    """Report that a state no longer holds the steps a rewind needs."""
