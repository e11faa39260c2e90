"""How long does one frame of a 7B take, and how many calls does a GPU hold in 80 ms?

Random weights of Moshi's shape, made on the device: in bf16, with int8 linears, and with NF4 ones.
Keys and values are in bf16; with NF4 in int8 as well. Every session is as old as its window, so
that each step reads a full one. A frame is what serving runs for it, everybody heard and everybody
answered: the step is planned on the host, its inputs copied, one captured graph replayed (Mimi's
encoder, backbone, text, every codebook, ring of tokens, Mimi's decoder), tokens and sound fetched.
Beside that stand the graph alone, on the device's own clock, and what the codec takes of it.

The floor is what a step cannot be faster than: the weights read once, or their products done,
whatever takes longer, then the keys and values read once, at the read bandwidth and product rate
that were measured in the same run.

The gate comes first: fed the same, the logits of int8 and NF4 have to be about those of bf16, or
nothing is reported. How often they choose the same is told, not judged: random weights make most
choices near ties. Sizes that the device has no memory for are left out and named.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_timing import Ceilings, measure_ceilings
from benchmarks.random_lm import Form, random_lm, streamed
from benchmarks.reference_sizes import SEVEN_B, Sizes, Values
from benchmarks.report import ROOT, Row, keep, print_table, provenance
from model.cache.state import Kind
from model.cache.store import MemoryConfig
from model.codec.mimi import Mimi, MimiConfig, session_bytes
from model.duplex.accelerate import page_steps_on, reading_on, stepper
from model.duplex.audio import AudioDuplex, AudioFrame
from model.duplex.driver import Duplex, DuplexConfig
from model.duplex.work import Work
from model.precision import Precision
from model.transformer.graphs import FrameGraphs, cuda_capture
from model.transformer.lm import LM

FORMS: tuple[Form, ...] = ("bf16", "int8", "nf4")
FRAME_MS = 80.0
# One session shows how far from the floor a step is, many show how many calls it can hold.
BATCHES = (1, 8, 32, 64, 128, 256)
# Frames of 80 ms: 15 s and 4 minutes. The second is what Moshi was published with.
WINDOWS = (188, 3000)
_FRAMES = 60
_WARM_UP_FRAMES = 5
_FILL_STEPS = 100  # that are counted into a session's memory at once
_GATE_STEPS = 24
# How far logits may be from those of bf16, relative to their size. 32 layers of random weights, 256
# and 512 wide, come to 0.03 and 0.3 on a CPU; logits that have nothing to do with it to 1 and more.
_GATE_OFF = {"int8": 0.1, "nf4": 0.6}
_PAGE_STEPS = 16  # as the engine has them unless it is told otherwise
_SPARE = 0.92  # of the free memory that a case may take


@dataclass(frozen=True, slots=True)
class Case:
    """One size: the form of the weights, that of keys and values, the window, the sessions."""

    form: Form
    kv: Precision
    window: int
    batch: int


@dataclass(frozen=True, slots=True)
class Bar:
    """What a case has to reach: a limit for one of its figures.

    The bars are for one H200; another GPU's ratio to them says little.
    """

    case: Case
    limit_ms: float
    figure: Literal["graph ms", "frame p99 ms"]


BARS = (
    Bar(Case("nf4", "full", 3000, 1), 3.0, "graph ms"),
    Bar(Case("bf16", "full", 3000, 1), 5.1, "graph ms"),
    Bar(Case("nf4", "int8", 3000, 64), FRAME_MS, "frame p99 ms"),
    Bar(Case("nf4", "int8", 188, 256), FRAME_MS, "frame p99 ms"),
)


def cases(form: Form) -> Iterator[Case]:
    """Yield what is measured with weights of a form."""
    precisions: tuple[Precision, ...] = ("full", "int8") if form == "nf4" else ("full",)
    for window in WINDOWS:
        for kv in precisions:
            for batch in BATCHES:
                yield Case(form, kv, window, batch)


def kv_bytes(values: Values, case: Case) -> int:
    """Return the bytes of keys and values that a step of full windows reads."""
    width, layers = int(values["dim"]), int(values["num_layers"])
    heads = int(values["num_heads"])
    # For keys and values, in each layer: two bytes a number in bf16. In int8 one byte a number, and
    # a scale of two bytes for each head. Moshi has 32 layers, a width of 4,096 and 32 heads. So a
    # step in bf16 is 2 · 32 · 8,192 = 524,288 bytes, and a window of 3,000 is 1.6 GB a session.
    per_step = 2 * layers * (2 * width if case.kv == "full" else width + 2 * heads)
    return case.batch * case.window * per_step


def floor_ms(weights: tuple[int, int], kv: int, batch: int, ceilings: Ceilings) -> float:
    """Return what a step takes at least; `weights` are bytes and numbers, `kv` is in bytes."""
    read, numbers = weights
    # Weights are read once for all sessions, so with few of them the reading counts and with many
    # the multiplying. For example, 14 GB of weights at 4,000 GB/s are 3.5 ms. 7e9 numbers in
    # products for 64 sessions are 2 · 7e9 · 64 = 9e11 operations, which at 700 TFLOP/s take 1.3 ms:
    # the floor is 3.5 ms.
    read_ms = read / ceilings.read_gb_s / 1e6
    products_ms = 2 * numbers * batch / ceilings.bf16_tflop_s / 1e9
    return max(read_ms, products_ms) + kv / ceilings.read_gb_s / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("bench_frame: no CUDA device here, so nothing was measured", file=sys.stderr)
        return 1
    ceilings = measure_ceilings()
    gate = divergence(SEVEN_B.lm, "cuda")
    for found in gate:
        # Written so that a result that is not a number fails.
        if not found["logits off by"] <= _GATE_OFF[found["weights"]]:
            print(f"nothing is reported: too far from bf16: {found}", file=sys.stderr)
            return 1
    rows, left_out = measure(SEVEN_B, "cuda", ceilings)
    codec = codec_rows(SEVEN_B.mimi, "cuda")
    met = bars(rows)
    for table in (gate, codec, [asdict(ceilings)], rows, most_sessions(rows), met):
        print_table(table)
        print()
    for what in left_out:
        print(f"left out, no memory for it: {what}")
    result = {
        "ceilings": asdict(ceilings), "gate": gate, "frames": rows, "codec": codec,
        "sessions": most_sessions(rows), "bars": met,
    }  # fmt: skip
    keep("frame", provenance(ROOT / "configs" / "moshi.yaml"), result, is_saved=not args.no_save)
    return 0


@torch.inference_mode()
def divergence(values: Values, device: str) -> list[Row]:
    """Feed every form the same, step by step.

    Returns:
        For each form but bf16, the share of steps in which it chooses the same text as bf16, and
        how far the logits are apart, relative to their size.
    """
    generator = torch.Generator().manual_seed(1)
    num_codebooks = len(values["delays"]) - 1
    # What the model said before is given too (`forced`). Otherwise one near tie would lead the
    # forms to different sentences, and all that follows would differ.
    user = torch.randint(int(values["card"]), (_GATE_STEPS, 1, 8), generator=generator).to(device)
    forced = torch.randint(
        int(values["card"]), (_GATE_STEPS, 1, 1 + num_codebooks - 8), generator=generator
    ).to(device)
    forced[..., 0] %= int(values["text_card"])
    found: list[Tensor] = []
    for form in FORMS:
        lm = random_lm(values, form, device)
        duplex = _duplex(lm, values, Case(form, "full", int(values["context"]), 1), device)
        step = stepper(duplex, (1,))
        frames = [step([0], u, f).text_logits.float() for u, f in zip(user, forced, strict=True)]
        found.append(torch.cat(frames))
        # Before the next form is made: two models of 7B and their graphs do not fit beside each
        # other.
        del lm, duplex, step
        _forget()
    exact = found[0]
    return [
        {
            "weights": form,
            "as bf16, share": round((got.argmax(-1) == exact.argmax(-1)).float().mean().item(), 3),
            "logits off by": round(((got - exact).norm() / exact.norm()).item(), 4),
        }
        for form, got in zip(FORMS[1:], found[1:], strict=True)
    ]


def measure(sizes: Sizes, device: str, ceilings: Ceilings) -> tuple[list[Row], list[str]]:
    """Time frames of every case that fits; return the rows, and what was left out."""
    rows: list[Row] = []
    left_out: list[str] = []
    mimi = _mimi(sizes.mimi, device)
    for form in FORMS:
        lm = random_lm(sizes.lm, form, device)
        for case in cases(form):
            # Filling the windows takes steps in pieces of 100, so the memory has room for one piece
            # more.
            room = replace(case, window=case.window + _FILL_STEPS)
            wanted = kv_bytes(sizes.lm, room) + case.batch * session_bytes(mimi.config)
            if not _fits(wanted, device):
                left_out.append(str(case))
                continue
            rows.append(frame_row(lm, mimi, sizes.lm, case, ceilings))
            _forget()
        del lm
        _forget()
    return rows, left_out


@torch.inference_mode()
def frame_row(lm: LM, mimi: Mimi, values: Values, case: Case, ceilings: Ceilings) -> Row:
    """Time frames of one case."""
    device = str(lm.norm.weight.device)
    duplex = _duplex(lm, values, case, device)
    _fill_windows(duplex, case.window)
    timed = _Timed(device)
    graphs = FrameGraphs(AudioDuplex(duplex, mimi), timed.capture, (case.batch,))
    slots, rng = range(case.batch), np.random.default_rng(0)
    frame_ms, graph_ms = [], []
    for frame in range(_WARM_UP_FRAMES + _FRAMES):
        # Other sound in each frame and for each session; it is made before the clock runs.
        sound = rng.normal(0, 0.1, (case.batch, mimi.frame_samples)).astype(np.float32)
        work = [Work(pcm, None, None, is_wanted=frame >= _WARM_UP_FRAMES) for pcm in sound]
        _synchronise(device)
        start_s = time.perf_counter()
        made = graphs.step(slots, work)
        # A copy to the host waits for the device. Without it only the launch would be timed.
        made.frame.tokens.cpu()
        made.pcm.cpu()
        end_s = time.perf_counter()
        if frame >= _WARM_UP_FRAMES:
            frame_ms.append(1000 * (end_s - start_s))
            graph_ms.append(timed.milliseconds())
    floor = floor_ms(streamed(lm), kv_bytes(values, case), case.batch, ceilings)
    return {
        "weights": case.form,
        "kv": case.kv,
        "window": case.window,
        "batch": case.batch,
        "graph ms": round(float(np.median(graph_ms)), 3),
        "frame ms": round(float(np.median(frame_ms)), 3),
        "frame p99 ms": round(float(np.percentile(frame_ms, 99)), 3),
        "floor ms": round(floor, 3),
        "over floor": round(float(np.median(graph_ms)) / floor, 2),
    }


class _Timed:
    """Capture work and tell how long its last run took, on the device's clock."""

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")
        if self._is_cuda:
            # Events are stamped by the device when it gets to them: launching from Python is not
            # between them.
            self._start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._seconds = 0.0

    def capture(self, work: Callable[[], AudioFrame]) -> Callable[[], AudioFrame]:
        """Capture as `cuda_capture`; on a CPU the work is done again."""
        if self._is_cuda:
            replay = cuda_capture(work)

            def timed() -> AudioFrame:
                self._start.record()
                made = replay()
                self._end.record()
                return made

            return timed

        def done_again() -> AudioFrame:
            start_s = time.perf_counter()
            made = work()
            self._seconds = time.perf_counter() - start_s
            return made

        return done_again

    def milliseconds(self) -> float:
        """Return what the last run took; its results must have been fetched."""
        if self._is_cuda:
            return float(self._start.elapsed_time(self._end))
        return 1000 * self._seconds


