"""How fast is the NF4 linear, how far from reading its weights once, and against what else?

The layers of a 7B (fused query, key and value; output; gate and up; down) and of its depth
transformer, with nested scales, for 1 to 256 rows. Every time is that of one call inside a captured
graph whose calls each have weights of their own, four times the cache together and eight at least
where memory allows. Beside it stand the int8 linear, `F.linear` over bf16 weights (cuBLAS) and,
where the package is installed, bitsandbytes' kernel over the same NF4 weights.

"% read" compares the bytes of the weight with the read bandwidth measured in the same run, and
"int8 % read" those of the int8 weight. The correctness gate comes first: each shape and number of
rows against the reference on this device, or nothing is reported.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_timing import copies_that_fit, measure_ceilings, time_in_graph
from benchmarks.kernel_gate import WrongError, check_close
from benchmarks.report import ROOT, Row, keep, print_table, provenance
from kernels.int8 import int8_linear, quantize_int8, tile_counters
from kernels.nf4 import (
    NestedScales,
    PlanarWeight,
    nest_nf4,
    planar_gated,
    planar_linear,
    repack_nf4,
)

# Outputs and inputs: query, key and value; output; gate and up; down. Then the same of the depth
# transformer.
# Moshi's: a width of 4,096, three times that for query, key and value; 11,264 hidden, twice that
# for gate and up together.
LARGE = ((12288, 4096), (4096, 4096), (22528, 4096), (4096, 11264))
SMALL = ((3072, 1024), (1024, 1024), (5632, 1024), (1024, 2816))
# A row is a session. With few of them a linear waits for its weights, with many for its products.
NUM_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Shape = tuple[int, int]

_FULL = ((12288, 4096), (22528, 4096), (4096, 11264))  # 20 MB or more: bandwidth, not launch
_SQUARE = ((4096, 4096),)
_GATED = (LARGE[2], SMALL[2])  # a model gates what these two put out


@dataclass(frozen=True, slots=True)
class Bar:
    """What every row of a kind must reach.

    Attributes:
        what: in words.
        shapes: of the rows.
        num_rows: of the rows.
        column: that is compared.
        at_least: the bar.
    """

    what: str
    shapes: tuple[Shape, ...]
    num_rows: tuple[int, ...]
    column: str
    at_least: float


_FEW = (1, 2, 4, 8)
# A bar is for noticing that something got worse; it promises nothing to a user.
_HOPPER = (
    Bar("20 MB or more, M <= 8, % read", _FULL, _FEW, "% read", 55.0),
    Bar("20 MB or more, M <= 8, x bf16", _FULL, _FEW, "x bf16", 2.0),
    Bar("20 MB or more, M = 1, x bnb", _FULL, (1,), "x bnb", 1.3),
    Bar("20 MB or more, M = 2 to 8, x bnb", _FULL, (2, 4, 8), "x bnb", 2.0),
    Bar("4096 x 4096, M <= 8, x bf16", _SQUARE, _FEW, "x bf16", 1.4),
    Bar("4096 x 4096, M <= 8, x bnb", _SQUARE, _FEW, "x bnb", 1.2),
    Bar("20 MB or more, M = 16, x bf16", _FULL, (16,), "x bf16", 1.8),
    Bar("20 MB or more, M = 32, x bf16", _FULL, (32,), "x bf16", 1.4),
    Bar("20 MB or more, M = 64, x bf16", _FULL, (64,), "x bf16", 1.0),
    Bar("20 MB or more, M = 16 to 64, x bnb", _FULL, (16, 32, 64), "x bnb", 1.0),
    Bar("20 MB or more, M = 256, x bf16", _FULL, (256,), "x bf16", round(1 / 1.35, 2)),
)
_CONSUMER = (
    Bar("20 MB or more, M <= 8, % read", _FULL, _FEW, "% read", 80.0),
    Bar("20 MB or more, M <= 8, x bf16", _FULL, _FEW, "x bf16", 3.0),
    Bar("20 MB or more, M = 1, x bnb", _FULL, (1,), "x bnb", 1.0),
    Bar("20 MB or more, M = 4 and 8, x bnb", _FULL, (4, 8), "x bnb", 1.2),
)
_A100 = (Bar("20 MB or more, M <= 8, % read", _FULL, _FEW, "% read", 65.0),)
# By compute capability; on another device figures are told without a bar.
BARS = {(9, 0): _HOPPER, (8, 0): _A100, (8, 6): _CONSUMER, (8, 9): _CONSUMER}


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight in every form that is measured.

    Attributes:
        packed: as at rest.
        scales: as at rest.
        planar: for the Triton kernel.
        dense: bfloat16.
        int8: its levels, scales and counters of tiles.
    """

    packed: Tensor
    scales: NestedScales
    planar: PlanarWeight
    dense: Tensor
    int8: tuple[Tensor, Tensor, Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("bench_nf4: no CUDA device here, so nothing was measured", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    rows: list[Row] = []
    try:
        for shape in (*LARGE, *SMALL):
            rows += measure(shape, ceilings.read_gb_s)
    except WrongError as error:
        print(f"nothing is reported: {error}", file=sys.stderr)
        return 1
    met = bars(rows, torch.cuda.get_device_capability())
    for table in (rows, [asdict(ceilings)], met):
        if table:
            print_table(table)
            print()
    result = {"ceilings": asdict(ceilings), "rows": rows, "bars": met}
    source = provenance(ROOT / "kernels" / "compiled.json")
    keep("nf4", source, result, is_saved=not args.no_save)
    return 0


def measure(shape: Shape, read_gb_s: float) -> list[Row]:
    """Check and measure one shape for every number of rows.

    Raises:
        WrongError: if the kernel does not do what its reference does.
    """
    bitsandbytes = _bitsandbytes()
    # A weight is here in four bits, eight and sixteen; the cache must hold none of them.
    # An example: 12,288 × 4,096 in four bits are 25 MB. A cache of 50 MB would hold two of them,
    # and the time of a call would be that of the cache. Eight of them are 200 MB.
    weights = [_weight(shape) for _ in range(copies_that_fit(shape[0] * shape[1] // 2))]
    rows: list[Row] = []
    for num_rows in NUM_ROWS:
        x = torch.randn((num_rows, shape[1]), dtype=torch.bfloat16, device="cuda")
        _check(x, weights[0])
        calls = [partial(planar_linear, x, each.planar, backend="triton") for each in weights]
        dense = [partial(F.linear, x, each.dense) for each in weights]
        int8 = [partial(_int8_linear, x, each) for each in weights]
        other = [partial(bitsandbytes, x, each) for each in weights] if bitsandbytes else None
        with torch.inference_mode():
            ours = time_in_graph(calls)
            int8_us = time_in_graph(int8).median_us
            bf16_us = time_in_graph(dense).median_us
            bnb_us = time_in_graph(other).median_us if other else None
        # Bytes as they are read, scales included: 0.5 for a number and two levels of scales for
        # each 64.
        found = row(shape, num_rows, weights[0].planar.nbytes, ours.median_us, read_gb_s)
        # One byte a number and a scale of two bytes for each output.
        int8_read = row(shape, num_rows, shape[0] * (shape[1] + 2), int8_us, read_gb_s)["% read"]
        rows.append(
            found
            | {"p99 us": ours.p99_us}
            | beside(ours.median_us, bf16_us, bnb_us)
            | {"int8 us": int8_us, "int8 % read": int8_read}
        )
    return rows


def row(shape: Shape, num_rows: int, nbytes: int, us: float, read_gb_s: float) -> dict[str, object]:
    """Say what a time means.

    Args:
        shape: outputs, inputs.
        num_rows: of the input.
        nbytes: of the weight.
        us: of one call.
        read_gb_s: measured on this device.
    """
    # Bytes in a microsecond are megabytes in a second; a thousandth of it is GB/s.
    gb_s = nbytes / us / 1e3
    return {
        "shape": f"{shape[0]} x {shape[1]}",
        "M": num_rows,
        "us": us,
        "GB/s": round(gb_s, 1),
        "% read": round(100 * gb_s / read_gb_s, 1),
    }


def beside(us: float, bf16_us: float, bnb_us: float | None) -> dict[str, object]:
    """Compare a time with others; those of bitsandbytes are None where it is not installed."""
    return {
        "bf16 us": bf16_us,
        "x bf16": round(bf16_us / us, 2),
        "bnb us": bnb_us,
        "x bnb": None if bnb_us is None else round(bnb_us / us, 2),
    }


def bars(rows: Sequence[Row], capability: tuple[int, int]) -> list[Row]:
    """Say what the worst row of each bar got; a bar that was not measured is left out."""
    found: list[Row] = []
    for bar in BARS.get(capability, ()):
        shapes = {f"{outputs} x {inputs}" for outputs, inputs in bar.shapes}
        got = [
            each[bar.column]
            for each in rows
            if each["shape"] in shapes
            and each["M"] in bar.num_rows
            and each[bar.column] is not None
        ]
        if got:
            # A number for all shapes and rows of the kind, so the slowest of them decides.
            worst = min(got)
            found.append(
                {
                    "what": bar.what,
                    "got": worst,
                    "bar": bar.at_least,
                    "is_met": worst >= bar.at_least,
                }
            )
    return found


def _weight(shape: Shape) -> Weight:
    """Make a random weight: any nibbles and scales are one."""
    size = shape[0] * shape[1]
    packed = torch.randint(0, 256, (size // 2,), dtype=torch.uint8, device="cuda")
    scales = nest_nf4(torch.rand(size // 64, device="cuda") + 0.5)
    planar = repack_nf4(packed, scales, shape)
    dense = torch.randn(shape, dtype=torch.bfloat16, device="cuda")
    int8 = (*quantize_int8(dense), tile_counters(shape[0]).cuda())
    return Weight(packed, scales, planar, dense, int8)


def _int8_linear(x: Tensor, weight: Weight) -> Tensor:
    levels, scale, arrived = weight.int8
    return int8_linear(x, levels, scale, backend="triton", arrived=arrived)


def _check(x: Tensor, weight: Weight) -> None:
    what = f"nf4 {weight.planar.out_features} x {weight.planar.in_features}, {len(x)} rows"
    check_close(
        what,
        planar_linear(x, weight.planar, backend="triton"),
        planar_linear(x, weight.planar, backend="reference"),
    )
    shape = (weight.planar.out_features, weight.planar.in_features)
    if shape in _GATED:
        # Another order of rows, for the kernel that multiplies gate and up itself; see
        # `kernels/nf4`.
        gated = repack_nf4(weight.packed, weight.scales, shape, is_gated=True)
        check_close(
            f"{what}, gated",
            planar_gated(x, gated, backend="triton"),
            planar_gated(x, gated, backend="reference"),
        )
    levels, scale, _ = weight.int8
    check_close(
        f"int8, {what}",
        _int8_linear(x, weight),
        int8_linear(x, levels, scale, backend="reference"),
    )


def _bitsandbytes() -> Callable[[Tensor, Weight], Tensor] | None:
    """Return bitsandbytes' product, or None where it is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return None
    importlib.import_module("bitsandbytes")  # registers its operations
    # Its own operation, so that what is timed is its kernel and not the layer around it.
    gemm = torch.ops.bitsandbytes.gemm_4bit.default

    def product(x: Tensor, weight: Weight) -> Tensor:
        scales = weight.scales
        y: Tensor = gemm(
            x,
            weight.packed.view(-1, 1),
            [weight.planar.out_features, weight.planar.in_features],
            scales.absmax,
            64,
            "nf4",
            absmax_8bit=scales.levels,
            absmax_code=scales.code,
            absmax_offset=scales.offset,
        )
        return y

    return product


if __name__ == "__main__":
    sys.exit(main())
