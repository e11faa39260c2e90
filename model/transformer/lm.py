"""The unified transformer: text, user audio and assistant audio summed step by step.

Modules hold weights; a conversation's memory is an explicit `LMState`. `forward` runs whole
sequences for training, `step` continues slots of a state; both compute the same function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.cache.rotary import rope_frequencies, rope_table
from model.cache.state import Kind, LMState, Steps
from model.cache.store import LayerMemory, MemoryConfig
from model.config import LMConfig
from model.family import Family
from model.text import Special
from model.transformer.attention import Layer, Layers, RMSNorm, visibility
from model.transformer.condition import Condition, Conditioners
from model.transformer.depth import CodebookVectors, Depth
from model.transformer.embedding import CodeTables, SummedTables, TextTable, TwoTextTable
from model.transformer.gradients import hiding
from model.transformer.pictures import PatchEmbedding

# A worked example of one step's input, for the starter (dim 256, 8 codes a frame):
#
#     LISTEN   text_emb(the last piece put out) + user_emb(8 codes)
#     TEXT     text_emb(a word's piece)
#     SPEAK    text_emb(the last piece put out) + assistant_emb(8 codes, as delayed)
#
# All of it is one vector [256]; what is absent adds an exact zero. The step runs through all
# layers, or, if it is a LISTEN step, from `audio_entry_layer` on, and comes out as `hidden` [256].
# From there `text_head` says the next piece, and in SPEAK steps `depth` the frame's codes.
#
# Source: Défossez et al. 2024, "Moshi", section 3.4 (temporal and depth transformer, streams
# summed).


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

    def forward(self, codes: Tensor, before: Tensor | None) -> Tensor | None:
        """Add codes to what there is.

        Args:
            codes: int64 [B, T, K], -1 where absent.
            before: float [B, T, dim], or None for nothing yet.

        Returns:
            float [B, T, dim]; `before` if all codes are absent.
        """
        if not (codes >= 0).any():  # most steps carry at most one audio stream
            return before
        table = self._codebooks[0].table
        num_codebooks, size, rank = table.shape
        present = codes >= 0
        # The tables lie one after the other, so one lookup serves all codebooks: code 7 of codebook
        # 2 is row 2 * size + 7.
        offset = torch.arange(num_codebooks, device=codes.device) * size
        # [B, T, K, rank]
        vectors = table.view(-1, rank)[codes.clamp(min=0) + offset] * present.unsqueeze(-1)
        semantic = self.semantic_emb(codes[..., 0].clamp(min=0)) * present[..., :1]  # [B, T, dim]
        x: Tensor = (
            semantic
            + self.semantic_proj(vectors[..., 0, :])
            + self.acoustic_proj(vectors[..., 1:, :].sum(dim=-2))
        )
        return x if before is None else before + x


class LM(nn.Module):
    """The backbone with its text head, and the depth transformer.

    Args:
        config: sizes, streams, windows.
    """

    rope_frequencies: Tensor

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        family = config.family
        if family is None:
            self._make_starter_inputs(config)
        else:
            self._make_family_inputs(config, family)
        self.layers = Layers(
            Layer(
                config.dim,
                config.num_heads,
                config.num_kv_heads,
                config.ff_dim,
                config.norm_eps,
                has_cross=family is not None and family.has_cross_attention,
            )
            for _ in range(config.num_layers)
        )
        frequencies = rope_frequencies(config.head_dim, config.rope_base)
        self.register_buffer("rope_frequencies", frequencies, persistent=False)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        text_out = family.text_out if family else config.text_vocab
        self.text_head = nn.Linear(config.dim, text_out, bias=False)
        if config.num_codebooks:
            self.depth = Depth(config, self.codebooks)
        if family and family.conditioners:
            self.conditioners = Conditioners(family, config.dim)
        self._init_weights()

    def _make_starter_inputs(self, config: LMConfig) -> None:
        self.codebooks: CodebookVectors | CodeTables = CodebookVectors(config)
        self.text_emb: nn.Module = nn.Embedding(config.text_vocab, config.dim)
        self.user_emb: nn.Module = AudioEmbedding(config, self.codebooks)
        self.assistant_emb: nn.Module = AudioEmbedding(config, self.codebooks)
        if config.picture_size:
            self.picture_emb = PatchEmbedding(config)
        if config.has_end_head:
            self.end_head = nn.Linear(config.dim, 1)

    def _make_family_inputs(self, config: LMConfig, family: Family) -> None:
        rows, num_made = config.codebook_size + 1, config.num_codebooks
        width = family.depth_rank or config.depth_dim
        # The codes that the depth transformer hears: the last one of a frame is none of them.
        self.codebooks = CodeTables(max(num_made - 1, 0), rows, width)
        text = TwoTextTable if family.has_two_texts else TextTable
        self.text_emb = text(config.text_vocab + 1, config.dim)
        self.user_emb = SummedTables(family.num_user_codebooks, rows, config.dim)
        self.assistant_emb = SummedTables(num_made, rows, config.dim)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
        depth = [(self.depth.layers, self.depth.num_layers)] if self.config.num_codebooks else []
        for layers, num_layers in ((self.layers, self.config.num_layers), *depth):
            for layer in layers:  # residual branches start small, so depth does not add up
                for linear in (layer.attention.out, layer.mlp.down):
                    linear.weight.data.mul_((2 * num_layers) ** -0.5)
        for audio in (self.user_emb, self.assistant_emb):
            if isinstance(audio, AudioEmbedding):
                nn.init.zeros_(audio.semantic_emb.weight)

    def set_codebook_vectors(self, vectors: Tensor) -> None:
        """Take the codec's codebook vectors, float [K, codebook_size, audio_rank].

        A codebook of smaller rank is padded with zeros by the caller.
        """
        assert isinstance(self.codebooks, CodebookVectors), "this model has tables of its own"
        self.codebooks.set(vectors)

    def embed(
        self, steps: Steps, patches: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return the summed inputs, float [B, T, dim].

        Args:
            steps: what they are.
            patches: float [patches, values], from `model.pictures.to_patches`, for the steps whose
                piece is `Special.IMAGE`, row by row; None where nothing is seen.
            places: int64 [patches], where each is in its picture; with `patches`.
        """
        # The order is that of the Kyutai family: in bf16 each addition rounds.
        audio: Tensor | None = self.user_emb(steps.user, self.assistant_emb(steps.assistant, None))
        text: Tensor = self.text_emb(steps.text)
        if patches is not None:
            seen, at = self.picture_emb(patches, places), steps.text == Special.IMAGE
            text = text.index_put((at,), text[at] + seen.to(text.dtype))
        return text if audio is None else audio + text

    def forward(self, steps: Steps, pictures: Tensor | None = None) -> Tensor:
        """Run whole sequences from their start, without a condition (training).

        Args:
            steps: [B, T]; PAD only where nothing is to be learned.
            pictures: float [pictures, patches, values], whole ones, as `patches` in `embed`.

        Returns:
            float [B, T, dim], the normalised backbone output, for `text_logits` and `depth`.
            At PAD steps it is finite and means nothing.
        """
        # Whole sequences: the mask says what each step sees, windows and prefix as in serving, so
        # that training and serving compute the same function. Tests compare the two.
        config = self.config
        if pictures is None:
            x = self.embed(steps)
        else:
            places = torch.arange(config.num_patches, device=pictures.device).repeat(len(pictures))
            x = self.embed(steps, pictures.flatten(0, 1), places)
        rope = rope_table(steps.position, self.rope_frequencies)  # [B, T, 1, head_dim / 2]
        # In the dtype of the scores, once for all layers.
        device = x.device.type
        is_mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_mixed else x.dtype
        mask = visibility(steps.kind, config)  # [B, T, T]
        x = self._low_layers(x, steps.kind, rope, mask, dtype)
        hidden_scores = hiding(mask[:, None], dtype)
        for layer in list(self.layers)[config.audio_entry_layer :]:
            x = layer(x, rope, hidden_scores)
        hidden: Tensor = self.norm(x)
        return hidden

    def _low_layers(
        self, x: Tensor, kind: Tensor, rope: Tensor, mask: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Run the layers that LISTEN steps skip, on the remaining steps packed together."""
        entry = self.config.audio_entry_layer
        listens = kind == Kind.LISTEN  # [B, T]
        num_steps = int((~listens).sum(dim=1).max())
        # A worked example of two rows, where T stands for text and L for LISTEN: [T L L T] and [T L
        # T T]. The second has three other steps, so three are packed: indices [0 3 1] and [0 2 3].
        # Index 1 of the first row is a LISTEN step that came along; its column is masked, and its
        # result is thrown away.
        if entry == 0 or num_steps == 0:
            return x
        # A stable sort moves LISTEN steps behind the others; the first `num_steps` cover those.
        # A row with fewer brings some LISTEN steps along, which nobody sees and which are dropped.
        index = listens.to(torch.uint8).argsort(dim=1, stable=True)[:, :num_steps]  # [B, T']
        row = torch.arange(len(kind), device=kind.device)[:, None]  # [B, 1]
        packed = x[row, index]  # [B, T', dim]
        packed_listens = listens[row, index]  # [B, T']
        mask = mask[row[..., None], index[:, :, None], index[:, None, :]]
        mask = mask & ~packed_listens[:, None, :]
        mask = mask | torch.eye(num_steps, dtype=torch.bool, device=kind.device)
        rope = rope[row, index]
        start, hidden_scores = packed, hiding(mask[:, None], dtype)
        for layer in list(self.layers)[:entry]:
            packed = layer(packed, rope, hidden_scores)
        packed = torch.where(packed_listens[..., None], start, packed)
        return x.scatter(1, index[..., None].expand_as(packed), packed.to(x.dtype))

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Map `hidden: [..., dim]` to logits of the step's output piece, [..., text_vocab]."""
        logits: Tensor = self.text_head(hidden)
        return logits

    def end_logits(self, hidden: Tensor) -> Tensor:
        """Map `hidden: [..., dim]` to how sure it is that the user's turn is over, [...]: logits.

        Only for a model with `has_end_head`, and only of steps that hear the user.
        """
        logits: Tensor = self.end_head(hidden)
        return logits.squeeze(-1)

    def init_state(
        self, num_slots: int, memory: MemoryConfig | None = None, num_attended: int = 0
    ) -> LMState:
        """Allocate the memory of conversations, on the weights' device and dtype.

        Args:
            num_slots: conversations.
            memory: how it is kept; the defaults if None.
            num_attended: length of what each condition lets every layer attend to; 0 for none.
        """
        weight = self.norm.weight
        return LMState(self.config, num_slots, weight.dtype, weight.device, memory, num_attended)

    @torch.inference_mode()
    def set_condition(self, condition: Condition, state: LMState, slot: int) -> None:
        """Tell the model something about the whole session, before its first step.

        Args:
            condition: from `conditioners`. What is attended to is as long as `state` has room for.
            state: written: `added` and `cross` of `slot`.
            slot: which slot.
        """
        if condition.added is not None:
            assert state.added is not None, "this model sums no condition"
            state.added[slot] = condition.added
        if condition.attended is not None:
            assert state.cross is not None, "the state has no room for what is attended to"
            room = state.cross.shape[4]
            assert condition.num_attended == room, (condition.num_attended, room)
            attended = condition.attended.to(state.device, state.dtype)
            kv = [layer.cross.remember(attended) for layer in self.layers if layer.cross]
            state.cross[:, :, slot] = torch.stack(kv)

    @torch.inference_mode()
    def step(
        self,
        steps: Steps,
        state: LMState,
        slots: Sequence[int] | Tensor,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """Continue slots by one or more steps each.

        Args:
            steps: [n, T]; a row with fewer steps ends in PAD.
            state: written: keys, values and counters of `slots`.
            slots: n distinct slots; neighbouring ascending slots are fastest.
            embedded: float [n, T, dim], inputs in place of the embedded `steps`, whose kinds and
                positions count all the same; None for none.

        Returns:
            float [n, T, dim] as `forward`.

        Raises:
            EngineError: if the prefix area of a slot is full.
            OutOfPagesError: if there is no memory for the steps of a call of `max_call_steps`;
                nothing of that call has happened then.
        """
        slots = slots.tolist() if isinstance(slots, Tensor) else list(slots)
        num_steps = steps.text.shape[1]
        chunk = state.max_call_steps
        if embedded is None:
            embedded = self.embed(steps)
        if num_steps <= chunk:
            return self._step_chunk(steps, embedded, state, slots)
        # An item of 150 steps and calls of at most 64 steps: columns 0 to 63, 64 to 127, 128 to
        # 149. Each call finds in memory what the call before has written.
        parts = [
            self._step_chunk(steps.columns(i, i + chunk), embedded[:, i : i + chunk], state, slots)
            for i in range(0, num_steps, chunk)
        ]
        return torch.cat(parts, dim=1)

    def _step_chunk(self, steps: Steps, x: Tensor, state: LMState, slots: Sequence[int]) -> Tensor:
        memory = state.advance(steps.kind.tolist(), slots)
        rows = torch.tensor(slots, device=x.device)
        return self.run(steps, x, memory, *state.conditions(rows))

    def run(
        self,
        steps: Steps,
        x: Tensor,
        memory: Sequence[LayerMemory | None],
        added: Tensor | None = None,
        cross: Tensor | None = None,
    ) -> Tensor:
        """Run steps whose memory is planned. Nothing here waits for the device or reads from it.

        Args:
            steps: [n, T], what they are.
            x: float [n, T, dim], what goes in.
            memory: for each layer, as `LMState.advance` returns.
            added: float [n, dim], conditions to be added.
            cross: [layers, 2, n, heads, length, head_dim], conditions to be attended to.

        Returns:
            float [n, T, dim] as `forward`.
        """
        entry = self.config.audio_entry_layer
        layers = list(zip(self.layers, memory, strict=True))
        if added is not None:
            x = x + added[:, None]
        rope = rope_table(steps.position, self.rope_frequencies)  # [B, T, 1, head_dim / 2]
        start = x
        for layer, remembered in layers[:entry]:
            if remembered is not None:
                x = layer.step(x, rope, remembered)
        if x is not start:
            x = torch.where((steps.kind == Kind.LISTEN)[..., None], start, x)
        for i, (layer, remembered) in enumerate(layers[entry:], start=entry):
            assert remembered is not None
            x = layer.step(x, rope, remembered, None if cross is None else cross[i])
        hidden: Tensor = self.norm(x)
        return hidden
