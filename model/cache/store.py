"""The pages of keys and values of some layers, and how one call reads and writes them.

Schema of a `Store`, all preallocated:

    kv      [layers, 2, kv_heads, pages * page_steps, head_dim]    keys (0) and values (1)
    scale   [layers, 2, kv_heads, pages * page_steps]              with 8 bits only

Heads come before columns, so that pages that follow each other are one piece of every head: where
a slot's pages do, attention reads them in place. One page more than can be handed out takes what
must not be remembered; nobody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import op
from kernels.kv_write import rotate_and_write
from model.cache.rotary import rotate_
from model.errors import ConfigError
from model.precision import Precision

# A worked example: 2 pages of 4 columns and the waste page. Column 5 is entry 1 of page 1; columns
# 8-11 are the waste page, and `waste` is 8. A page is a slice of 4 columns of every head of every
# layer: so pages 0 and 1 together are 8 neighbouring columns of each head, which is what makes a
# view possible.
#
# "views" reads pages where they lie; the others are those of `kernels.attention.op`.
Reading = Literal["views", op.Backend]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Say how keys and values are kept.

    Attributes:
        precision: "full" as the model computes; "int8" in eight bits, one scale for each step and
            head: half the memory of bf16, a quarter of fp32, and slightly different outputs.
        page_steps: steps of a page. Smaller pages fit a call more closely, larger ones are fewer;
            "triton" reads those of a multiple of 32 with the least effort.
        num_pages: pages for all slots together; None for as many as they can ever take.
        reading: how attention reads pages. "views" suits a CPU, where a slot's pages mostly follow
            each other; "reference" is plain PyTorch, the meaning; "triton" is for a CUDA device.
    """

    precision: Precision = "full"
    page_steps: int = 16
    num_pages: int | None = None
    reading: Reading = "views"

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the field.
        """
        if self.page_steps < 1:
            raise ConfigError(f"page_steps: must be at least 1, got {self.page_steps}")
        if self.num_pages is not None and self.num_pages < 1:
            raise ConfigError(f"num_pages: must be at least 1, got {self.num_pages}")
        for name, kinds in (("precision", Precision), ("reading", Reading)):
            if getattr(self, name) not in get_args(kinds):
                known = ", ".join(get_args(kinds))
                raise ConfigError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, eq=False)
class PageContents:
    """Hold what is in some pages of a store, apart from it.

    Attributes:
        kv: [layers, 2, kv_heads, pages, page_steps, head_dim].
        scale: float16 without the last axis, None in full precision.
    """

    kv: Tensor
    scale: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        return self.kv.nbytes + (0 if self.scale is None else self.scale.nbytes)


class Store:
    """Hold the keys and values of some layers. Schema at the top of this file.

    Args:
        num_layers: layers.
        kv_heads: key and value heads.
        head_dim: their width.
        num_pages: pages that can be handed out.
        config: precision and size of a page.
        dtype: that the model computes in.
        device: of everything.

    Attributes:
        kv, scale: see the schema.
        layers: of every layer its part of `kv` and `scale`.
        dtype: that the model computes in.
        page_steps: columns of a page.
        waste: the column that is written and never read.
    """

    __slots__ = ("dtype", "kv", "layers", "page_steps", "scale", "waste")

    def __init__(
        self,
        num_layers: int,
        kv_heads: int,
        head_dim: int,
        *,
        num_pages: int,
        config: MemoryConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        is_full = config.precision == "full"
        self.dtype, self.page_steps = dtype, config.page_steps
        self.waste = num_pages * config.page_steps
        shape = (num_layers, 2, kv_heads, self.waste + config.page_steps)
        kind = dtype if is_full else torch.int8
        self.kv = torch.zeros((*shape, head_dim), dtype=kind, device=device)
        self.scale = None if is_full else torch.zeros(shape, dtype=torch.float16, device=device)
        scales = [None] * num_layers if self.scale is None else self.scale.unbind()
        self.layers = list(zip(self.kv.unbind(), scales, strict=True))

    @property
    def num_bytes(self) -> int:
        """Bytes that are allocated, however many are in use."""
        return self.kv.nbytes + (0 if self.scale is None else self.scale.nbytes)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page of all layers."""
        return self.num_bytes // (self.waste // self.page_steps + 1)

    def fill(self, page: int, source: int | None) -> None:
        """Begin a page with a copy of page `source`, or wiped."""
        # Wiped, not just free: a mask hides columns by adding -inf, and NaN + -inf is NaN.
        for tensor in (self.kv, self.scale):
            if tensor is None:
                continue
            pages = torch.unflatten(tensor, 3, (-1, self.page_steps))
            if source is None:
                pages[:, :, :, page].zero_()
            else:
                pages[:, :, :, page].copy_(pages[:, :, :, source])

    def read(self, pages: Sequence[int]) -> PageContents:
        """Copy pages to host memory."""
        index = torch.tensor(pages, dtype=torch.int64, device=self.kv.device)
        kv, scale = (
            None
            if t is None
            else torch.unflatten(t, 3, (-1, self.page_steps)).index_select(3, index).to("cpu")
            for t in (self.kv, self.scale)
        )
        assert kv is not None
        return PageContents(kv, scale)

    def write(self, pages: Sequence[int], contents: PageContents) -> None:
        """Put back what `read` has taken, into any equally many pages."""
        index = torch.tensor(pages, dtype=torch.int64, device=self.kv.device)
        for tensor, new in ((self.kv, contents.kv), (self.scale, contents.scale)):
            if tensor is not None:
                assert new is not None
                torch.unflatten(tensor, 3, (-1, self.page_steps)).index_copy_(
                    3, index, new.to(tensor)
                )