@torch.inference_mode()
def codec_rows(values: Values, device: str) -> list[Row]:
    """Time Mimi's encoder and decoder by themselves and without a graph, a frame of everybody."""
    mimi = _mimi(values, device)
    rows: list[Row] = []
    for batch in BATCHES:
        encoder, decoder = mimi.init_encoder_state(batch), mimi.init_decoder_state(batch)
        slots = torch.arange(batch, device=device)
        pcm = 0.1 * torch.randn(batch, mimi.frame_samples, device=device)
        codes = mimi.encode_step(pcm, encoder, slots)
        medians = {
            "encode ms": _median_ms(partial(mimi.encode_step, pcm, encoder, slots), device),
            "decode ms": _median_ms(partial(mimi.decode_step, codes, decoder, slots), device),
        }
        rows.append({"batch": batch, **medians})
    return rows


def most_sessions(rows: Sequence[Row]) -> list[Row]:
    """Return the largest measured batch whose frames stay within 80 ms.

    Every smaller one that was measured must, too.
    """
    found: dict[tuple[str, str, int], int] = {}
    over: set[tuple[str, str, int]] = set()
    for row in sorted(rows, key=lambda row: int(row["batch"])):
        key = (row["weights"], row["kv"], row["window"])
        # For example, 64 stay below 80 ms, 128 do not, and 256 are below it by luck: the answer is
        # 64.
        if row["frame p99 ms"] >= FRAME_MS:
            over.add(key)
        elif key not in over:
            found[key] = row["batch"]
    return [
        {"weights": w, "kv": kv, "window": window, "sessions": sessions}
        for (w, kv, window), sessions in found.items()
    ]


