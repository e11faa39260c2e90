"""The depth transformer: the codes of one frame, one codebook after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LMConfig
from model.family import Family
from model.sampling import GREEDY, Sampling
from model.transformer.attention import Attention, Layer, Layers, RMSNorm
from model.transformer.embedding import CodeTables, TextTable, TwoTextTable
from model.transformer.sampling import guide, sample

UNDECIDED = -2


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
        # Powers of independent vectors add up. With seven codebooks of power 4, 1, 1, 0.5, ... the
        # sum has the total of these; dividing by its root gives the sum unit power and leaves
        # coarse codes louder than fine ones.
        power = acoustic.square().mean(dim=(1, 2)).sum()
        self.table.copy_(
            torch.cat((semantic * semantic.square().mean().rsqrt(), acoustic * power.rsqrt()))
        )

    def forward(self, codes: Tensor, codebook: int) -> Tensor:
        """Return float [..., audio_rank] of `codes: int64 [...]`; absent (-1) is exact zero."""
        vectors = F.embedding(codes.clamp(min=0), self.table[codebook])
        return vectors * (codes >= 0).unsqueeze(-1)


# A worked example with four codebooks. The backbone's output of one step is h, and in_k is a
# projection of it for position k:
#
#     position   input                       gives
#     0          in_0(h) + text piece        code 0, the semantic one
#     1          in_1(h) + vector of code 0  code 1
#     2          in_2(h) + vector of code 1  code 2
#     3          in_3(h) + vector of code 2  code 3
#
# Position k also attends to the positions before it. So a frame costs one step of the large
# backbone and four of this small one, and still each code knows those before it.
# Source: Lee et al. 2022, "Autoregressive image generation using residual quantization"; Défossez
# et al. 2024, "Moshi", section 3.4.1.
class Depth(nn.Module):
    """Predict a frame's codes from the backbone's output.

    Codebook k is one position of a small causal transformer. Its input is the backbone's output
    through a projection of its own, plus the text piece (k = 0) or the code before (k > 0). There
    is no other position signal. The starter's layers are shared by all positions; the Kyutai
    family has several sets of weights, and a schedule says which set makes which codebook.

    Args:
        config: sizes.
        codebooks: vectors of codes; owned by the caller and not part of this module's weights.

    Attributes:
        layers: of every set, one set after the other.
    """

    def __init__(self, config: LMConfig, codebooks: CodebookVectors | CodeTables) -> None:
        super().__init__()
        dim, num_codebooks, family = config.depth_dim, config.num_codebooks, config.family
        self.num_codebooks, self.dim = num_codebooks, dim
        self.codebook_size = config.codebook_size
        self._codebooks = (codebooks,)  # in a tuple, or its table would appear twice in state_dict
        # Which set of layers a codebook has, and which projection of the backbone's output.
        self._sets = family.depth_sets if family else (0,) * num_codebooks
        self._inputs = family.depth_sets if family else tuple(range(num_codebooks))
        self.num_sets, num_inputs = max(self._sets) + 1, max(self._inputs) + 1
        self.in_proj = nn.Linear(config.dim, num_inputs * dim, bias=False)
        self.text_emb = _text_embedding(config)
        self.code_proj = nn.ModuleList(
            _code_projection(config, family) for _ in range(num_codebooks - 1)
        )
        self.num_layers = config.depth_layers
        self.layers = Layers(
            Layer(dim, config.depth_heads, config.depth_heads, config.depth_ff, config.norm_eps)
            for _ in range(self.num_sets * config.depth_layers)
        )
        self.norm = nn.Identity() if family else RMSNorm(dim, config.norm_eps)
        self.heads = nn.ModuleList(_head(config, family) for _ in range(num_codebooks))

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
        before.extend(self._embed(codes[:, k], k) for k in range(self.num_codebooks - 1))
        x = self._project(hidden)[:, self._inputs] + torch.stack(before, dim=1)  # [N, K, depth_dim]
        if self.num_sets > 1:
            return self._forward_in_steps(x)
        for layer in self.layers:
            x = layer(x, None, None, is_causal=True)
        x = self.norm(x)
        return torch.stack([head(x[:, k]) for k, head in enumerate(self.heads)], dim=1)

    def _forward_in_steps(self, x: Tensor) -> Tensor:
        kv = self._new_caches(x)
        return torch.stack([self._step(x[:, k], kv, k) for k in range(self.num_codebooks)], dim=1)

    def generate(
        self,
        hidden: Tensor,
        text_token: Tensor,
        sampling: Sampling = GREEDY,
        noise: Tensor | None = None,
        *,
        forced: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Choose the codes of a frame.

        Args:
            hidden: float [N, dim], backbone output.
            text_token: int64 [N], the text piece that this step outputs.
            sampling: temperature and top-k.
            noise: float [N, K, num_candidates], Exp(1) draws; needed unless greedy.
            forced: int64 [N, K], codes that are already decided, -2 where there is a choice.
            guidance: how far to go from the second half of the rows of `hidden` towards the first;
                1 for no such halves. Elsewhere N counts the first half only.

        Returns:
            int64 [N, K].
        """
        inputs = self._project(hidden)
        before: Tensor = self.text_emb(text_token)
        kv = self._new_caches(hidden)
        codes: list[Tensor] = []
        for k in range(self.num_codebooks):
            if guidance != 1.0:
                before = before.repeat(2, 1)
            x = inputs[:, self._inputs[k]] + before
            logits = guide(self._step(x, kv, k), guidance)
            code = sample(logits, sampling, None if noise is None else noise[:, k])
            if forced is not None:
                code = torch.where(forced[:, k] == UNDECIDED, code, forced[:, k])
            codes.append(code)
            if k + 1 < self.num_codebooks:
                before = self._embed(code, k)
        return torch.stack(codes, dim=1)

    def _project(self, hidden: Tensor) -> Tensor:
        x: Tensor = self.in_proj(hidden)
        return torch.unflatten(x, -1, (-1, self.dim))

    def _embed(self, code: Tensor, k: int) -> Tensor:
        """Return what the codebook after k hears of the code at k."""
        x: Tensor = self.code_proj[k](self._codebooks[0](code, k))
        return x

    def _step(self, x: Tensor, kv: list[Tensor], k: int) -> Tensor:
        """Return the logits of codebook k; `kv` is written at k."""
        first = self._sets[k] * self.num_layers
        layers = list(self.layers)[first : first + self.num_layers]
        for layer, layer_kv in zip(layers, kv, strict=True):
            x = _run_layer(layer, x, layer_kv, k)
        logits: Tensor = self.heads[k](self.norm(x))
        return logits

    def _new_caches(self, like: Tensor) -> list[Tensor]:
        """Allocate each layer's keys and values of a frame, [2, N, H, K, head_dim]."""
        attention = self.layers[0].attention
        assert isinstance(attention, Attention)
        shape = (2, len(like), attention.num_heads, self.num_codebooks, attention.head_dim)
        return [like.new_empty(shape) for _ in range(self.num_layers)]


