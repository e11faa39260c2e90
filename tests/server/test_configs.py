"""The configurations that are shipped can be read, and their twins and voices exist."""

from pathlib import Path

import pytest

from model.assemble.twin import make_twin
from server.app import voice_map
from server.config.load import load_settings
from server.engine import is_starter
from server.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SERVED = sorted(path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("train-"))


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_a_configuration(path: Path) -> None:
    """Serves on this machine, in the names that clients ask for; a model's name is its file's."""
    settings = load_settings(path, env={})
    assert settings.server.host == "127.0.0.1"
    if not settings.models:
        assert settings.model.name == path.stem.removesuffix("-filtered")
    for each in settings.each_model:
        if each.model.twin is not None:
            voices = make_twin(each.model.twin, each.engine.seed, "twin").voices
            default = voice_map(each.voices, voices, "twin").default
            assert default == ("hibiki" if settings.models else "alloy")


def test_what_a_folder_holds(tmp_path: Path) -> None:
    """A starter, or what others publish; a folder that is not there is said to be."""
    assert is_starter(CONFIGS.parent / "model" / "starter")
    assert is_starter(tmp_path), "what is missing of a starter is said by its loader"
    (tmp_path / "model.safetensors").touch()
    assert not is_starter(tmp_path)
    with pytest.raises(ConfigError, match="does not exist; `parley pull`"):
        is_starter(tmp_path / "missing")
