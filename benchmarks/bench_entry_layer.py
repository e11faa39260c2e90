"""What does a frame cost that the user only speaks, and what if it went through all layers?

Regime: the starter's language model alone on this machine's CPU, one step of every session
together, windows full, one thread. Two things are varied, everything else is equal: where LISTEN
steps enter the stack (`audio_entry_layer` as the checkpoint was trained, and 0, with the same
weights), and how keys and values are kept (in full, and in eight bits). The variants take turns,
call by call, and what is measured is the thread's own time, so that whatever else the machine does
strikes all of them, and none for long.

Entering at 0 is only timed: what the model then makes of a frame means nothing, since it was not
trained so. The correctness gate comes first: the steps that are timed, fed one by one, give what a
whole sequence gives at once.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import thread_time

import numpy as np
import torch

from benchmarks.report import ROOT, Row, keep, print_table, provenance
from model.assemble.weights import load_starter
from model.cache.state import Kind, LMState, Steps
from model.cache.store import MemoryConfig
from model.precision import Precision
from model.transformer.lm import LM
from server.config.load import load_settings

# The first calls ask for memory and fill the caches of the CPU.
_WARM_UP_CALLS = 10
_GATE_ERROR = 1e-3  # of the output's norm, with weights in fp32
_GATE_STEPS = 40


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the model.

    Attributes:
        lm: with the weights of all others.
        entry: where LISTEN steps enter.
        precision: of keys and values.
        state: full windows in every slot.
    """

    lm: LM
    entry: int
    precision: Precision
    state: LMState


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "starter.yaml")
    parser.add_argument("--calls", type=int, default=200, help="of each variant (200)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4], help="at once (1 4)")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)

    # With more threads the time of this thread alone would leave out what the others did.
    torch.set_num_threads(1)
    settings = load_settings(args.config)
    directory = ROOT / settings.model.dir
    if not is_right(load_starter(directory).lm):
        return 1
    lm = load_starter(directory, settings.engine.linears).lm
    rows = [row for n in args.sessions for row in measure(variants(lm, n), n, args.calls)]
    print_table(rows)
    source = provenance(args.config, directory)
    result = {"steps": rows, "warm_up_calls": _WARM_UP_CALLS}
    keep("entry-layer", source, result, is_saved=not args.no_save)
    return 0


def variants(lm: LM, num_sessions: int) -> list[Variant]:
    """Return the model in all ways, every slot of its state with full windows."""
    made = []
    for entry in (lm.config.audio_entry_layer, 0):
        # A shallow copy: the weights are there once, and all variants find the same ones in the
        # cache.
        other = copy.copy(lm)  # the same layers
        other.config = replace(lm.config, audio_entry_layer=entry)
        for precision in ("full", "int8"):
            state = other.init_state(num_sessions, MemoryConfig(precision=precision))
            made.append(Variant(other, entry, precision, state))
            _fill(made[-1], num_sessions)
    return made


def measure(made: Sequence[Variant], num_sessions: int, num_calls: int) -> list[Row]:
    """Time LISTEN steps of all sessions together, the variants in turn.

    Returns:
        A row a variant: `listen_ms`, the median of a step of all sessions; `p95_ms`; `saved_ms`, by
        how much entering late makes the median shorter; `memory_kib`, of one session.
    """
    times: list[list[float]] = [[] for _ in made]
    for call in range(_WARM_UP_CALLS + num_calls):
        # The same frame for all variants in this call, another one in the next.
        steps = _steps(made[0].lm, [Kind.LISTEN], num_sessions, made[0].state.length(0), call)
        for of_variant, variant in zip(times, made, strict=True):
            # An example of why: the machine is busy with something else for 30 ms during one call.
            # On the wall clock that call takes 30 ms more; this thread's own time stands still
            # meanwhile.
            start = thread_time()
            variant.lm.step(steps, variant.state, range(num_sessions))
            if call >= _WARM_UP_CALLS:
                of_variant.append(1000 * (thread_time() - start))
    medians = [float(np.median(of_variant)) for of_variant in times]
    # Compared within a precision: full with full, int8 with int8.
    from_0 = {v.precision: m for v, m in zip(made, medians, strict=True) if v.entry == 0}
    return [
        {
            "sessions": num_sessions,
            "entry": variant.entry,
            "kv": variant.precision,
            "n": num_calls,
            "listen_ms": round(median, 2),
            "p95_ms": round(float(np.percentile(of_variant, 95)), 2),
            "saved_ms": round(from_0[variant.precision] - median, 2),
            "memory_kib": variant.state.use.bytes_used // num_sessions // 1024,
        }
        for variant, median, of_variant in zip(made, medians, times, strict=True)
    ]


@torch.inference_mode()
def is_right(lm: LM) -> bool:
    """Tell whether steps give one by one what they give at once, and say so if not."""
    # All kinds of steps, in turn: 122 of them, of which 40 enter late.
    kinds = [Kind.PREFIX, Kind.TEXT] + [Kind.LISTEN, Kind.SPEAK, Kind.TEXT] * _GATE_STEPS
    steps = _steps(lm, kinds, 1, 0, 0)
    expected, state = lm(steps), lm.init_state(1)
    got = [lm.step(steps.columns(i, i + 1), state, [0]) for i in range(len(kinds))]
    error = float((torch.cat(got, dim=1) - expected).norm() / expected.norm())
    if error < _GATE_ERROR:
        return True
    print(f"nothing is measured: streamed differs from at once by {error:.1%}", file=sys.stderr)
    return False


def _fill(variant: Variant, num_sessions: int) -> None:
    """Take so many steps that every ring has wrapped: words, and turns of speech."""
    config = variant.lm.config
    num_text, num_audio = (
        window + config.rewind_steps for window in (config.text_window, config.audio_window)
    )
    kinds = [Kind.PREFIX] * 2 + [Kind.TEXT] * num_text
    # More than a window of each: then a step reads as much as it ever will.
    kinds += ([Kind.LISTEN] * 40 + [Kind.SPEAK] * 40) * (num_audio // 40)
    for start in range(0, len(kinds), 64):
        part = kinds[start : start + 64]
        for slot in range(num_sessions):
            variant.lm.step(_steps(variant.lm, part, 1, start, start), variant.state, [slot])


def _steps(lm: LM, kinds: Sequence[Kind], num_rows: int, position: int, seed: int) -> Steps:
    """Return steps of given kinds with random contents, the same kinds in every row."""
    config, rng = lm.config, torch.Generator().manual_seed(seed)
    kind = torch.tensor([[int(k) for k in kinds]] * num_rows)
    shape = (*kind.shape, config.num_codebooks)
    # -1 is what a step has where nobody spoke. A LISTEN step has the user's codes and none of the
    # model's.
    absent = torch.full(shape, -1)
    codes = torch.randint(0, config.codebook_size, shape, generator=rng)
    return Steps(
        text=torch.randint(0, config.text_vocab, kind.shape, generator=rng),
        user=torch.where((kind == Kind.LISTEN)[..., None], codes, absent),
        assistant=torch.where((kind == Kind.SPEAK)[..., None], codes, absent),
        kind=kind,
        position=torch.arange(len(kinds)).expand_as(kind) + position,
    )


if __name__ == "__main__":
    sys.exit(main())
