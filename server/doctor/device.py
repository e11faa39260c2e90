"""Whether the model's device is there, and whether kernels can be compiled for it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from server.doctor.finding import Finding, error, ok, skipped, warning
from server.doctor.model import Kind
from server.names import ROOT

# PyTorch alone takes some seconds to load, from a cold network disk a minute.
_PROBE_S = 180
_COMPILE_S = 60
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
# Of which driver on each CUDA runs. Source: CUDA Toolkit release notes, "CUDA Toolkit and Minimum
# Required Driver Version for CUDA Minor Version Compatibility".
_DRIVERS = {11: 450, 12: 525, 13: 580}
# What Triton's launchers are: a module for this Python.
_SOURCE = "#include <Python.h>\nint parley(void) { return PY_MAJOR_VERSION; }\n"

Probe: TypeAlias = Callable[[str, bool], Mapping[str, Any]]
"""Takes a device, and whether to compile a kernel; returns what `gpu_probe` prints, or `failure`
with the last line of what went wrong.
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """An engine, and where it runs.

    Attributes:
        kind: of its model.
        device: that the settings name.
        num_bytes: of its model and its sessions there.
    """

    kind: Kind
    device: str
    num_bytes: int

    @property
    def gpu(self) -> str | None:
        """Return its GPU, `cuda:0` for `cuda` as well; None for the CPU."""
        if self.kind != "kyutai" or not self.device.startswith("cuda"):
            return None
        return "cuda:0" if self.device == "cuda" else self.device


def check_devices(
    engines: Sequence[Placed],
    *,
    nodes: tuple[str, ...],
    driver: str | None,
    compiler: str | None,
    probe: Probe,
) -> Iterator[Finding]:
    """Look at the GPUs, their driver, the C compiler and Triton.

    Args:
        engines: of all models.
        nodes: device files of NVIDIA's driver.
        driver: its version; None where it does not say.
        compiler: C compiler that Triton would use; None if there is none.
        probe: asks PyTorch.
    """
    needed: Counter[str] = Counter()
    for each in engines:
        if each.gpu is not None:
            needed[each.gpu] += each.num_bytes
    if not needed:
        slow = next((each.device for each in engines if each.kind == "kyutai"), None)
        if nodes and slow is not None:
            yield warning(
                "gpu",
                f"there is a GPU ({nodes[0]}), and engine.device is {slow}",
                "set engine.device to cuda, and engine.dtype to bfloat16",
            )
        else:
            yield skipped("gpu", "all runs on the CPU")
        return
    compiles = yield from _compiler(compiler)
    for device, num_bytes in needed.items():
        found = probe(device, compiles)
        yield from _gpu(device, nodes, driver, found)
        if "free_bytes" in found:
            yield _room(device, num_bytes, found)
        if "kernel" in found or "kernel_failure" in found:
            yield _kernel(device, found)
        elif "failure" not in found and compiles:
            yield skipped("triton", "there is no GPU to run a kernel on")


def _kernel(device: str, found: Mapping[str, Any]) -> Finding:
    if failure := found.get("kernel_failure"):
        return error(
            "triton",
            f"Triton made no kernel for {device}: {failure}",
            "see that triton is installed (`make setup`), and that its cache can be written "
            "(TRITON_CACHE_DIR, else ~/.triton)",
        )
    if found["kernel"] != [1.0, 1.0, 1.0]:
        computed = f"a kernel computed {found['kernel']} on {device}"
        return error("triton", computed, "report it, with this text")
    return ok("triton", f"Triton {found['triton']} compiled a kernel and ran it on {device}")


def _compiler(compiler: str | None) -> Generator[Finding, None, bool]:
    """Yield what is to be said of the compiler; returns whether it works."""
    install = "on Debian: apt-get install gcc libc6-dev python3-dev; the image has them"
    if compiler is None:
        yield error("compiler", "there is no C compiler, which Triton needs once a kernel", install)
        return False
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "launcher.c"
        source.write_text(_SOURCE)
        include = sysconfig.get_path("include")
        command = [compiler, str(source), "-shared", "-fPIC", f"-I{include}"]
        ran = subprocess.run(  # noqa: S603 - a compiler that is there, and our own source
            [*command, "-o", f"{name}/launcher.so"],
            capture_output=True, text=True, timeout=_COMPILE_S, check=False,
        )  # fmt: skip
    if ran.returncode:
        lines = ran.stderr.strip().splitlines() or ["it said nothing"]
        yield error("compiler", f"{compiler} cannot compile for this Python: {lines[0]}", install)
        return False
    yield ok("compiler", f"{compiler} compiles for this Python")
    return True