def bars(rows: Sequence[Row]) -> list[Row]:
    """Say what the measured cases of `BARS` got."""
    by_case = {Case(row["weights"], row["kv"], row["window"], row["batch"]): row for row in rows}
    return [
        {
            "bar": f"{bar.case.form}, kv {bar.case.kv}, window {bar.case.window}, "
            f"batch {bar.case.batch}: {bar.figure}",
            "at most": bar.limit_ms,
            "got": by_case[bar.case][bar.figure],
            "met": by_case[bar.case][bar.figure] <= bar.limit_ms,
        }
        for bar in BARS
        if bar.case in by_case
    ]


def _duplex(lm: LM, values: Values, case: Case, device: str) -> Duplex:
    """Let a model have windows and memory of a case."""
    # Only what a session remembers depends on these, no weight.
    lm.config = replace(lm.config, audio_window=case.window, rewind_steps=_FILL_STEPS - 1)
    where = torch.device(device)
    reading = reading_on(where)
    memory = MemoryConfig(
        precision=case.kv,
        page_steps=page_steps_on(where, _PAGE_STEPS),
        reading="reference" if reading == "views" else reading,  # as a graph reads it
    )
    return Duplex(lm, DuplexConfig(delays=tuple(values["delays"])), case.batch, memory=memory)


