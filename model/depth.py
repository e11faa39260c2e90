"""The depth transformer: the codes of one frame, one codebook after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import Layer, Layers, RMSNorm
from model.config import LMConfig
from model.sampling import GREEDY, Sampling, sample


class CodebookVectors(nn.Module):
    """The codec's codebook vectors, frozen: codes that sound alike start with alike inputs.

    Attributes:
        table: float [K, codebook_size, audio_rank], buffer.
    """

    table: Tensor

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        shape = (config.num_codebooks, config.codebook_size, config.audio_rank)
        self.register_buffer("table", torch.zeros(shape))

    def set(self, vectors: Tensor) -> None:
        """Store `vectors: [K, codebook_size, audio_rank]`, scaled for the transformer.

        The semantic vectors and the sum of the acoustic ones (as if independent) each get unit
        mean square; within a group the proportions stay.
        """
        assert vectors.shape == self.table.shape, (vectors.shape, self.table.shape)
        vectors = vectors.detach().float()
        semantic, acoustic = vectors[:1], vectors[1:]
        power = acoustic.square().mean(dim=(1, 2)).sum()
        self.table.copy_(
            torch.cat((semantic * semantic.square().mean().rsqrt(), acoustic * power.rsqrt()))
        )

    def forward(self, codes: Tensor, codebook: int) -> Tensor:
        """Return float [..., audio_rank] of `codes: int64 [...]`; absent (-1) is exact zero."""
        vectors = F.embedding(codes.clamp(min=0), self.table[codebook])
        return vectors * (codes >= 0).unsqueeze(-1)


class Depth(nn.Module):
    """Predict a frame's codes from the backbone's output.

    Codebook k is one position of a small causal transformer. Its input is the backbone's output
    through a projection of its own, plus the text piece (k = 0) or the code before (k > 0). The
    layers are shared by all positions, the projections and heads are not; so no other position
    signal is needed.

    Args:
        config: sizes.
        codebooks: vectors of codes; owned by the caller and not part of this module's weights.
    """

    def __init__(self, config: LMConfig, codebooks: CodebookVectors) -> None:
        super().__init__()
        dim, num_codebooks = config.depth_dim, config.num_codebooks
        self.num_codebooks, self.dim = num_codebooks, dim
        self.codebook_size = config.codebook_size
        self._codebooks = (codebooks,)  # in a tuple, or its table would appear twice in state_dict
        self.in_proj = nn.Linear(config.dim, num_codebooks * dim, bias=False)
        self.text_emb = nn.Embedding(config.text_vocab, dim)
        self.code_proj = nn.ModuleList(
            nn.Linear(config.audio_rank, dim, bias=False) for _ in range(num_codebooks - 1)
        )
        self.layers = Layers(
            Layer(dim, config.depth_heads, config.depth_heads, config.depth_ff, config.norm_eps)
            for _ in range(config.depth_layers)
        )
        self.norm = RMSNorm(dim, config.norm_eps)
        self.heads = nn.ModuleList(
            nn.Linear(dim, config.codebook_size, bias=False) for _ in range(num_codebooks)
        )

    def forward(self, hidden: Tensor, text_token: Tensor, codes: Tensor) -> Tensor:
        """Return logits with the true codes fed (training).

        Args:
            hidden: float [N, dim], backbone output.
            text_token: int64 [N], the text piece that this step outputs.
            codes: int64 [N, K], true codes of the step, -1 where absent.

        Returns:
            float [N, K, codebook_size].
        """
        before = [self.text_emb(text_token)]
        for k, project in enumerate(self.code_proj):
            before.append(project(self._codebooks[0](codes[:, k], k)))
        x = self.in_proj(hidden).unflatten(-1, (self.num_codebooks, self.dim))
        x = x + torch.stack(before, dim=1)
        for layer in self.layers:
            x = layer(x, None, None, is_causal=True)
        x = self.norm(x)
        return torch.stack([head(x[:, k]) for k, head in enumerate(self.heads)], dim=1)

    def generate(
        self,
        hidden: Tensor,
        text_token: Tensor,
        sampling: Sampling = GREEDY,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Choose the codes of a frame.

        Args:
            hidden: float [N, dim], backbone output.
            text_token: int64 [N], the text piece that this step outputs.
            sampling: temperature and top-k.
            noise: float [N, K, num_candidates], Exp(1) draws; needed unless greedy.

        Returns:
            int64 [N, K].
        """
        inputs = self.in_proj(hidden).view(len(hidden), self.num_codebooks, self.dim)
        before: Tensor = self.text_emb(text_token)
        kv = [self._new_cache(layer, hidden) for layer in self.layers]
        codes: list[Tensor] = []
        for k, head in enumerate(self.heads):
            x = inputs[:, k] + before
            for layer, layer_kv in zip(self.layers, kv, strict=True):
                x = _step(layer, x, layer_kv, k)
            logits = head(self.norm(x))
            code = sample(logits, sampling, None if noise is None else noise[:, k])
            codes.append(code)
            if k + 1 < self.num_codebooks:
                before = self.code_proj[k](self._codebooks[0].table[k][code])
        return torch.stack(codes, dim=1)

    def _new_cache(self, layer: Layer, like: Tensor) -> Tensor:
        """Allocate one layer's keys and values of a frame, [2, N, H, K, head_dim]."""
        heads, head_dim = layer.attention.num_heads, layer.attention.head_dim
        return like.new_empty((2, len(like), heads, self.num_codebooks, head_dim))


def _step(layer: Layer, x: Tensor, kv: Tensor, k: int) -> Tensor:
    """Run position k of one layer: `x: [N, D]`, `kv: [2, N, H, K, head_dim]` written at k."""
    attention = layer.attention
    heads = attention.num_heads
    qkv = attention.qkv(layer.norm1(x)).to(kv.dtype).view(len(x), 3, heads, attention.head_dim)
    kv[:, :, :, k] = qkv[:, 1:].transpose(0, 1)
    if k == 0:  # the only key there is gets all the weight
        y = qkv[:, 2]
    else:
        keys, values = kv[:, :, :, : k + 1].unbind()
        y = F.scaled_dot_product_attention(qkv[:, 0].unsqueeze(2), keys, values)
    x = x + attention.out(y.reshape(len(x), -1))
    out: Tensor = x + layer.mlp(layer.norm2(x))
    return out
