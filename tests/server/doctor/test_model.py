"""Weights that are whole, damaged, missing."""

import json
import shutil
from pathlib import Path

from server.config.models import EngineSettings, ModelSettings
from server.config.settings import Settings
from server.doctor.model import look_at_model
from server.names import ROOT


def _looked(model: ModelSettings, **engine: object) -> tuple[str, list[str], int]:
    settings = Settings(model=model, engine=EngineSettings.model_validate(engine))
    found = look_at_model(settings)
    return found.kind, [each.status for each in found.findings], found.num_bytes


def test_the_starter(tmp_path: Path) -> None:
    """Its hashes are compared, and it is larger in memory than on disk."""
    kind, statuses, as_int8 = _looked(ModelSettings(), linears="int8")
    assert (kind, statuses) == ("starter", ["ok"])
    assert _looked(ModelSettings())[2] == 4 * as_int8

    copy = tmp_path / "starter"
    shutil.copytree(ROOT / "model" / "starter", copy)
    weights = copy / "lm.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read()
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert _looked(ModelSettings(dir=copy))[:2] == ("starter", ["error"])
    weights.unlink()
    assert _looked(ModelSettings(dir=copy))[:2] == ("starter", ["error"])


def test_scripts_and_twins(tmp_path: Path) -> None:
    """They have no weights; a script has to be one."""
    script = ROOT / "configs" / "scripts" / "default.yaml"
    assert _looked(ModelSettings(script=script)) == ("script", ["ok"], 0)
    broken = tmp_path / "script.yaml"
    broken.write_text("reply: [")
    assert _looked(ModelSettings(script=broken))[1] == ["error"]
    assert _looked(ModelSettings(twin="moshi"))[:2] == ("twin", ["skipped"])


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    """The folder is missing, or empty of what is needed."""
    assert _looked(ModelSettings(dir=tmp_path / "none"))[:2] == ("kyutai", ["error"])
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "moshi"}))
    kind, statuses, _ = _looked(ModelSettings(dir=tmp_path))
    assert kind == "kyutai"
    assert set(statuses) == {"error"}