def _gpu(
    device: str, nodes: tuple[str, ...], driver: str | None, found: Mapping[str, Any]
) -> Iterator[Finding]:
    if failure := found.get("failure"):
        yield error(
            "gpu", f"PyTorch failed on {device}: {failure}",
            "see that the driver is new enough for CUDA (nvidia-smi says which it can), and that "
            "engine.device names a GPU that is there",
        )  # fmt: skip
        return
    if not found["available"]:
        mend = _why_none(found["cuda"], nodes, driver)
        yield error("gpu", f"engine.device is {device}, and PyTorch sees no GPU", mend)
        return
    major, minor = found["capability"]
    yield ok(
        "gpu",
        f"{device} is {found['name']}, compute capability {major}.{minor}, "
        f"{_gb(found['free_bytes'])} of {_gb(found['memory_bytes'])} free; "
        f"PyTorch {found['torch']}",
    )
    # Binaries for 8.0 run on 8.6 as well: the same major number, not a smaller minor one (CUDA
    # programming guide, "Binary compatibility").
    built = [arch.removeprefix("sm_") for arch in found["built_for"] if arch.startswith("sm_")]
    fits = any(int(arch[:-1]) == major and int(arch[-1]) <= minor for arch in built)
    if not fits:
        yield error(
            "gpu.capability",
            f"this PyTorch is built for {', '.join(found['built_for'])}, not for {major}.{minor}",
            "use a GPU from compute capability 8.0 on, or another build of PyTorch",
        )
    elif (major, minor) < (8, 0):
        yield warning(
            "gpu.capability", f"compute capability {major}.{minor} has no bfloat16",
            "use a GPU from compute capability 8.0 on, or engine.dtype: float32",
        )  # fmt: skip


def _why_none(build: str | None, nodes: tuple[str, ...], driver: str | None) -> str:
    """Say what to do where PyTorch sees no GPU."""
    if build is None:
        return "this PyTorch has no CUDA: use the image's target cuda, or `make setup`"
    needed = _DRIVERS.get(int(build.partition(".")[0]))
    if driver is not None and needed is not None and int(driver.partition(".")[0]) < needed:
        return f"the driver {driver} is too old for CUDA {build}: install {needed} or later"
    if nodes or driver is not None:
        return (
            f"CUDA {build} cannot use the driver {driver or 'that is there'}: see what nvidia-smi "
            "says; in a container: docker run --gpus all"
        )
    return "install NVIDIA's driver; in a container: docker run --gpus all"


def _room(device: str, needed: int, found: Mapping[str, Any]) -> Finding:
    seen = (
        f"models and their sessions need {_gb(needed)} on {device}; {_gb(found['free_bytes'])} of "
        f"{_gb(found['memory_bytes'])} are free"
    )
    if needed > found["free_bytes"]:
        return error(
            "gpu.memory",
            seen,
            "lower engine.max_sessions, set engine.linears to int8 or nf4, engine.kv to int8, or "
            "end what uses the GPU (nvidia-smi)",
        )
    return ok("gpu.memory", seen)


def found_nodes() -> tuple[str, ...]:
    """Return the device files of NVIDIA's driver."""
    return tuple(sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*")))


def found_driver() -> str | None:
    """Return the version of NVIDIA's driver, such as `580.65.06`; None where it does not say."""
    # `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 …`, or `… Open Kernel
    # Module for x86_64  580.65.06 …`; in containers as well. Under Windows' Linux there is no such
    # file, but the program.
    with contextlib.suppress(OSError):
        if found := re.search(r"Module(?: for \S+)? +(\d+\.[\d.]+)", _DRIVER_FILE.read_text()):
            return found[1]
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        ran = subprocess.run(  # noqa: S603 - the driver's own
            command, capture_output=True, text=True, timeout=_COMPILE_S, check=False
        )
        if found := re.search(r"^\d+\.[\d.]+", ran.stdout):
            return found[0]
    return None


def found_compiler() -> str | None:
    """Return the C compiler that Triton would use: $CC, then gcc, then clang."""
    # Source: triton/runtime/build.py, `_build`.
    named = os.environ.get("CC")
    names = (named,) if named else ("gcc", "clang")
    return next((path for name in names if (path := shutil.which(name))), None)


def ask_torch(device: str, compiles: bool) -> Mapping[str, Any]:  # noqa: FBT001 - see `Probe`
    """Run `gpu_probe` in a process of its own."""
    command = [sys.executable, "-m", "server.doctor.gpu_probe", device, str(int(compiles))]
    try:
        ran = subprocess.run(  # noqa: S603 - our own program
            command, cwd=ROOT, capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer within {_PROBE_S} s"}
    if ran.returncode:
        lines = ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"]
        return {"failure": lines[-1]}
    found: Mapping[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
