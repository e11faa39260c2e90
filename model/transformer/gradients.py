"""Operations of training in bf16 on a CPU, with their ways back written by hand.

What autograd would derive from the single steps keeps more and goes over it more often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from model.cache.rotary import rotate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.autograd.function import FunctionCtx

_BLOCK = 128  # queries that are done together


def hiding(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to scores: 0 where `mask` (bool) is True, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, float("-inf")
    )


def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """Attend as `scaled_dot_product_attention` does, where nothing sees what is later.

    Args:
        q: [B, H, T, D].
        k: likewise.
        v: likewise.
        hidden: [B, 1, T, T], from `hiding`; -inf above the diagonal.

    Returns:
        [B, H, T, D].
    """
    return cast("Tensor", _Attend.apply(q, k, v, hidden))  # type: ignore[no-untyped-call]


def turn(x: Tensor, rope: Tensor) -> Tensor:
    """Do as `model.cache.rotary.rotate`; the gradient is turned back."""
    return cast("Tensor", _Rotate.apply(x, rope))  # type: ignore[no-untyped-call]


def normalise(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Do as `rms_norm` over the last axis, in fp32.

    Args:
        x: float32 [..., D].
        weight: float32 [D].
        eps: added to the mean square.
    """
    return cast("Tensor", _Normalise.apply(x, weight, eps))  # type: ignore[no-untyped-call]


class _Attend(Function):
    # Queries are done in blocks, each with the keys up to its own end: what lies above the diagonal
    # is hidden, and nearly half of it is never computed.
    # A worked example of 300 steps: queries 0 to 127 with 128 keys, 128 to 255 with 256, 256 to 299
    # with 300. That is 62,000 scores instead of 90,000.
    # The way back needs the weights alone: with w = softmax(s), ds = w * (dw - sum(w * dw)).
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        q, k, v = ((x.reshape(batch * heads, length, width)) for x in (q * width**-0.5, k, v))
        weights, made = [], []
        for start, end in _blocks(length):
            scores = torch.bmm(q[:, start:end], k[:, :end].mT)
            scores = scores.view(batch, heads, end - start, end)
            scores += hidden[:, :, start:end, :end]
            weights.append(scores.softmax(-1).flatten(0, 1))
            made.append(torch.bmm(weights[-1], v[:, :end]))
        ctx.save_for_backward(q, k, v, *weights)
        return torch.cat(made, 1).view(batch, heads, length, width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        shape = grads[0].shape
        grad = grads[0].flatten(0, 1)
        grad_k, grad_v = (torch.zeros_like(x) for x in (k, v))
        grad_q = []
        for (start, end), weight in zip(_blocks(q.shape[1]), weights, strict=True):
            some = grad[:, start:end]
            grad_v[:, :end].baddbmm_(weight.mT, some)
            grad_weight = torch.bmm(some, v[:, :end].mT)
            grad_scores = torch.ops.aten._softmax_backward_data(  # noqa: SLF001 - what autograd calls
                grad_weight, weight, -1, weight.dtype
            )
            grad_q.append(torch.bmm(grad_scores, k[:, :end]))
            grad_k[:, :end].baddbmm_(grad_scores.mT, q[:, start:end])
        whole = torch.cat(grad_q, 1) * q.shape[2] ** -0.5
        return *(x.view(shape) for x in (whole, grad_k, grad_v)), None


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, _BLOCK):
        yield start, min(start + _BLOCK, length)


class _Rotate(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, rope: Tensor) -> Tensor:
        ctx.save_for_backward(rope)
        return rotate(x, rope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (rope,) = ctx.saved_tensors
        return rotate(grads[0], rope.conj().resolve_conj()), None


class _Normalise(Function):
    # With n = x / rms, y = n * w: dn = dy * w, dx = (dn - n * mean(n * dn)) / rms.
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normal: Tensor = x * scale
        ctx.save_for_backward(normal, weight, scale)
        return normal * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normal, weight, scale = ctx.saved_tensors
        product = grads[0] * normal
        mean = (product @ weight).div_(normal.shape[-1]).unsqueeze(-1)
        grad = torch.addcmul(grads[0] * weight, normal, mean, value=-1).mul_(scale)
        return grad, product.flatten(0, -2).sum(0), None
