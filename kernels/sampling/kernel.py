"""Sampling in Triton: sorted keys that carry their token, then an exponential race.

A key is a logit in the upper half of an int64, as an integer of the same order, and in the lower
half the token, its bits turned over: so no two keys are equal, and of equal logits the lower token
is the greater key. Sorting keys settles order, ties and which noise a candidate meets in one go.

A vocabulary of more than one block takes two launches: each block puts forward its best, and the
draw merges those.

The candidates are the tokens of the greatest logits; with Exp(1) noise E the winner is

    argmax over candidates r of softmax(logits / temperature)[r] / E[r]

which is candidate r with exactly its probability.

Source: Maddison et al. 2014, "A* sampling", section 2 (the exponential race, as Gumbels); Herf
2001, "Radix tricks" (floats as integers of the same order).
"""
# Triton ships without types, and the arguments of its kernels are pointers and numbers:
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# ruff: noqa: ANN001, ANN202, PLR0913, PLR0917

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from kernels.arithmetic import ceil_div

# A worked example of keys. As integers, the bits of positive floats are in the order of the floats;
# those of negative ones are in the opposite order, so all but their sign are turned over:
#
#     logit    bits          as an integer of the same order
#      1.0     0x3F800000     0x3F800000 =  1,065,353,216
#      0.5     0x3F000000     0x3F000000 =  1,056,964,608
#     -0.5     0xBF000000     0xC0FFFFFF = -1,056,964,609
#     -1.0     0xBF800000     0xC07FFFFF = -1,065,353,217
#
# The lower half of a key is 0x7FFFFFFF - token. So the keys of logits [0.5, 1.0, 1.0] sort as
# tokens 1, 2, 0: the greatest logit first, and of equal ones the lower token.
#
# A worked example of the race. Two candidates with probabilities 0.8 and 0.2 meet the noise 2.0 and
# 0.3: 0.8 / 2.0 = 0.4 and 0.2 / 0.3 = 0.67, so the second wins. The softmax's sum divides both
# alike and is left out. Temperature 0 is no division: rank 0 wins whatever the noise.

BLOCK = 2048  # tokens that one program sorts
MAX_MERGED = 8192  # keys that one program merges: 64 KB of registers

_TOKEN_BITS = tl.constexpr(0x7FFFFFFF)
_NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def _keys(logits_ptr, mask_ptr, start, vocab, HAS_MASK: tl.constexpr, BLOCK: tl.constexpr):
    """Return int64 keys [BLOCK] of the tokens from `start` on."""
    token = start + tl.arange(0, BLOCK)  # [BLOCK]
    inside = token < vocab  # [BLOCK]
    logit = tl.load(logits_ptr + token, inside, 0.0).to(tl.float32)  # [BLOCK]
    if HAS_MASK:
        allowed = tl.load(mask_ptr + token, inside, 0)  # [BLOCK]
        logit = tl.where(allowed != 0, logit, float("-inf"))
    logit = tl.where(logit == 0.0, 0.0, logit)  # a negative zero is no less than zero
    bits = logit.to(tl.int32, bitcast=True)  # [BLOCK]
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # [BLOCK], of the order of the logits
    key = (order.to(tl.int64) << 32) | (token ^ _TOKEN_BITS).to(tl.int64)  # [BLOCK]
    return tl.where(inside, key, _NO_KEY)


@triton.jit
def _token(key):
    """Return the token that a key carries, int64 of the key's shape."""
    return (key & _TOKEN_BITS) ^ _TOKEN_BITS


