"""What the kernel benchmark measures of paged attention, with PyTorch's beside it."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.gpu_timing import Ceilings, copies_that_fit, time_in_graph
from benchmarks.kernel_gate import check_close
from benchmarks.report import Row
from kernels.attention import paged_attention, quantize_kv

# Moshi's heads, and pages as the engine has them on a GPU.
HEADS, HEAD_DIM, PAGE_SIZE = 32, 128, 64
BATCHES = (1, 4, 16, 64)
LENGTHS = ((100, 192), (188, 192), (100, 3008), (3000, 3008))  # seen columns, columns of a slot

BAR_BYTES = 150_000_000  # of cache a launch, from where on a launch fills a device
BAR_READ = {"bf16": 80.0, "int8": 70.0}  # % of the read ceiling there
BAR_READ_LONE = 60.0  # % of it for one session of 3000 columns, bf16

_ENTRY_BYTES = {"bf16": 2 * HEAD_DIM, "int8": HEAD_DIM + 2}  # of one key or value of a head


def measure_attention(ceilings: Ceilings) -> list[Row]:
    """Measure every batch and length, in bf16 and int8.

    Raises:
        WrongError: if the kernel does not do what its reference does.
    """
    return [
        _measure(batch, length, capacity, form, ceilings)
        for length, capacity in LENGTHS
        for batch in BATCHES
        for form in _ENTRY_BYTES
    ]


def read_bytes(batch: int, columns: int, form: str) -> int:
    """Return the bytes of keys, values and scales in `columns` columns of each row."""
    # For example, one session of 3,000 columns in bf16: 2 · 3,000 · 32 · 256 = 49 MB in each layer.
    return 2 * batch * columns * HEADS * _ENTRY_BYTES[form]


def attention_call(batch: int, length: int, capacity: int, form: str) -> partial[torch.Tensor]:
    """Return a call of which only the backend is open; its pages lie in a random order."""
    pages_per_slot = capacity // PAGE_SIZE
    shape = (batch * pages_per_slot, HEADS, PAGE_SIZE, HEAD_DIM)
    keys, values = (torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    k_scale = v_scale = None
    if form == "int8":
        (keys, k_scale), (values, v_scale) = quantize_kv(keys), quantize_kv(values)
    # A step may see three stretches of columns; a full window of one kind is one of them.
    spans = torch.tensor([[0, length], [0, 0], [0, 0]], dtype=torch.int32, device="cuda")
    return partial(
        paged_attention,
        torch.randn((batch, 1, HEADS, HEAD_DIM), dtype=torch.bfloat16, device="cuda"),
        keys,
        values,
        # After some hours of calls pages lie anywhere. In order they would be read faster than in
        # service.
        torch.randperm(shape[0], device="cuda").view(batch, pages_per_slot).int(),
        spans.expand(batch, 1, 3, 2).contiguous(),
        scale=HEAD_DIM**-0.5,
        k_scale=k_scale,
        v_scale=v_scale,
    )


def _measure(batch: int, length: int, capacity: int, form: str, ceilings: Ceilings) -> Row:
    num_copies = copies_that_fit(read_bytes(batch, capacity, form))
    calls = [attention_call(batch, length, capacity, form) for _ in range(num_copies)]
    _check(calls[0], form)
    ours = time_in_graph([partial(call, backend="triton") for call in calls])
    # Their memory is for PyTorch's turn: both at once would leave room for fewer copies.
    del calls
    # PyTorch reads what is seen and nothing of the other columns, so its data is smaller.
    num_dense = copies_that_fit(read_bytes(batch, length, "bf16"))
    plain = time_in_graph([_dense_call(batch, length) for _ in range(num_dense)])
    gb_s = read_bytes(batch, length, form) / ours.median_us / 1e3
    return {
        "batch": batch,
        "length": length,
        "capacity": capacity,
        "cache": form,
        "us": ours.median_us,
        "p99_us": ours.p99_us,
        "GB/s": round(gb_s, 1),
        "% read": round(100 * gb_s / ceilings.read_gb_s, 1),
        "torch_us": plain.median_us,
        "x torch": round(plain.median_us / ours.median_us, 2),
    }


def _check(call: partial[torch.Tensor], form: str) -> None:
    """Compare the first row; the reference would not hold a large batch."""
    q, keys, values, table, spans = call.args
    first = partial(call.func, q[:1], keys, values, table[:1], spans[:1], **call.keywords)
    exact = first(backend="reference")
    check_close(f"attention {form}", first(backend="triton"), exact)
    check_close(f"attention {form}, in a batch", call(backend="triton")[:1], exact)


def _dense_call(batch: int, length: int) -> partial[torch.Tensor]:
    shape = (batch, HEADS, length, HEAD_DIM)
    keys, values = (torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    q = torch.randn((batch, HEADS, 1, HEAD_DIM), dtype=torch.bfloat16, device="cuda")
    return partial(F.scaled_dot_product_attention, q, keys, values)
