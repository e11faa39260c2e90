"""GPU, driver, compiler and Triton, as they may be found."""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import server.doctor.device as device_module
from server.doctor.device import (
    Placed,
    ask_torch,
    check_devices,
    found_compiler,
    found_driver,
)
from server.doctor.model import Kind

GPU: dict[str, Any] = {
    "torch": "2.11.0", "cuda": "13.0", "triton": "3.6.0", "available": True,
    "name": "H200", "capability": [9, 0], "memory_bytes": 140e9, "free_bytes": 130e9,
    "built_for": ["sm_75", "sm_80", "sm_90"], "count": 1, "sum": 3.0, "kernel": [1.0, 1.0, 1.0],
}  # fmt: skip
NONE = {"torch": "2.11.0", "cuda": "13.0", "triton": "3.6.0", "available": False}


def _found(
    probed: Mapping[str, Any],
    *,
    kind: Kind = "kyutai",
    device: str = "cuda",
    needed: int = 0,
    nodes: tuple[str, ...] = (),
    driver: str | None = None,
    compiler: str | None = None,
) -> dict[str, tuple[str, str]]:
    """Return status and text by check."""
    asked: list[tuple[str, bool]] = []

    def probe(name: str, compiles: bool) -> Mapping[str, Any]:
        asked.append((name, compiles))
        return {k: v for k, v in probed.items() if compiles or k != "kernel"}

    found = check_devices(
        [Placed(kind, device, needed)],
        nodes=nodes,
        driver=driver,
        compiler=compiler or found_compiler(),
        probe=probe,
    )
    result: dict[str, tuple[str, str]] = {
        each.check: (each.status, f"{each.found} {each.mend}") for each in found
    }
    assert len(asked) <= 1
    return result


def _bad(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {
        check: status for check, (status, _) in found.items() if status not in ("ok", "skipped")
    }


def test_all_is_there() -> None:
    """The kernel was compiled and computed what it should."""
    found = _found(GPU, needed=20_000_000_000)
    assert not _bad(found)
    assert set(found) == {"compiler", "gpu", "gpu.memory", "triton"}


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ({"kernel": [1.0, 0.0, 1.0]}, {"triton": "error"}),
        ({"capability": [12, 1]}, {"gpu.capability": "error"}),
        ({"capability": [8, 6]}, {}),
        ({"capability": [7, 5]}, {"gpu.capability": "warning"}),
        ({"free_bytes": 1e9}, {"gpu.memory": "error"}),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], bad: dict[str, str]) -> None:
    """The wrong build, too little memory, a kernel that computes nonsense."""
    assert _bad(_found({**GPU, **change}, needed=20_000_000_000)) == bad


def test_no_gpu() -> None:
    """What to do depends on what is missing: the driver, its age, or CUDA in PyTorch."""
    one, old, new = ("/dev/nvidia0",), "535.104.05", "580.65.06"
    for probed, nodes, driver, said in (
        (NONE, (), None, "install NVIDIA's driver; in a container: docker run --gpus all"),
        (NONE, one, old, "the driver 535.104.05 is too old for CUDA 13.0: install 580 or later"),
        ({**NONE, "cuda": "12.8"}, one, old, "CUDA 12.8 cannot use the driver 535.104.05"),
        (NONE, one, new, "CUDA 13.0 cannot use the driver 580.65.06"),
        (NONE, one, None, "CUDA 13.0 cannot use the driver that is there"),
        ({**NONE, "cuda": None}, one, new, "has no CUDA"),
        ({"failure": "RuntimeError: Found no NVIDIA driver"}, (), None, "Found no NVIDIA driver"),
    ):
        status, text = _found(probed, nodes=nodes, driver=driver)["gpu"]
        assert status == "error"
        assert said in text


def test_a_gpu_that_nobody_asked_for() -> None:
    """A warning where the model would run faster on it; a starter does not."""
    nodes = ("/dev/nvidia0",)
    assert _bad(_found(NONE, device="cpu", nodes=nodes)) == {"gpu": "warning"}
    assert not _bad(_found(NONE, device="cpu"))
    assert not _bad(_found(NONE, kind="starter", device="cpu", nodes=nodes))


def test_no_compiler(tmp_path: Path) -> None:
    """One that cannot compile, and none at all: no kernel is tried then."""
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'Python.h: no such file' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    found = _found(GPU, compiler=str(broken))
    assert _bad(found) == {"compiler": "error"}
    assert "Python.h" in found["compiler"][1]
    assert "triton" not in found
    cuda = [Placed("kyutai", "cuda", 0)]
    none = check_devices(cuda, nodes=(), driver=None, compiler=None, probe=lambda *_: NONE)
    assert [each.status for each in none] == ["error", "error"]


