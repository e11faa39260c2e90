"""Models are found by what clients call them."""

from typing import Any

import pytest

from server.config.models import ModelSettings, ServedSettings
from server.config.settings import Settings
from server.errors import ClientError
from server.images.service import ImageService
from server.protocol.settings.config import VoiceMap
from server.session.gallery import Gallery
from server.session.pool import EnginePool
from server.transport.envelope import RefusedError
from server.transport.ephemeral import EphemeralKeys
from server.transport.models import Models, ServedModel, asked_model, key_config
from tests.server.fakes import EchoEngine

VOICES = {"small": ("amber", "birch"), "large": ("oak",)}


def _models(settings: Settings) -> Models:
    served = []
    for each in settings.each_model:
        names = VOICES.get(each.model.name, ("amber",))
        voices = VoiceMap({name: name for name in names}, names[0])
        gallery = Gallery(ImageService(), each.images, 0)
        served.append(ServedModel(each, EnginePool([EchoEngine()]), voices, gallery))
    return Models(served)


def _two(**large: Any) -> Models:
    small = ServedSettings(aliases=("gpt-realtime",))
    return _models(Settings(models={"small": small, "large": ServedSettings(**large)}))


def test_names_and_aliases() -> None:
    """Each is said as it was asked for; the first model is that of who names none."""
    models = _two(aliases=("gpt-realtime-2",))
    assert [model.name for model in models] == ["small", "large"]
    for name, owner in (
        ("small", "small"),
        ("gpt-realtime", "small"),
        ("gpt-realtime-2", "large"),
        ("large", "large"),
    ):
        model, said = models.called(name)
        assert (model.name, said) == (owner, name)
        assert models.named(name) is model
    for nothing in (None, ""):
        assert models.called(nothing) == (models.default, "small")


def test_other_names_are_refused_unless_a_model_serves_them() -> None:
    """Whichever model that is; one model alone serves them unless told otherwise."""
    with pytest.raises(RefusedError, match="'gpt-4o' does not exist") as refused:
        _two().called("gpt-4o")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    model, said = _two(other_names="serve").called("gpt-4o")
    assert (model.name, said) == ("large", "large")
    alone = _models(Settings(model=ModelSettings(name="only")))
    assert alone.called("gpt-4o")[1] == "only"
    with pytest.raises(RefusedError):
        alone.named("gpt-4o")


def test_sessions_are_checked_with_the_voices_of_their_model() -> None:
    """What one model has, another may not."""
    models = _two()
    session = {"type": "realtime", "audio": {"output": {"voice": "oak"}}}
    config = models.config(session, "large")
    assert (config.model, config.voice) == ("large", "oak")
    with pytest.raises(ClientError, match="oak"):
        models.config(session, "small")
    assert models.config({"type": "realtime"}, "large").voice == "oak"


def test_a_key_without_a_model_may_be_used_with_any() -> None:
    """It then has that model's own voice, or is refused if it wants another's."""
    models, keys = _two(), EphemeralKeys(8)
    session: dict[str, Any] = {"type": "realtime", "instructions": "Be kind."}
    key = keys.issue(models.config(session, ""), 60, has_model=False, session=session)
    config = key_config(key, models.named("large"), "large")
    assert (config.model, config.voice, config.instructions) == ("large", "oak", "Be kind.")
    assert key_config(key, models.default, "gpt-realtime").voice == "amber"
    session = {**session, "audio": {"output": {"voice": "birch"}}}
    key = keys.issue(models.config(session, ""), 60, has_model=False, session=session)
    with pytest.raises(ClientError, match="birch"):
        key_config(key, models.named("large"), "large")


def test_a_name_that_is_no_text() -> None:
    """Is refused by its place."""
    assert asked_model({}) is None
    assert asked_model({"model": None}) is None
    with pytest.raises(ClientError) as refused:
        asked_model({"model": 5})
    assert refused.value.param == "session.model"
