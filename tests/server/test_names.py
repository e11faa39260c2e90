"""`server`, `model` and `kernels` are ours alone, and sharing a process with others works."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.errors import ConfigError
from server.names import NAMES, ROOT, check_names


def _install(folder: Path, name: str, distribution: str) -> None:
    """Lay down what an installer leaves: the package and its record."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n{info.name}/METADATA,,\n")


def test_this_environment_is_clean() -> None:
    """The environment that the tests run in has no clash."""
    check_names()


@pytest.mark.parametrize("name", NAMES)
def test_an_installed_rival_is_named(tmp_path: Path, name: str) -> None:
    """A distribution that provides one of the names is refused, and the message says which."""
    _install(tmp_path, name, "rival-dist")
    with pytest.raises(ConfigError, match=rf"(?s){name}: .*installed by rival-dist") as caught:
        check_names([str(ROOT), str(tmp_path)])
    assert "make setup" in str(caught.value)


def test_a_rival_without_a_record_is_refused_too(tmp_path: Path) -> None:
    """A lone module on the path clashes as much as an installed one."""
    (tmp_path / "model.py").touch()
    with pytest.raises(ConfigError, match=r"model: .*model\.py"):
        check_names([str(tmp_path)])


def test_a_bare_folder_is_no_rival(tmp_path: Path) -> None:
    """Data in a folder called `model` does not stop the server: ours is imported all the same."""
    (tmp_path / "model").mkdir()
    check_names([str(tmp_path)])


def test_the_command_refuses_to_start(tmp_path: Path) -> None:
    """`parley` itself checks, before anything else, and exits with the configuration code."""
    _install(tmp_path, "kernels", "kernels")
    finished = subprocess.run(
        [sys.executable, "-m", "server.cli", "serve", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 2
    assert "installed by kernels" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_libraries_that_probe_for_kernels_work_beside_ours() -> None:
    """Transformers looks for an optional package `kernels`; finding ours must not break it.

    In a process of its own, with ours imported first, so that what other tests imported does not
    matter.
    """
    pytest.importorskip("transformers", reason="needs transformers (the test extra)")
    program = (
        "import kernels, model, server\n"
        "from transformers.utils import is_kernels_available\n"
        "import transformers.integrations.hub_kernels\n"
        "assert not is_kernels_available(), 'ours is taken for the one it looks for'\n"
        "print(kernels.__file__)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert Path(finished.stdout.strip()) == ROOT / "kernels" / "__init__.py"