def _text_embedding(config: LMConfig) -> nn.Module:
    family, dim = config.family, config.depth_dim
    if family is None:
        return nn.Embedding(config.text_vocab, dim)
    table = TwoTextTable if family.has_two_texts else TextTable
    return table(config.text_vocab + 1, dim, family.depth_rank)


def _code_projection(config: LMConfig, family: Family | None) -> nn.Module:
    rank = family.depth_rank if family else config.audio_rank
    return nn.Linear(rank, config.depth_dim, bias=False) if rank else nn.Identity()


def _head(config: LMConfig, family: Family | None) -> nn.Module:
    head = nn.Linear(config.depth_dim, config.codebook_size, bias=False)
    if family and family.has_depth_norms:
        return nn.Sequential(nn.LayerNorm(config.depth_dim), head)
    return head


def _run_layer(layer: Layer, x: Tensor, kv: Tensor, k: int) -> Tensor:
    """Run position k of one layer: `x: [N, D]`, `kv: [2, N, H, K, head_dim]` written at k."""
    attention = layer.attention
    heads = attention.num_heads
    qkv = attention.qkv(layer.norm1(x)).to(kv.dtype).view(len(x), 3, heads, attention.head_dim)
    kv[:, :, :, k] = qkv[:, 1:].transpose(0, 1)  # [2, N, H, head_dim] of position k
    if k == 0:  # the only key there is gets all the weight
        y = qkv[:, 2]
    else:
        keys, values = kv[:, :, :, : k + 1].unbind()
        y = F.scaled_dot_product_attention(qkv[:, 0].unsqueeze(2), keys, values)
    y, x = layer.norm2.add(attention.out(y.reshape(len(x), -1)), x)
    out: Tensor = x + layer.mlp(y)
    return out