@triton.jit
def _logit(key):
    """Return the logit that a key carries, float32 of the key's shape."""
    order = (key >> 32).to(tl.int32)
    bits = order ^ ((order >> 31) & 0x7FFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _best(keys, NUM_KEYS: tl.constexpr, NUM_BEST: tl.constexpr):
    """Return the greatest keys in falling order."""
    return tl.reshape(tl.topk(tl.reshape(keys, [1, NUM_KEYS]), NUM_BEST), [NUM_BEST])


@triton.jit
def _put_forward(
    logits_ptr,
    mask_ptr,
    keys_ptr,
    logits_row,
    mask_row,
    vocab,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BEST: tl.constexpr,
):
    """Store the greatest keys of one block of a row's tokens, in falling order."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    keys = _keys(
        logits_ptr + row * logits_row,
        mask_ptr + row * mask_row,
        block * BLOCK,
        vocab,
        HAS_MASK,
        BLOCK,
    )
    at = keys_ptr + (row * tl.num_programs(1) + block) * NUM_BEST
    if NUM_BEST == 1:
        tl.store(at, tl.max(keys, 0))
    else:
        tl.store(at + tl.arange(0, NUM_BEST), _best(keys, BLOCK, NUM_BEST))


@triton.jit
def _draw(
    logits_ptr,
    mask_ptr,
    keys_ptr,
    noise_ptr,
    temperature,
    token_ptr,
    logits_row,
    mask_row,
    noise_row,
    vocab,
    num_candidates,
    num_keys,
    HAS_MASK: tl.constexpr,
    HAS_BLOCKS: tl.constexpr,
    IS_GREEDY: tl.constexpr,
    IS_PER_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BEST: tl.constexpr,
):
    """Choose one row's token, from its logits or from what its blocks put forward."""
    row = tl.program_id(0).to(tl.int64)
    if HAS_BLOCKS:
        i = tl.arange(0, BLOCK)  # [BLOCK]
        keys = tl.load(keys_ptr + row * num_keys + i, i < num_keys, _NO_KEY)  # [BLOCK]
    else:
        keys = _keys(
            logits_ptr + row * logits_row, mask_ptr + row * mask_row, 0, vocab, HAS_MASK, BLOCK
        )
    if IS_GREEDY:
        tl.store(token_ptr + row, _token(tl.max(keys, 0)))
    else:
        best = _best(keys, BLOCK, NUM_BEST)  # [NUM_BEST]
        rank = tl.arange(0, NUM_BEST)  # [NUM_BEST]
        is_candidate = rank < num_candidates  # [NUM_BEST]
        noise = tl.load(noise_ptr + row * noise_row + rank, is_candidate, 1.0)  # [NUM_BEST]
        divisor = tl.load(temperature + row) if IS_PER_ROW else temperature
        # A row that is greedy among others that are not: its division must not be by zero.
        is_greedy = divisor == 0.0
        scaled = tl.div_rn(_logit(best), tl.where(is_greedy, 1.0, divisor) + tl.zeros_like(noise))
        scaled = tl.where(is_candidate, scaled, float("-inf"))  # [NUM_BEST]
        # Softmax without its sum, which all candidates share.
        race = tl.div_rn(tl.exp(scaled - tl.max(scaled, 0)), noise)  # [NUM_BEST]
        race = tl.where(is_candidate, race, -1.0)  # [NUM_BEST]
        winner = tl.where(is_greedy, 0, tl.argmax(race, 0, tie_break_left=True))
        tl.store(token_ptr + row, tl.sum(tl.where(rank == winner, _token(best), 0), 0))


def sample_tokens(
    logits: Tensor,
    temperature: float | Tensor,
    noise: Tensor | None,
    mask: Tensor | None,
    block: int = BLOCK,
) -> Tensor:
    """Launch; arguments as `kernels.sampling.op.sample_tokens`, and tokens that a program sorts."""
    vocab = logits.shape[-1]
    rows = _rows(logits)
    masks = rows if mask is None else _rows(mask).view(torch.uint8)
    draws = rows if noise is None else _rows(noise)
    num_candidates = 1 if noise is None else noise.shape[-1]
    num_best = 1 if noise is None else max(triton.next_power_of_2(num_candidates), 2)
    block = max(min(block, triton.next_power_of_2(vocab)), num_best)
    num_blocks = ceil_div(vocab, block)
    token = logits.new_empty(logits.shape[:-1], dtype=torch.int64)
    keys = token  # not touched by a single block
    if num_blocks > 1:
        keys = logits.new_empty((len(rows), num_blocks, num_best), dtype=torch.int64)
        _put_forward[(len(rows), num_blocks)](
            rows,
            masks,
            keys,
            rows.stride(0),
            masks.stride(0),
            vocab,
            HAS_MASK=mask is not None,
            BLOCK=block,
            NUM_BEST=num_best,
            num_warps=_num_warps(block),
        )
    merged = triton.next_power_of_2(num_blocks * num_best) if num_blocks > 1 else block
    _draw[(len(rows),)](
        rows,
        masks,
        keys,
        draws,
        temperature.reshape(-1) if isinstance(temperature, Tensor) else float(temperature),
        token,
        rows.stride(0),
        masks.stride(0),
        draws.stride(0),
        vocab,
        num_candidates,
        num_blocks * num_best,
        HAS_MASK=mask is not None,
        HAS_BLOCKS=num_blocks > 1,
        IS_GREEDY=noise is None,
        IS_PER_ROW=isinstance(temperature, Tensor),
        BLOCK=merged,
        NUM_BEST=num_best,
        num_warps=_num_warps(merged),
    )
    return token


def num_merged(vocab: int, num_candidates: int) -> int:
    """Return how many keys the draw would merge, at most `MAX_MERGED`."""
    num_best = triton.next_power_of_2(num_candidates)
    block = max(BLOCK, num_best)
    return triton.next_power_of_2(ceil_div(vocab, block) * num_best)  # type: ignore[no-any-return]


def _num_warps(num_keys: int) -> int:
    return min(max(num_keys // 128, 1), 16)


def _rows(x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
