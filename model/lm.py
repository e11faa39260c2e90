"""The unified transformer: text, user audio and assistant audio summed step by step.

Modules hold weights; a conversation's memory is an explicit `LMState`. `forward` runs whole
sequences for training, `step` continues slots of a state; both compute the same function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.attention import Layer, Layers, RMSNorm, rope_frequencies, rope_table, visibility
from model.config import LMConfig
from model.depth import CodebookVectors, Depth
from model.state import Kind, LMState, Steps


class AudioEmbedding(nn.Module):
    """Embed one audio stream's codes.

    The acoustic vectors are summed, the semantic one stays apart; one linear maps both, and the
    semantic code also gets a learned vector of its own. Absent codes contribute exact zero.

    Args:
        config: sizes.
        codebooks: vectors of codes; owned by the caller and not part of this module's weights.
    """

    def __init__(self, config: LMConfig, codebooks: CodebookVectors) -> None:
        super().__init__()
        self._codebooks = (codebooks,)  # in a tuple, or its table would appear twice in state_dict
        self.semantic_proj = nn.Linear(config.audio_rank, config.dim, bias=False)
        self.acoustic_proj = nn.Linear(config.audio_rank, config.dim, bias=False)
        self.semantic_emb = nn.Embedding(config.codebook_size, config.dim)

    def forward(self, codes: Tensor) -> Tensor:
        """Return float [B, T, dim] of `codes: int64 [B, T, K]`, -1 where absent."""
        table = self._codebooks[0].table
        num_codebooks, size, rank = table.shape
        present = codes >= 0
        offset = torch.arange(num_codebooks, device=codes.device) * size
        vectors = table.view(-1, rank)[codes.clamp(min=0) + offset] * present.unsqueeze(-1)
        semantic = self.semantic_emb(codes[..., 0].clamp(min=0)) * present[..., :1]
        x: Tensor = (
            semantic
            + self.semantic_proj(vectors[..., 0, :])
            + self.acoustic_proj(vectors[..., 1:, :].sum(dim=-2))
        )
        return x


class LM(nn.Module):
    """The backbone with its text head, and the depth transformer.

    Args:
        config: sizes, streams, windows.
    """

    rope_frequencies: Tensor

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.codebooks = CodebookVectors(config)
        self.text_emb = nn.Embedding(config.text_vocab, config.dim)
        self.user_emb = AudioEmbedding(config, self.codebooks)
        self.assistant_emb = AudioEmbedding(config, self.codebooks)
        self.layers = Layers(
            Layer(config.dim, config.num_heads, config.num_kv_heads, config.ff_dim, config.norm_eps)
            for _ in range(config.num_layers)
        )
        frequencies = rope_frequencies(config.head_dim, config.rope_base)
        self.register_buffer("rope_frequencies", frequencies, persistent=False)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.text_head = nn.Linear(config.dim, config.text_vocab, bias=False)
        self.depth = Depth(config, self.codebooks)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
        for layers in (self.layers, self.depth.layers):
            for layer in layers:  # residual branches start small, so depth does not add up
                for linear in (layer.attention.out, layer.mlp.down):
                    linear.weight.data.mul_((2 * len(layers)) ** -0.5)
        for audio in (self.user_emb, self.assistant_emb):
            nn.init.zeros_(audio.semantic_emb.weight)

    def set_codebook_vectors(self, vectors: Tensor) -> None:
        """Take the codec's codebook vectors, float [K, codebook_size, audio_rank].

        A codebook of smaller rank is padded with zeros by the caller.
        """
        self.codebooks.set(vectors)

    def embed(self, steps: Steps) -> Tensor:
        """Return the summed inputs, float [B, T, dim]."""
        x: Tensor = self.text_emb(steps.text)
        for emb, codes in ((self.user_emb, steps.user), (self.assistant_emb, steps.assistant)):
            if (codes >= 0).any():  # most steps carry at most one audio stream
                x = x + emb(codes)
        return x

    def forward(self, steps: Steps) -> Tensor:
        """Run whole sequences from their start (training).

        Args:
            steps: [B, T]; PAD only where nothing is to be learned.

        Returns:
            float [B, T, dim], the normalised backbone output, for `text_logits` and `depth`.
            At PAD steps it is finite and means nothing.
        """
        config = self.config
        x = self.embed(steps)
        rope = rope_table(steps.position, self.rope_frequencies)
        mask = visibility(steps.kind, config)
        x = self._low_layers(x, steps.kind, rope, mask)
        for layer in list(self.layers)[config.audio_entry_layer :]:
            x = layer(x, rope, mask[:, None])
        hidden: Tensor = self.norm(x)
        return hidden

    def _low_layers(self, x: Tensor, kind: Tensor, rope: Tensor, mask: Tensor) -> Tensor:
        """Run the layers that LISTEN steps skip, on the remaining steps packed together."""
        entry = self.config.audio_entry_layer
        listens = kind == Kind.LISTEN
        num_steps = int((~listens).sum(dim=1).max())
        if entry == 0 or num_steps == 0:
            return x
        # A stable sort moves LISTEN steps behind the others; the first `num_steps` cover those.
        # A row with fewer brings some LISTEN steps along, which nobody sees and which are dropped.
        index = listens.to(torch.uint8).argsort(dim=1, stable=True)[:, :num_steps]  # [B, T']
        row = torch.arange(len(kind), device=kind.device)[:, None]
        packed = x[row, index]
        packed_listens = listens[row, index]
        mask = mask[row[..., None], index[:, :, None], index[:, None, :]]
        mask = mask & ~packed_listens[:, None, :]
        mask = mask | torch.eye(num_steps, dtype=torch.bool, device=kind.device)
        rope = rope[row, index]
        start = packed
        for layer in list(self.layers)[:entry]:
            packed = layer(packed, rope, mask[:, None])
        packed = torch.where(packed_listens[..., None], start, packed)
        return x.scatter(1, index[..., None].expand_as(packed), packed.to(x.dtype))

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Map `hidden: [..., dim]` to logits of the step's output piece, [..., text_vocab]."""
        logits: Tensor = self.text_head(hidden)
        return logits

    def init_state(self, num_slots: int) -> LMState:
        """Allocate the memory of `num_slots` conversations, on the weights' device and dtype."""
        weight = self.norm.weight
        return LMState(self.config, num_slots, weight.dtype, weight.device)

    @torch.inference_mode()
    def step(self, steps: Steps, state: LMState, slots: Sequence[int] | Tensor) -> Tensor:
        """Continue slots by one or more steps each.

        Args:
            steps: [n, T]; a row with fewer steps ends in PAD.
            state: written: keys, values and counters of `slots`.
            slots: n distinct slots; neighbouring ascending slots are fastest.

        Returns:
            float [n, T, dim] as `forward`.

        Raises:
            EngineError: if the prefix area of a slot is full.
        """
        slots = slots.tolist() if isinstance(slots, Tensor) else list(slots)
        num_steps = steps.text.shape[1]
        chunk = state.max_call_steps
        if num_steps <= chunk:
            return self._step_chunk(steps, state, slots)
        starts = range(0, num_steps, chunk)
        parts = [self._step_chunk(steps.columns(i, i + chunk), state, slots) for i in starts]
        return torch.cat(parts, dim=1)

    def _step_chunk(self, steps: Steps, state: LMState, slots: Sequence[int]) -> Tensor:
        config = self.config
        entry = config.audio_entry_layer
        kind = steps.kind.tolist()
        low, high = state.advance(kind, slots)
        x = self.embed(steps)
        rope = rope_table(steps.position, self.rope_frequencies)
        if any(k not in (Kind.LISTEN, Kind.PAD) for row in kind for k in row):
            start = x
            for layer, kv in list(zip(self.layers, state.kv, strict=True))[:entry]:
                x = layer.step(x, rope, kv, low)
            if any(k == Kind.LISTEN for row in kind for k in row):
                x = torch.where((steps.kind == Kind.LISTEN)[..., None], start, x)
        for layer, kv in list(zip(self.layers, state.kv, strict=True))[entry:]:
            x = layer.step(x, rope, kv, high)
        hidden: Tensor = self.norm(x)
        return hidden
