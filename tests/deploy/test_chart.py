"""The Helm chart, rendered by Helm's own engine and held against Kubernetes' schemas."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.load import load_settings
from server.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "parley"
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
ALL: dict[str, Any] = {
    "model": {"config": "moshi.yaml", "pull": "moshiko", "maxSessions": 8, "quantisation": "int8"},
    "settings": {"vad.min_speech_ms": 96, "voices": {"alloy": "moshi"}},
    "gpu": {"count": 1, "runtimeClassName": "nvidia"},
    "server": {"drainSeconds": 600, "allowedHosts": ["voice.example.com"]},
    "webrtc": {"enabled": True},
    "turn": {"urls": ["turn:turn.example.com:3478"], "existingSecret": "turn"},
    "ingress": {"enabled": True, "tlsSecret": "voice-tls", "timeoutSeconds": 900},
    "keda": {"enabled": True, "load": 0.5},
    "podMonitor": {"enabled": True},
    "models": {"existingClaim": "models"},
    "usage": {"ledger": True},
}

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs Helm: make test-deploy")


def _run(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("render.py")
    command = [str(PYTHON), str(script), str(CHART), json.dumps(values)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    done = _run(values)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["lint"]["errors"]
    return {manifest["kind"]: manifest for manifest in told["manifests"]}


def _settings(deployment: dict[str, Any]) -> Settings:
    """Return what the server in the pod makes of its command line and environment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    args = container["args"]
    node = {"NODE_ADDRESS": "10.0.0.7", "TURN_SECRET": "shared", "POD_NAME": "voice-0"}
    assert args[:2] == ["serve", "--config"]
    environment = {
        each["name"]: re.sub(r"\$\((\w+)\)", lambda hit: node[hit[1]], each["value"])
        for each in container.get("env", ())
        if "value" in each
    }
    environment["PARLEY_SERVER__API_KEYS"] = "[sk-sixteen-or-more-1]"  # of the secret
    overrides = [args[n + 1] for n, word in enumerate(args) if word == "--set"]
    return load_settings(ROOT / args[2], overrides, environment)


def test_the_smallest_cluster() -> None:
    """A deployment, a service and a budget; the starter's settings are good."""
    manifests = _rendered({})
    assert set(manifests) == {"Deployment", "Service", "PodDisruptionBudget"}
    settings = _settings(manifests["Deployment"])
    assert settings.server.host == "0.0.0.0"  # noqa: S104
    assert settings.engine.max_sessions == 4
    assert not settings.webrtc.enabled


def test_everything_at_once() -> None:
    """Each value arrives where it belongs."""
    manifests = _rendered(ALL)
    assert set(manifests) == {
        "Deployment", "Service", "PodDisruptionBudget", "Ingress", "ScaledObject", "PodMonitor",
    }  # fmt: skip
    settings = _settings(manifests["Deployment"])
    assert settings.engine.linears == "int8"
    assert settings.vad.min_speech_ms == 96
    assert dict(settings.voices) == {"alloy": "moshi"}
    assert settings.webrtc.addresses == ("10.0.0.7:8000",)
    assert settings.webrtc.ice_servers[0].secret == "shared"  # noqa: S105
    assert settings.server.allowed_hosts == ("voice.example.com",)
    assert settings.usage.ledger == Path("/parley/runs/usage-voice-0.jsonl")
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["initContainers"][0]["args"] == ["pull", "moshiko"]
    claims = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert [each["name"] for each in claims] == ["models"]
    annotations = manifests["Ingress"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "900"


def test_several_models() -> None:
    """What is said of the model is said of each that is named; those of the file are all there."""
    names = ["starter", "hibiki-tiny"]
    model = {"config": "several.yaml", "names": names, "maxSessions": 3, "quantisation": "int8"}
    settings = _settings(_rendered({"model": model})["Deployment"])
    assert [each.model.name for each in settings.each_model] == names
    for each in settings.each_model:
        assert each.engine.max_sessions == 3
        assert each.engine.linears == "int8"
        assert each.engine.loading_s == 1_800


@pytest.mark.parametrize("values", [{}, ALL])
def test_a_pod_may_end_its_calls_and_write_nothing_of_its_own(values: dict[str, Any]) -> None:
    """The grace is longer than the drain and the wait before it; the root is read-only."""
    pod = _rendered(values)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = _settings(_rendered(values)["Deployment"]).server.drain_s
    assert pod["terminationGracePeriodSeconds"] >= drain + wait + 5
    for each in [*pod["containers"], *pod.get("initContainers", ())]:
        assert each["securityContext"]["readOnlyRootFilesystem"]
        assert {mount["mountPath"] for mount in each["volumeMounts"]} == {
            "/parley/models", "/parley/runs", "/tmp",  # noqa: S108
        }  # fmt: skip
    assert pod["securityContext"]["runAsUser"] == 10_001
    assert "USER 10001" in (ROOT / "Dockerfile").read_text()


def test_scaling_is_by_sessions_and_places() -> None:
    """Of pods that stay; KEDA, and not the deployment, says how many there are."""
    manifests = _rendered(ALL)
    assert "replicas" not in manifests["Deployment"]["spec"]
    scaled = manifests["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert float(trigger["metadata"]["threshold"]) == 0.5
    assert 'parley_draining{namespace="prod"} == 1' in trigger["metadata"]["query"]
    assert _rendered({})["Deployment"]["spec"]["replicas"] == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs prometheus: make test-deploy")
def test_the_fullest_model_decides(tmp_path: Path) -> None:
    """As Prometheus computes it: 6 sessions fill 1.5 pods of 4 places; what drains is left out.

    The other model has 3 of 8. The third pod drains, and has 4 sessions.
    """
    (trigger,) = _rendered(ALL)["ScaledObject"]["spec"]["triggers"]
    places = {"m": 4, "n": 8}
    sessions = {("a", "m"): 4, ("b", "m"): 2, ("c", "m"): 4, ("a", "n"): 3}
    series = {f'parley_draining{{namespace="prod", pod="{pod}"}}': int(pod == "c") for pod in "abc"}
    for pod in "abc":
        for model, slots in places.items():
            labels = f'{{namespace="prod", pod="{pod}", model="{model}"}}'
            series[f"parley_model_sessions{labels}"] = sessions.get((pod, model), 0)
            series[f"parley_model_slots{labels}"] = slots
    wanted = {"expr": trigger["metadata"]["query"], "exp_samples": [{"labels": "{}", "value": 1.5}]}
    test = {
        "input_series": [{"series": name, "values": f"{n}x4"} for name, n in series.items()],
        "promql_expr_test": [{**wanted, "eval_time": "1m"}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"tests": [{**test, "interval": "15s"}]}))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": {"names": ["Starter Two"]}}, "names"),
        ({"model": {"quantisation": "int4"}}, "quantisation"),
        ({"model": {"maxSessions": 0}}, "maxSessions"),
        ({"keys": {"existingSecret": ""}}, "existingSecret"),
        ({"keda": {"load": 2}}, "load"),
        ({"settings": {"Vad Speech": 1}}, "Vad Speech"),
    ],
)
def test_values_that_cannot_be(values: dict[str, Any], said: str) -> None:
    """Are refused by name before anything is rendered."""
    done = _run(values)
    assert done.returncode != 0
    assert said in done.stderr