def _mimi(values: Values, device: str) -> Mimi:
    return Mimi(MimiConfig.from_kyutai(values)).eval().to(device)


def _fill_windows(duplex: Duplex, window: int) -> None:
    """Make every session as old as its window, without computing what it would remember."""
    slots = list(range(duplex.num_slots))
    for start in range(0, window, _FILL_STEPS):
        num = min(_FILL_STEPS, window - start)
        # The books say that the steps were taken; no network has seen them.
        duplex.state.plan([[int(Kind.DUPLEX)] * num] * len(slots), slots)
    for store in duplex.state.stores:
        if store.scale is None:
            # Any numbers will do but zeros: those take less power, and a GPU's clock depends on its
            # power.
            store.kv.normal_()
        else:
            store.kv.random_(-127, 128)
            store.scale.fill_(0.01)


def _median_ms(call: Callable[[], object], device: str) -> float:
    spent = []
    for attempt in range(_WARM_UP_FRAMES + _FRAMES // 2):
        _synchronise(device)
        start_s = time.perf_counter()
        call()
        _synchronise(device)
        if attempt >= _WARM_UP_FRAMES:
            spent.append(1000 * (time.perf_counter() - start_s))
    return round(float(np.median(spent)), 3)


def _fits(num_bytes: int, device: str) -> bool:
    if not device.startswith("cuda"):
        return True
    # Some is kept free for what a step itself needs on the way.
    free, _ = torch.cuda.mem_get_info()
    return num_bytes < _SPARE * free


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
