"""A spec is a few values that travel; what they stand for is built where they arrive."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from model.assemble.spec import ScriptedSpec, StarterSpec
from model.engine.config import EngineConfig
from model.engine.core import CoreSpec
from model.errors import ConfigError, WeightsError

ROOT = Path(__file__).resolve().parents[3]


def test_specs_travel_and_build() -> None:
    """A spec that was pickled builds the core that its settings describe."""
    script = ROOT / "configs" / "scripts" / "default.yaml"
    spec: CoreSpec = ScriptedSpec(script, max_sessions=3, ahead_ms=500, name="mine")
    arrived = pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own
    info = arrived.build().info
    assert (info.model, info.max_sessions) == ("mine", 3)


def test_what_is_wrong_is_said_when_it_is_built(tmp_path: Path) -> None:
    """Making a spec reads nothing; building it names the file or the setting."""
    with pytest.raises(ConfigError, match="max_sessions"):
        StarterSpec(tmp_path, config=EngineConfig(max_sessions=0))
    with pytest.raises(WeightsError, match=r"config\.json"):
        StarterSpec(tmp_path).build()


def test_the_gateway_does_not_load_torch() -> None:
    """Who serves from another process waits for no network's libraries, and has none in memory."""
    modules = "server.serve, server.cli, server.engine, server.webrtc.routes, server.client.talk"
    check = f"import sys, {modules}, server.capacity.command; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=120)