def test_several_engines() -> None:
    """Each GPU is asked once, and has to hold all that runs on it; what is on the CPU is not there.

    130 GB are free on each: two engines of 70 GB fit on two GPUs and not on one.
    """
    asked: list[str] = []

    def probe(device: str, _: bool) -> Mapping[str, Any]:
        asked.append(device)
        return GPU

    def memory(*devices: str) -> list[str]:
        asked.clear()
        engines = [Placed("kyutai", device, 70_000_000_000) for device in devices]
        engines.append(Placed("starter", "cpu", 200_000_000_000))
        found = check_devices(
            engines, nodes=(), driver=None, compiler=found_compiler(), probe=probe
        )
        return [each.status for each in found if each.check == "gpu.memory"]

    assert memory("cuda:0", "cuda:1") == ["ok", "ok"]
    assert asked == ["cuda:0", "cuda:1"]
    assert memory("cuda", "cuda:0") == ["error"]
    assert asked == ["cuda:0"]
    assert memory("cpu") == []
    assert asked == []


@pytest.mark.parametrize(
    ("file", "says", "found"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19",
            "",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Rel",
            "",
            "580.65.06",
        ),
        (None, "525.60.13\n525.60.13\n", "525.60.13"),
        (None, "NVIDIA-SMI has failed because it couldn't communicate with the driver.", None),
        (None, None, None),
    ],
)
def test_the_version_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, says: str | None,
    found: str | None,
) -> None:  # fmt: skip
    """By what the kernel says, or by the driver's own program."""
    version = tmp_path / "version"
    if file is not None:
        version.write_text(f"{file}\nGCC version:  gcc version 12.2.0\n")
    monkeypatch.setattr(device_module, "_DRIVER_FILE", version)
    if says is not None:
        _program(tmp_path / "nvidia-smi", f"printf '%s' \"{says}\"")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found_driver() == found


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# A PyTorch and a Triton that are whatever a test wants, for the process that asks them.
_TORCH = """
from types import SimpleNamespace as S

class Device:
    def __init__(self, *_): pass
    def __enter__(self): pass
    def __exit__(self, *_): pass

class Three(list):
    def __add__(self, other): return Three(each + other for each in self)
    def sum(self): return sum(self)
    def tolist(self): return [*self]

Tensor = Three
__version__, version = "2.11.0", S(cuda={cuda!r})
def zeros(number, device): return Three([0.0] * number)
cuda = S(
    is_available=lambda: {available}, device_count=lambda: 1, device=Device,
    get_device_properties=lambda _: S(name="H200", major=9, minor=0, total_memory=140e9),
    mem_get_info=lambda _: (130e9, 140e9), get_arch_list=lambda: ["sm_90"],
)
"""
_TRITON = """
__version__ = "3.6.0"
class jit:
    def __init__(self, kernel): pass
    def __getitem__(self, grid): return self
    def __call__(self, numbers, size, BLOCK):
        {run}
"""


@pytest.mark.parametrize(
    ("torch", "triton", "status", "said"),
    [
        ({"cuda": None, "available": False}, "pass", "gpu error", "has no CUDA"),
        ({"cuda": "13.0", "available": False}, "pass", "gpu error", "535.104.05 is too old"),
        (
            {"cuda": "13.0", "available": True},
            "raise RuntimeError('Failed to find C compiler.\\nset CC')",
            "triton error",
            "made no kernel for cuda:0: RuntimeError: Failed to find C compiler. see that",
        ),
        (
            {"cuda": "13.0", "available": True},
            None,
            "triton error",
            "ModuleNotFoundError: No module named 'triton'",
        ),
        (
            {"cuda": "13.0", "available": True},
            "numbers[:] = [1.0] * 3",
            "triton ok",
            "Triton 3.6.0 compiled a kernel and ran it on cuda:0",
        ),
    ],
)  # fmt: skip
def test_what_torch_and_triton_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], triton: str | None,
    status: str, said: str,
) -> None:  # fmt: skip
    """As they do without CUDA, with an old driver, and where no kernel can be compiled."""
    (tmp_path / "torch.py").write_text(_TORCH.format(**torch))
    if triton is None:
        (tmp_path / "triton.py").write_text(
            "raise ModuleNotFoundError(\"No module named 'triton'\")"
        )
    else:
        folder = tmp_path / "triton"
        folder.mkdir()
        (folder / "__init__.py").write_text(_TRITON.format(run=triton))
        (folder / "language.py").write_text("constexpr = int\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = check_devices(
        [Placed("kyutai", "cuda", 0)], nodes=("/dev/nvidia0",), driver="535.104.05",
        compiler=found_compiler(), probe=ask_torch,
    )  # fmt: skip
    told = {f"{each.check} {each.status}": f"{each.found} {each.mend}" for each in found}
    assert said in told[status]


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    """Here it has no GPU, or one; a device that cannot be is a line of text."""
    assert ask_torch("cuda", False)["torch"]
    found = ask_torch("cuda:99", False)
    assert "failure" in found or not found["available"]
