"""How much faster is Parley than Kyutai's own package, with the same weights on the same machine?

Regime on a CPU: float32, greedy, a language model of 82 million parameters and Mimi at its
published size, both with random weights. Ours and theirs take every frame in turn, in one process,
on the same number of threads; a figure is the median. Theirs is timed eager and with the parts
compiled that it compiles unless told otherwise, and counts as the faster of the two. A step is all
that a frame takes besides the codec: tokens in, the backbone, all depth steps, tokens out on the
host. With one thread, as `make` has it, times are that thread's own, so that what else the machine
does makes little difference. Memory is the peak of a process of its own for each.

On a GPU (`--device cuda`) the models are Moshi's 7B and Mimi, and each is alone on the device: see
`reference_device`.

The correctness gate comes first: the same tokens, codes and sound, or nothing is reported. Kyutai's
package is not a dependency: `make test-reference` installs it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.reference import moshi, our_lm, our_mimi, published, their_lm, their_mimi
from benchmarks.reference_device import measure_device
from benchmarks.reference_lanes import (
    COMPILED,
    EAGER,
    OURS,
    Times,
    our_lm_step,
    our_mimi_steps,
    their_lm_step,
    their_mimi_steps,
    ways,
)
from benchmarks.reference_memory import LM_FILE, MIMI_FILE
from benchmarks.reference_sizes import MID, TINY, Sizes
from benchmarks.report import ROOT, Row, keep, print_table, provenance

_GATE_FRAMES = 12
_GATE_SESSIONS = 2
# Sound in [-1, 1]; 16-bit samples differ by 3e-5.
_ATOL = 1e-4
# Frames in which two entries of a codebook may be equally near but for rounding.
_MOST_TIES = 1
_WARM_UP_FRAMES = 4
_YOUNG_FRAMES = 25  # 2 s


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep; 0 if ours is faster in every row, 2 if there is no reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="(1 4 16)")
    parser.add_argument("--frames", type=int, default=20, help="that are timed (20)")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--no-compile", action="store_true", help="time theirs eager only")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    try:
        moshi("models")
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    torch.manual_seed(0)
    sizes = TINY if args.tiny else MID
    bench = Bench(sizes, args.frames, compiles=not args.no_compile)
    if problem := bench.gate():
        print(f"nothing is measured: {problem}", file=sys.stderr)
        return 1
    rows: list[Row] = []
    memory: list[Row] = []
    if args.device == "cpu":
        for batch in args.batches:
            rows += [*bench.lm(batch), *bench.mimi(batch)]
            print(f"{batch} at once: done", file=sys.stderr)
        memory.append(bench.memory(max(args.batches)))
    else:
        rows += measure_device(args.device, args.batches, args.frames, is_tiny=args.tiny)
    print_table(rows)
    if memory:
        print()
        print_table(memory)
    source = provenance(ROOT / "benchmarks" / "reference_sizes.py")
    result = {"rows": rows, "memory": memory, "threads": torch.get_num_threads()}
    keep("reference", source, result, is_saved=not args.no_save)
    if slower := [f"{row['what']}, batch {row['batch']}" for row in rows if row["ratio"] <= 1]:
        print(f"ours is not faster: {'; '.join(slower)}", file=sys.stderr)
        return 1
    return 0


def ratio_row(what: str, batch: int, times: Times) -> Row:
    """Return a row from the times of a few lanes: theirs is the faster way, `ratio` over ours."""
    ms = times.medians()
    # Compared with the best that they can do, not with how they happen to be called.
    theirs = min(ms[lane] for lane in (EAGER, COMPILED) if lane in ms)
    return {
        "what": what,
        "batch": batch,
        "eager ms": ms[EAGER],
        "compiled ms": ms.get(COMPILED, "-"),
        "ours ms": ms[OURS],
        "ratio": round(theirs / ms[OURS], 2),
    }


class Bench:
    """Both with the same random weights, on the CPU.

    Args:
        sizes: of the models.
        num_frames: that are timed, of each lane.
        compiles: whether theirs is also timed with its parts compiled.

    Attributes:
        their_lm, their_mimi, our_lm, our_mimi: the models.
    """

    def __init__(self, sizes: Sizes, num_frames: int, *, compiles: bool) -> None:
        self._sizes, self._num_frames, self._compiles = sizes, num_frames, compiles
        self.their_lm, self.their_mimi = their_lm(sizes.lm), their_mimi(sizes.mimi)
        self.our_lm = our_lm(self.their_lm, sizes.lm)
        self.our_mimi = our_mimi(self.their_mimi, sizes.mimi)

    def gate(self) -> str:
        """Return what differs, or nothing."""
        batch = _GATE_SESSIONS
        (_, eager), *_ = ways(compiles=False)
        ours = our_lm_step(self.our_lm, self._sizes.lm, batch)
        encode, decode = our_mimi_steps(self.our_mimi, batch, is_full=False)
        with (
            eager,
            their_lm_step(self.their_lm, batch) as theirs,
            their_mimi_steps(self.their_mimi, batch) as (their_encode, their_decode),
        ):
            num_other = 0
            for frame in range(_GATE_FRAMES):
                user, pcm = self._user(batch), self._pcm(batch)
                # Greedy, with the same weights: not about the same tokens but the very same ones.
                if not torch.equal(ours(user), theirs(user)):
                    return f"other tokens in frame {frame}"
                codes = their_encode(pcm)
                num_other += int((encode(pcm) != codes).any(dim=2).sum())
                # Two entries of a codebook can be equally near to a vector but for the last bit,
                # and both are right.
                if num_other > _MOST_TIES:
                    return f"other codes in frame {frame}"
                heard, expected = decode(codes), their_decode(codes)
                # Random weights can make sound that is louder than 1.
                scale = max(1.0, float(expected.abs().max()))
                if float((heard - expected).abs().max()) > _ATOL * scale:
                    return f"another sound in frame {frame}"
        return ""

    def lm(self, batch: int) -> list[Row]:
        """Time a step of the language model, in sessions of 2 s and with a full window."""
        young, old = Times(), Times()
        window = int(self._sizes.lm["context"])
        ours = our_lm_step(self.our_lm, self._sizes.lm, batch)
        theirs_ways = ways(compiles=self._compiles)
        # Each frame goes to one of their two ways, in turn, and to ours every time. So the window
        # of each is as full as that of the others.
        last = window + self._num_frames * len(theirs_ways)
        young_frames = min(_YOUNG_FRAMES, window)
        with their_lm_step(self.their_lm, batch) as theirs:
            for frame in range(last):
                user = self._user(batch)
                times = young if frame < young_frames else old
                # Counted in the first two seconds and once the window is full; what lies between is
                # neither.
                is_counted = frame >= window or _WARM_UP_FRAMES <= frame < young_frames
                way, how = ways(compiles=self._compiles)[frame % len(theirs_ways)]
                with how:
                    times.of(way, theirs, user, is_counted=is_counted)
                times.of(OURS, ours, user, is_counted=is_counted)
        return [
            ratio_row("LM step, first 2 s", batch, young),
            ratio_row("LM step, window full", batch, old),
        ]

    def mimi(self, batch: int) -> list[Row]:
        """Time a frame of the codec each way, with full windows."""
        encoding, decoding = Times(), Times()
        encode, decode = our_mimi_steps(self.our_mimi, batch)
        num_ways = len(ways(compiles=self._compiles))
        with their_mimi_steps(self.their_mimi, batch) as (their_encode, their_decode):
            for frame in range((_WARM_UP_FRAMES + self._num_frames) * num_ways):
                is_counted = frame >= _WARM_UP_FRAMES * num_ways
                pcm = self._pcm(batch)
                way, how = ways(compiles=self._compiles)[frame % num_ways]
                with how:
                    codes = encoding.of(way, their_encode, pcm, is_counted=is_counted)
                    decoding.of(way, their_decode, codes, is_counted=is_counted)
                encoding.of(OURS, encode, pcm, is_counted=is_counted)
                decoding.of(OURS, decode, codes, is_counted=is_counted)
        return [
            ratio_row("Mimi encode", batch, encoding),
            ratio_row("Mimi decode", batch, decoding),
        ]

    def memory(self, batch: int) -> Row:
        """Return the peak memory of a process that holds both models and runs some frames."""
        with tempfile.TemporaryDirectory() as directory:
            save_file(published(self.their_lm), Path(directory) / LM_FILE)
            save_file(published(self.their_mimi), Path(directory) / MIMI_FILE)
            size = "tiny" if self._sizes is TINY else "mid"
            # A process each: memory that one has freed would be found again by the next.
            peak = {
                whose: _peak_mb(whose, size, batch, Path(directory)) for whose in ("theirs", "ours")
            }
        return {
            "what": "peak memory",
            "batch": batch,
            "theirs MB": peak["theirs"],
            "ours MB": peak["ours"],
            "ratio": round(peak["theirs"] / peak["ours"], 2),
        }

    def _user(self, batch: int) -> torch.Tensor:
        return torch.randint(int(self._sizes.lm["card"]), (batch, 8))

    def _pcm(self, batch: int) -> torch.Tensor:
        return 0.1 * torch.randn(batch, self.our_mimi.frame_samples)


def _peak_mb(whose: str, size: str, batch: int, directory: Path) -> int:
    """Ask a process of its own."""
    module = "benchmarks.reference_memory"
    command = [sys.executable, "-m", module, whose, size, str(batch), str(directory)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return int(finished.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
