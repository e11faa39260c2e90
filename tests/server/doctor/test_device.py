"""GPU, driver, compiler and Triton, as they may be found."""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.doctor.device import Placed, ask_torch, check_devices, found_compiler
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
    for probed, nodes, said in (
        (NONE, (), "--gpus all"),
        (NONE, ("/dev/nvidia0",), "too old"),
        ({**NONE, "cuda": None}, (), "has no CUDA"),
        ({"failure": "RuntimeError: Found no NVIDIA driver"}, (), "Found no NVIDIA driver"),
    ):
        status, text = _found(probed, nodes=nodes)["gpu"]
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
    none = check_devices(cuda, nodes=(), compiler=None, probe=lambda *_: NONE)
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
        found = check_devices(engines, nodes=(), compiler=found_compiler(), probe=probe)
        return [each.status for each in found if each.check == "gpu.memory"]

    assert memory("cuda:0", "cuda:1") == ["ok", "ok"]
    assert asked == ["cuda:0", "cuda:1"]
    assert memory("cuda", "cuda:0") == ["error"]
    assert asked == ["cuda:0"]
    assert memory("cpu") == []
    assert asked == []


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    """Here it has no GPU, or one; a device that cannot be is a line of text."""
    assert ask_torch("cuda", False)["torch"]
    found = ask_torch("cuda:99", False)
    assert "failure" in found or not found["available"]
