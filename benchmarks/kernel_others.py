"""What the kernel benchmark measures besides attention, with plain PyTorch beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_timing import copies_that_fit, time_in_graph
from benchmarks.kernel_attention import HEAD_DIM, HEADS, PAGE_SIZE, attention_call
from benchmarks.kernel_gate import check_close, check_same
from benchmarks.report import Row
from kernels.kv_write import rotate_and_write
from kernels.noise import exponential_noise
from kernels.rmsnorm import rms_norm
from kernels.rvq import half_norms, nearest_codes
from kernels.sampling import sample_tokens
from kernels.silu import gated_silu
from model.sampling import Sampling
from model.transformer.sampling import sample

BATCHES = (1, 16, 64)
DIM, FF_DIM = 4096, 11264
# Levels, entries, dimensions of each.
QUANTISERS = ((8, 2048, 256), (32, 2048, 256), (7, 1024, 96))  # Mimi at 8 and 32, the starter
FRAMES = (1, 16, 128)
DRAWS = ((2048, 250), (32000, 25))  # vocabulary, top-k
NOISE = (8, 250)  # of a frame's codes

BAR_RVQ_US = 200.0  # 8 levels of 2048, up to 128 frames
BAR_SMALL_US = 4.0  # norm, SiLU, sampling, noise

_NEAR_TIES = 0.01  # share of codes that rounding may decide
_CALLS = 32  # in a graph, of those that work on what is in the cache

Call = Callable[[], object]


def measure_others() -> list[Row]:
    """Measure all of them.

    Raises:
        WrongError: if a kernel does not do what its reference does.
    """
    return [*_kv_write(), *_rms_norm(), *_silu(), *_sampling(), *_noise(), *_rvq()]


def _kv_write() -> list[Row]:
    rows = []
    for batch in BATCHES:
        for form in ("bf16", "int8"):
            # One page for each session, as the attention benchmark makes them; its query is not
            # used.
            cache = attention_call(batch, PAGE_SIZE, PAGE_SIZE, form)
            _, keys, values, *_ = cache.args
            angle = torch.rand((batch, 1, 1, HEAD_DIM // 2), device="cuda")
            shape = (batch, 1, 3 * HEADS, HEAD_DIM)
            call = partial(
                rotate_and_write,
                torch.randn(shape, dtype=torch.bfloat16, device="cuda"),
                # A rotation as a complex number of length one, as rotary embeddings have it (Su et
                # al. 2021, "RoFormer").
                torch.polar(torch.ones_like(angle), angle),
                keys,
                values,
                torch.arange(batch, device="cuda")[:, None] * PAGE_SIZE,
                k_scale=cache.keywords["k_scale"],
                v_scale=cache.keywords["v_scale"],
            )
            check_close("kv_write", call(backend="triton"), call(backend="reference"))
            rows.append(_beside("kv_write", f"{batch} x {3 * HEADS} x {HEAD_DIM} {form}", call))
    return rows


def _rms_norm() -> list[Row]:
    rows = []
    for batch in BATCHES:
        x, residual, weight = _random(batch, DIM), _random(batch, DIM), _random(DIM)
        call = partial(rms_norm, x, weight, 1e-8, residual=residual)
        for got, expected in zip(call(backend="triton"), call(backend="reference"), strict=True):
            check_close("rmsnorm", got, expected)
        rows.append(_beside("rmsnorm", f"{batch} x {DIM}", call))
    return rows


def _silu() -> list[Row]:
    rows = []
    for batch in BATCHES:
        call = partial(gated_silu, _random(batch, 2 * FF_DIM))
        check_close("silu", call(backend="triton"), call(backend="reference"))
        rows.append(_beside("silu", f"{batch} x {FF_DIM}", call))
    return rows


def _sampling() -> list[Row]:
    rows = []
    for vocab, top_k in DRAWS:
        for batch in BATCHES:
            logits = torch.randn((batch, vocab), device="cuda")
            # Dividing probabilities by exponential noise and taking the largest draws from them:
            # the same as the Gumbel trick. With the same noise both sides must draw the same token.
            noise = torch.empty((batch, top_k), device="cuda").exponential_()
            temperature = torch.full((batch,), 0.8, device="cuda")
            ours = partial(sample_tokens, logits, temperature, noise, backend="triton")
            plain = partial(sample, logits, Sampling(0.8, top_k), noise)
            check_same("sampling", ours(), plain())
            rows.append(_row("sampling", f"{batch} x {vocab} top {top_k}", [ours], [plain]))
    return rows


def _noise() -> list[Row]:
    rows = []
    for batch in BATCHES:
        keys = torch.arange(batch, device="cuda")
        call = partial(exponential_noise, keys, keys, NOISE, stream=0)
        check_close("noise", call(backend="triton"), call(backend="reference"))
        rows.append(_beside("noise", f"{batch} x {NOISE[0]} x {NOISE[1]}", call))
    return rows


def _rvq() -> list[Row]:
    """Tables are not in the cache: the weights of a step have passed through it since the last."""
    rows = []
    for levels, entries, dim in QUANTISERS:
        for frames in FRAMES:
            calls = []
            for _ in range(copies_that_fit(4 * levels * entries * dim)):
                tables = torch.randn((levels, entries, dim), device="cuda")
                # Each level codes what the one before left over, which is smaller: residual vector
                # quantisation (Zeghidour et al. 2021, "SoundStream").
                tables *= 0.7 ** torch.arange(levels, device="cuda")[:, None, None]
                x = torch.randn((frames, dim), device="cuda")
                calls.append(partial(nearest_codes, x, tables, half_norms(tables)))
            expected = calls[0](backend="reference")
            # A tie that is decided otherwise changes all levels after it, so the share grows with
            # their number.
            check_same("rvq", calls[0](backend="triton"), expected, _NEAR_TIES * levels)
            ours = [partial(call, backend="triton") for call in calls]
            plain = [partial(call, backend="reference") for call in calls]
            rows.append(_row("rvq", f"{frames} x {dim}, {levels} x {entries}", ours, plain))
    return rows


def _beside(kernel: str, shape: str, call: partial[Any]) -> Row:
    ours, plain = (partial(call, backend=backend) for backend in ("triton", "reference"))
    return _row(kernel, shape, [ours], [plain])


def _row(kernel: str, shape: str, ours: Sequence[Call], plain: Sequence[Call]) -> Row:
    """Time calls; a lone one works on what is in the cache, as the kernel before left it there."""
    times, torch_times = (
        time_in_graph(calls if len(calls) > 1 else [*calls] * _CALLS) for calls in (ours, plain)
    )
    return {
        "kernel": kernel,
        "shape": shape,
        "us": times.median_us,
        "p99_us": times.p99_us,
        "torch_us": torch_times.median_us,
        "x torch": round(torch_times.median_us / times.median_us, 2),
    }


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda")
