"""The Dockerfile, as far as it can be looked at without a Docker daemon."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = ROOT / ".venv-deploy" / "bin" / "hadolint"
TEXT = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.DOTALL | re.MULTILINE))


def test_the_last_target_is_for_gpus() -> None:
    """`docker build .` builds it; both targets run as nobody, from the same stage."""
    assert list(STAGES)[-2:] == ["cpu", "cuda"]
    for target in ("cpu", "cuda"):
        assert f"FROM runtime AS {target}" in TEXT
        assert STAGES[target].rstrip().endswith("USER 10001")


def test_what_is_copied_is_there() -> None:
    """In the checkout, and not kept from the build; or in an earlier stage."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    stages: list[str] = []
    for name, text in STAGES.items():
        for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
            options = [word for word in line.split() if word.startswith("--")]
            *sources, _ = (word for word in line.split() if not word.startswith("--"))
            if options:
                assert options[0].removeprefix("--from=") in stages, line
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source not in ignored, source
        stages.append(name)


def test_every_package_is_in_the_image() -> None:
    """What Parley imports is copied, and no test and no benchmark."""
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", STAGES["code"], re.MULTILINE)
        for word in line.split()
    }
    assert {"server", "model", "kernels", "configs"} <= copied
    assert not copied & {"tests", "benchmarks", "docs", "deploy"}


def test_what_is_run_is_a_command_of_ours() -> None:
    """Entry point, default command and health check."""
    runtime = STAGES["runtime"]
    assert 'ENTRYPOINT ["python", "-m", "server.cli"]' in runtime
    assert "/livez" in runtime
    config = re.search(r'"--config", "([^"]+)"', runtime)
    assert config is not None
    assert (ROOT / config[1]).is_file()


@pytest.mark.parametrize(
    ("index", "left_out", "kept"),
    [
        ("", ("triton", "bitsandbytes"), ("torch", "nvidia-cublas", "fastapi")),
        ("an-index", ("triton", "bitsandbytes", "torch", "nvidia-cublas"), ("fastapi", "sympy")),
    ],
)
def test_what_the_cpu_target_leaves_out(
    tmp_path: Path, index: str, left_out: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    """The Dockerfile's own line is run; what it leaves keeps its hashes."""
    run = re.search(
        r"^RUN (if \[ -n .*?constraints-cpu\.txt)", STAGES["build-cpu"], re.DOTALL | re.MULTILINE
    )
    assert run is not None
    (tmp_path / "constraints-serve.txt").write_text((ROOT / "constraints-serve.txt").read_text())
    script = run[1].replace("\\\n", " ")
    subprocess.run(
        ["sh", "-euc", script],
        cwd=tmp_path,
        env={"TORCH_CPU_INDEX": index, "PATH": "/usr/bin:/bin"},
        check=True,
    )
    blocks = re.findall(
        r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==.*\n((?:    --hash=\S+.*\n)*)",
        (tmp_path / "constraints-cpu.txt").read_text(),
        re.MULTILINE,
    )
    names = {name for name, _ in blocks}
    assert not names & set(left_out)
    assert set(kept) <= names
    assert all(hashes for _, hashes in blocks)


@pytest.mark.skipif(not HADOLINT.exists(), reason="needs hadolint: make test-deploy")
def test_hadolint_finds_nothing() -> None:
    """With all of its rules."""
    done = subprocess.run(
        [HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
