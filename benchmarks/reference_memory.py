"""Hold Kyutai's models or ours in this process, run some frames, and print the peak memory in MB.

    python -m benchmarks.reference_memory {theirs,ours} {tiny,mid} SESSIONS DIRECTORY

What the imports take is not counted: it is the libraries', most of it PyTorch's, in both. Theirs
maps its file of weights, so that a row of a table takes memory once it is looked up. Sooner or
later all of them are, and so here they are all read once.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

# Compiling takes memory that a session does not.
os.environ.setdefault("NO_TORCH_COMPILE", "1")

import torch

from benchmarks.reference import lm_sizes, moshi
from benchmarks.reference_lanes import (
    Step,
    our_lm_step,
    our_mimi_steps,
    their_lm_step,
    their_mimi_steps,
)
from benchmarks.reference_sizes import MID, TINY, Sizes
from model.codec.mimi import MimiConfig, load_mimi
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm

LM_FILE, MIMI_FILE = "lm.safetensors", "mimi.safetensors"
_FRAMES = 25  # 2 s


def run_theirs(sizes: Sizes, batch: int, directory: Path) -> int:
    """Load their models, run some frames, and return the peak since before, in bytes.

    Args:
        sizes: of the models.
        batch: sessions.
        directory: holds `lm.safetensors` and `mimi.safetensors`, as published.
    """
    loaders = moshi("models.loaders")
    # A peak never falls. So what is counted is what loading and running add to what imports took.
    before = _peak()
    lm = loaders.get_moshi_lm(directory / LM_FILE, lm_sizes(sizes.lm), dtype=torch.float32)
    mimi = loaders.get_mimi(directory / MIMI_FILE, dict(sizes.mimi), num_codebooks=8)
    for weight in lm.parameters():
        weight.sum()
    with their_lm_step(lm, batch) as step, their_mimi_steps(mimi, batch) as (encode, decode):
        _run(step, encode, decode, batch)
    return _peak() - before


def run_ours(sizes: Sizes, batch: int, directory: Path) -> int:
    """Do the same with ours."""
    before = _peak()
    lm = load_lm(directory / LM_FILE, KyutaiConfig.from_dict(sizes.lm))
    mimi = load_mimi(directory / MIMI_FILE, MimiConfig.from_kyutai(sizes.mimi))
    _run(our_lm_step(lm, sizes.lm, batch), *our_mimi_steps(mimi, batch, is_full=False), batch)
    return _peak() - before


def _run(step: Step, encode: Step, decode: Step, batch: int) -> None:
    for _ in range(_FRAMES):
        codes = encode(0.1 * torch.randn(batch, 1920))
        step(codes[:, 0])
        decode(codes)


def _peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` also counts what there was before this program began
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    whose, size, sessions, where = sys.argv[1:]
    run = {"theirs": run_theirs, "ours": run_ours}[whose]
    print(run({"mid": MID, "tiny": TINY}[size], int(sessions), Path(where)) >> 20)
