"""Run everything that needs a CUDA device: the tests marked `gpu`, then the benchmarks of kernels.

Without a device it says so and fails: a green line here always means that a GPU did the work.
"""

import subprocess
import sys

import torch

from benchmarks.report import ROOT

KERNEL_BENCHMARKS: tuple[str, ...] = ("bench_kernels", "bench_nf4", "bench_frame")


def main() -> int:
    """Run the tests, then the benchmarks, and return the first failure's exit code."""
    if not torch.cuda.is_available():
        print("bench-gpu: no CUDA device here, so nothing was run", file=sys.stderr)
        return 1
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q"], cwd=ROOT, check=False
    ).returncode
    if tests:
        return tests
    for name in KERNEL_BENCHMARKS:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode
        if failed:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
