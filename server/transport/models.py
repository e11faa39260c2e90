"""Know the models of a server by their names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from server.config.settings import Settings
from server.protocol.ids import RandomIds
from server.protocol.settings.config import SessionConfig, VoiceMap
from server.protocol.settings.prompts import PromptBook, Template
from server.protocol.settings.update import refuse_delegate, requested
from server.protocol.wire.checks import JsonObject, string_at
from server.session.gallery import Gallery
from server.session.pool import EnginePool
from server.transport.envelope import RefusedError
from server.transport.ephemeral import EphemeralKey

_log = structlog.get_logger("models")

# Of names that clients made up, so many are told of once each.
_MAX_OTHER_NAMES, _MAX_NAME_CHARS = 100, 100


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Hold what all sessions with one model share.

    Attributes:
        settings: of the server, as if this were its only model.
        pool: its engines.
        voices: that its clients may ask for.
        gallery: reads pictures for it.
    """

    settings: Settings
    pool: EnginePool
    voices: VoiceMap
    gallery: Gallery

    @property
    def name(self) -> str:
        """Return what it is called."""
        return self.settings.model.name

    @property
    def names(self) -> tuple[str, ...]:
        """Return all that it is called, its own name first."""
        return (self.name, *self.settings.model.aliases)

    def default_config(self) -> SessionConfig:
        """Return what a session begins with that asks for nothing; it is not connected yet."""
        return SessionConfig(
            id=RandomIds().new("sess"),
            model=self.name,
            voice=self.voices.default,
            expires_at=0,
            recording="offered" if self.settings.recordings.enabled else None,
        )

    def config(self, session: JsonObject, base: SessionConfig | None = None) -> SessionConfig:
        """Return what sessions begin with that are asked for, and whose functions were checked.

        Args:
            session: as it was asked for, in the internal vocabulary.
            base: for what `session` leaves out; the defaults if None.

        Raises:
            ClientError: this model cannot have it.
        """
        max_tools = self.settings.server.max_tools
        base = base or self.default_config()
        config = requested(base, session, self.voices, max_tools=max_tools)
        prompt_book(self.settings).check(config.prompt, "session.prompt")
        is_there = self.settings.delegate.url is not None
        refuse_delegate(config.delegate, "session.delegate", is_there=is_there)
        return config


class Models:
    """Find models by what clients call them.

    Args:
        served: all models, the one for who names none first. No two have a name in common, and at
            most one serves names that none has.
    """

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self._all = tuple(served)
        self._by_name = {name: model for model in self._all for name in model.names}
        serves_others = (each for each in self._all if each.settings.model.other_names == "serve")
        self._for_others = next(serves_others, None)
        self._other_names: set[str] = set()  # that clients asked for

    def __iter__(self) -> Iterator[ServedModel]:
        """Yield every model, the default first."""
        return iter(self._all)

    @property
    def default(self) -> ServedModel:
        """Return the model of who names none."""
        return self._all[0]

    def named(self, name: str) -> ServedModel:
        """Return the model of a name or an alias.

        Raises:
            RefusedError: there is none.
        """
        if (model := self._by_name.get(name)) is None:
            raise no_model(name)
        return model

    def called(self, name: str | None) -> tuple[ServedModel, str]:
        """Return the model that a client asks for, and what its session says it is called.

        A name or an alias is told as it was asked for. Any other name is refused or, where one
        model answers to every name, answered with the own name of that model.

        Args:
            name: that the client gave; None or empty for the default.

        Raises:
            RefusedError: there is no model of that name, and other names are refused.
        """
        if not name:
            return self.default, self.default.name
        if (model := self._by_name.get(name)) is not None:
            return model, name
        if self._for_others is None:
            raise no_model(name)
        self._tell(name, self._for_others.name)
        return self._for_others, self._for_others.name

    def config(self, session: JsonObject, name: str) -> SessionConfig:
        """Return what the sessions of an ephemeral key begin with.

        Args:
            session: as it was asked for, in the internal vocabulary.
            name: of the model for which the key was made, here or on another server.

        Raises:
            ClientError: this server cannot have it.
        """
        model, said = self.called(name)
        return replace(model.config(session), model=said)

    def _tell(self, asked: str, served: str) -> None:
        # Told once for each name: a client that asks by another one does so with every call.
        if asked in self._other_names or len(self._other_names) >= _MAX_OTHER_NAMES:
            return
        self._other_names.add(asked)
        _log.warning(
            "another model was asked for",
            asked=asked[:_MAX_NAME_CHARS],
            served=served,
            hint="aliases make it a name of this one, other_names=refuse an error",
        )


def asked_model(session: JsonObject) -> str | None:
    """Return the model that a request for a session names; None if it names none.

    Raises:
        ClientError: that is no text.
    """
    name = session.get("model")
    return None if name is None else string_at(name, "session.model")


def key_config(key: EphemeralKey, model: ServedModel, said: str) -> SessionConfig:
    """Return what a session of an ephemeral key begins with.

    Args:
        key: that it comes by.
        model: that it has; one that was not named when the key was made may be any.
        said: name of the model, as the session tells it.

    Raises:
        ClientError: the key is for a session that this model cannot have.
    """
    # A key that names no model was checked with the default one, whose voices others do not have.
    is_checked = key.config.model in model.names
    config = key.config if is_checked else model.config(key.session)
    return replace(config, model=said, safety_identifier=key.config.safety_identifier)


def prompt_book(settings: Settings) -> PromptBook:
    """Return the prompts of a server."""
    return PromptBook(
        {
            prompt_id: Template(given.versions, given.default or [*given.versions][-1])
            for prompt_id, given in settings.prompts.items()
        }
    )


def no_model(name: str) -> RefusedError:
    """Make the error for a model that there is not."""
    return RefusedError(404, f"The model '{name}' does not exist.", code="model_not_found")