class LayerMemory(Protocol):
    """Let one layer write the keys and values of new steps, and attend to what they see."""

    @property
    def dtype(self) -> torch.dtype:
        """Return what the model computes in."""
        ...

    def enter(self, qkv: Tensor, rope: Tensor) -> Tensor:
        """Rotate queries and keys, and store keys and values.

        Args:
            qkv: [n, T, heads + 2 * kv_heads, head_dim] of `dtype`: queries, keys, values. May be
                written over.
            rope: complex64 [n, T, 1, head_dim / 2].

        Returns:
            The rotated queries, [n, T, heads, head_dim].
        """
        ...

    def attend(self, q: Tensor) -> Tensor:
        """Map rotated queries [n, T, heads, head_dim] to what they find, of the same shape."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PagedLayer:
    """Read one layer's pages with `kernels.attention.op`.

    Every tensor but `kv` and `scale` belongs to the call; for a captured graph they stay in place
    and are written anew for each call.

    Attributes:
        dtype: that the model computes in.
        kv: [2, kv_heads, pages * page_steps, head_dim].
        scale: float16 [2, kv_heads, pages * page_steps] or None.
        page_steps: columns of a page.
        columns: int32 [n * T], where the steps are written to.
        table: int32 [n, pages_per_slot].
        spans: int32 [n, T, ranges, 2].
        backend: of the attention.
    """

    dtype: torch.dtype
    kv: Tensor
    scale: Tensor | None
    page_steps: int
    columns: Tensor
    table: Tensor
    spans: Tensor
    backend: op.Backend

    def enter(self, qkv: Tensor, rope: Tensor) -> Tensor:
        """Rotate and store; see `LayerMemory.enter`."""
        keys, values, k_scale, v_scale = self._pages()
        return rotate_and_write(
            qkv,
            rope,
            keys,
            values,
            self.columns.view(qkv.shape[:2]),
            k_scale=k_scale,
            v_scale=v_scale,
            backend=self.backend,
        )

    def attend(self, q: Tensor) -> Tensor:
        """Attend; see `LayerMemory.attend`."""
        keys, values, k_scale, v_scale = self._pages()
        return op.paged_attention(
            q,
            keys,
            values,
            self.table,
            self.spans,
            scale=q.shape[-1] ** -0.5,
            k_scale=k_scale,
            v_scale=v_scale,
            backend=self.backend,
        )

    def _pages(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return keys and values [pages, kv_heads, page_steps, head_dim], and their scales."""
        keys, values = torch.unflatten(self.kv, 2, (-1, self.page_steps)).transpose(1, 2)
        if self.scale is None:
            return keys, values, None, None
        k_scale, v_scale = torch.unflatten(self.scale, 2, (-1, self.page_steps)).transpose(1, 2)
        return keys, values, k_scale, v_scale


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Say where neighbouring rows of a call lie in a store, for one attention over all of them.

    Attributes:
        rows: of the call.
        mask: float [rows, 1, T, columns], 0 where visible and -inf elsewhere; None if these rows
            see nothing at all.
        start: column in the store of the first row's first column, if every row is one piece.
        stride: columns from one row to the next.
        index: int64 [rows * columns], where the columns lie if they are in pieces.
    """

    rows: slice
    mask: Tensor | None
    start: int = 0
    stride: int = 0
    index: Tensor | None = None

    def views(self, store: Store) -> list[tuple[Tensor, ...]]:
        """Return for every layer what it reads: kv [2, rows, kv_heads, columns, head_dim], scale.

        Views of the store, written through it by the call itself; nothing if it is in pieces.
        """
        if self.mask is None or self.index is not None:
            return [()] * len(store.layers)
        num_rows, num_columns = self.mask.shape[0], self.mask.shape[3]
        found = []
        for tensor in (store.kv, store.scale):
            if tensor is None:
                continue
            # Row i begins `stride` columns after row i - 1, in the same memory: a view of several
            # rows without a copy. Rows may even overlap; they are only read.
            layers, two, heads, column, *rest = tensor.stride()
            view = tensor.as_strided(
                (len(tensor), 2, num_rows, tensor.shape[2], num_columns, *tensor.shape[4:]),
                (layers, two, self.stride * column, heads, column, *rest),
                self.start * column,
            )
            found.append(view.unbind())
        return list(zip(*found, strict=True))

    def gather(self, tensor: Tensor) -> Tensor:
        """Copy out of one layer: [2, kv_heads, all columns, ...] to [2, rows, kv_heads, ...]."""
        assert self.index is not None
        assert self.mask is not None
        pieces = tensor.index_select(2, self.index)
        return torch.unflatten(pieces, 2, (self.mask.shape[0], -1)).transpose(1, 2)


@dataclass(slots=True, eq=False)  # frozen ones take several times as long to make
class ViewedLayer:
    """Read one layer's pages where they lie, run by run.

    Attributes:
        dtype: that the model computes in.
        kv: [2, kv_heads, pages * page_steps, head_dim].
        scale: float16 [2, kv_heads, pages * page_steps] or None.
        columns: int64 [n * T], where the steps are written to.
        runs: with what each reads, nothing if it is in pieces.
    """

    dtype: torch.dtype
    kv: Tensor
    scale: Tensor | None
    columns: Tensor
    runs: Sequence[tuple[Run, tuple[Tensor, ...]]]

    def enter(self, qkv: Tensor, rope: Tensor) -> Tensor:
        """Rotate and store; see `LayerMemory.enter`."""
        n, steps, all_heads, head_dim = qkv.shape
        kv_heads = self.kv.shape[1]
        heads = all_heads - 2 * kv_heads
        rotate_(qkv[:, :, : heads + kv_heads], rope)
        self._write(qkv[:, :, heads:].view(n, steps, 2, kv_heads, head_dim))
        return qkv[:, :, :heads]

    def _write(self, new: Tensor) -> None:
        """Store `new: [n, T, 2, kv_heads, head_dim]`, rotated."""
        new = new.permute(2, 3, 0, 1, 4).flatten(2, 3)  # [2, H, n * T, D]
        if self.scale is not None:
            new, scale = op.quantize_kv(new)
            self.scale.index_copy_(2, self.columns, scale)
        self.kv.index_copy_(2, self.columns, new)

    def attend(self, q: Tensor) -> Tensor:
        """Attend; see `LayerMemory.attend`."""
        queries = q.transpose(1, 2)  # [n, heads, T, head_dim]
        parts = [self._attend(run, found, queries[run.rows]) for run, found in self.runs]
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y.transpose(1, 2)

    def _attend(self, run: Run, found: tuple[Tensor, ...], q: Tensor) -> Tensor:
        """Attend in one run, [rows, heads, T, head_dim] to the same."""
        if run.mask is None:
            return torch.zeros_like(q)
        if run.index is not None:
            found = tuple(run.gather(t) for t in (self.kv, self.scale) if t is not None)
        kv = found[0]  # [2, rows, kv_heads, columns, head_dim]
        if self.scale is not None:
            kv = kv.to(self.dtype) * found[1].to(self.dtype)[..., None]
        return F.scaled_dot_product_attention(
            q, kv[0], kv[1], attn_mask=run.mask, enable_gqa=kv.shape[2] != q.shape[1]
        )
