"""What `docker compose up` starts: files, dashboard and alerts, against the real metrics."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.app import create_app
from server.config.load import load_settings
from server.config.settings import Settings
from tests.server.fakes import EchoEngine
from tests.server.serving import serving

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose"
PROMETHEUS = COMPOSE / "prometheus"
BIN = ROOT / ".venv-deploy" / "bin"
KEY = "sk-sixteen-or-more-1"
NAMES = re.compile(r"\b(?:parley|process)_[a-z_]+\b")

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus: make test-deploy"
)


def _services(*files: str) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for file in files:
        for name, service in yaml.safe_load((COMPOSE / file).read_text())["services"].items():
            services[name] = {**services.get(name, {}), **service}
    return services


def _dashboard() -> dict[str, Any]:
    text = (COMPOSE / "grafana" / "dashboards" / "parley.json").read_text()
    dashboard: dict[str, Any] = json.loads(text)
    return dashboard


def _dashboard_queries() -> Iterator[str]:
    for panel in _dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _metrics() -> set[str]:
    """Return the names of all samples that a server serves, before anybody has called."""
    settings = Settings.model_validate({"server": {"api_keys": [KEY]}})
    app = create_app(settings, {settings.model.name: [EchoEngine()]})
    text = app.state.gateway.metrics.text().decode()
    names: set[str] = set()
    for family in text_string_to_metric_families(text):
        more = {
            "counter": ["_total"],
            "histogram": ["_bucket", "_sum", "_count"],
        }.get(family.type, [""])
        names |= {f"{family.name}{end}" for end in more}
    return names


async def test_only_metrics_that_there_are() -> None:
    """In the dashboard, in the alerts, in the chart and in their tests."""
    served = _metrics()
    assert "parley_first_audio_seconds_bucket" in served
    texts = {
        "dashboard": " ".join(_dashboard_queries()),
        "its variables": json.dumps(_dashboard()["templating"]),
        "rules": " ".join(rule["expr"] for rule in _rules()),
        "tests of rules": (PROMETHEUS / "rules_test.yml").read_text(),
        "chart": (ROOT / "deploy/helm/parley/templates/scaledobject.yaml").read_text(),
    }
    for where, text in texts.items():
        used = set(NAMES.findall(text))
        assert used, where
        assert used <= served, f"{where}: {used - served}"


def test_labels_that_there_are() -> None:
    """What a panel is split by is a label of its metric, and not only of others."""
    families = {
        "parley_sessions_ended_total": "close", "parley_refused_total": "code",
        "parley_responses_total": "status", "parley_errors_total": "type",
        "parley_calls_ended_total": "reason", "parley_key_sessions": "key",
    }  # fmt: skip
    documented = (ROOT / "docs" / "metrics.md").read_text()
    for query in _dashboard_queries():
        for label in re.findall(r"by \((\w+)\)", query):
            if label == "le":
                continue
            (metric,) = set(NAMES.findall(query))
            assert families[metric] == label
            assert re.search(rf"`{metric}` \| \w+ by `{label}`", documented)


def test_the_dashboard_is_found() -> None:
    """By the folder that is mounted, the data source by its name, panels in nobody's place."""
    (provider,) = yaml.safe_load(
        (COMPOSE / "grafana/provisioning/dashboards/parley.yaml").read_text()
    )["providers"]
    (source,) = yaml.safe_load(
        (COMPOSE / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )["datasources"]
    volumes = [volume.split(":") for volume in _services("compose.yaml")["grafana"]["volumes"]]
    mounted = {inside: COMPOSE / outside for outside, inside, *_ in volumes}
    assert (mounted[provider["options"]["path"]] / "parley.json").is_file()
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == source["uid"]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
def test_the_server_starts_so(files: list[str]) -> None:
    """Its command and environment are good settings, with time to drain and room to write."""
    service = _services(*files)["parley"]
    given = {"PARLEY_API_KEY": KEY, "PARLEY_ADDRESS": "203.0.113.7"}

    def filled(text: str) -> str:
        return re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda hit: given.get(hit[1], hit[2]), text)

    environment = {name: filled(value) for name, value in service["environment"].items()}
    command = service["command"]
    assert command[0] == "serve"
    overrides = [command[n + 1] for n, word in enumerate(command) if word == "--set"]
    settings = load_settings(ROOT / command[command.index("--config") + 1], overrides, environment)
    assert settings.server.host == "0.0.0.0"  # noqa: S104
    assert settings.server.api_keys == (KEY,)
    assert settings.webrtc.addresses == ("203.0.113.7",)
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= settings.server.drain_s + 5
    assert service["read_only"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108
    written = {volume.split(":")[1] for volume in service["volumes"]}
    assert written == {"/parley/models", "/parley/runs"}
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert service["build"]["target"] in stages


def test_prometheus_asks_the_server_with_its_key() -> None:
    """By the name of the service, its port, and the secret that it is given."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    name, port = job["static_configs"][0]["targets"][0].split(":")
    assert name in services["services"]
    assert any(f":{port}/tcp" in each for each in services["services"][name]["ports"])
    (secret,) = services["services"]["prometheus"]["secrets"]
    assert secret in services["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert all((PROMETHEUS / file).is_file() for file in config["rule_files"])


@pytest.mark.skipif(not BIN.exists(), reason="needs check-jsonschema: make test-deploy")
def test_the_files_are_of_the_schema() -> None:
    """That the compose specification publishes."""
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    files = [str(COMPOSE / "compose.yaml"), str(COMPOSE / "compose.gpu.yaml")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_prometheus
def test_promtool_finds_nothing() -> None:
    """Rules, their tests, and the configuration."""
    for arguments in (
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ):
        done = subprocess.run(
            ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
async def test_prometheus_reads_a_server(tmp_path: Path) -> None:
    """Every query of the dashboard and every rule is understood, and what is always there comes."""
    settings = Settings.model_validate({"server": {"api_keys": [KEY]}})
    async with serving(EchoEngine(), settings) as served:
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        job = config["scrape_configs"][0]
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{served.port}"]
        job["authorization"]["credentials_file"] = str(tmp_path / "key")
        config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
        (tmp_path / "key").write_text(KEY)
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(120):
                while await _asked(port, "parley:load:ratio") != [0.0]:
                    assert process.returncode is None, "prometheus ended"
                    await asyncio.sleep(0.1)
            assert await _asked(port, 'up{job="parley"}') == [1.0]
            for query in _dashboard_queries():
                found = await _asked(port, query.replace("$instance", ".*"))
                assert found is not None, query
                if "rate(" not in query and "increase(" not in query:
                    assert found, f"nothing for {query}"
        finally:
            process.terminate()
            await process.wait()


async def _asked(port: int, query: str) -> list[float] | None:
    """Return the values that Prometheus has for a query; None if it refuses or is not there."""

    def ask() -> list[float] | None:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return [float(each["value"][1]) for each in result]

    return await asyncio.to_thread(ask)
