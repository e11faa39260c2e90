"""The starter's hierarchical tokenizer: 16 kHz PCM to codes and back.

Every 80 ms become one semantic and seven acoustic codes. Encoding is causal and needs no
look-ahead. Decoding frame t also uses the *semantic* code of frame t + 1, which the language model
makes one step before the acoustic codes of frame t anyway (its acoustic delay), and the vocoder's
windows hold back 480 samples: an output sample is final 80 ms + 30 ms after the end of its frame's
codes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from model.codec.blocks import ConvBlock, ConvNeXtBlock, run_blocks
from model.codec.features import (
    FRAME_SAMPLES,
    HOP_SAMPLES,
    HOPS_PER_FRAME,
    NUM_MELS,
    SAMPLE_RATE_HZ,
    LogMel,
)
from model.codec.quantize import ResidualQuantizer
from model.codec.vocoder import DELAY_SAMPLES, Vocoder
from model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class MelCodecConfig:
    """Sizes of the tokenizer; the defaults are the shipped starter's."""

    codebook_size: int = 1024
    num_acoustic: int = 7
    semantic_dim: int = 64
    acoustic_dim: int = 96
    channels: int = 384
    encoder_blocks: int = 4
    decoder_blocks: int = 3
    hop_channels: int = 224
    hop_blocks: int = 4

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelCodecConfig:
        """Build from a mapping; raises `ConfigError` on an unknown key."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            msg = (
                f"codec config: unknown keys {sorted(unknown)}, "
                f"expected some of {sorted(cls.__dataclass_fields__)}"
            )
            raise ConfigError(msg)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain mapping that `from_dict` takes."""
        return asdict(self)

    @property
    def num_codebooks(self) -> int:
        """Codes of one frame: one semantic, then the acoustic ones."""
        return 1 + self.num_acoustic


@dataclass(slots=True)
class CodecState:
    """Streaming state of one direction: tensors with the slot axis first, nothing else."""

    tensors: list[Tensor]

    def take(self, slots: Tensor) -> list[Tensor]:
        """Copy the rows of `slots` (int64 ``[n]``)."""
        return [t.index_select(0, slots) for t in self.tensors]

    def put(self, slots: Tensor, rows: list[Tensor]) -> None:
        """Write the rows of `slots` back."""
        for t, row in zip(self.tensors, rows, strict=True):
            t.index_copy_(0, slots, row.to(t.dtype))

    def copy_slot(self, source: CodecState, slot: int) -> None:
        """Make `slot` equal to row 0 of `source`."""
        for mine, theirs in zip(self.tensors, source.tensors, strict=True):
            mine[slot].copy_(theirs[0])


class Encoder(nn.Module):
    """Log-mel patches to the two latents that are quantised."""

    def __init__(self, config: MelCodecConfig) -> None:
        super().__init__()
        self.mel = LogMel()
        self.patch = nn.Linear(HOPS_PER_FRAME * NUM_MELS, config.channels)
        # The casts here and in the decoder say what a ModuleList's type leaves out: what it holds.
        self.blocks = cast(
            "Sequence[ConvBlock]",
            nn.ModuleList(ConvBlock(config.channels) for _ in range(config.encoder_blocks)),
        )
        self.norm = nn.LayerNorm(config.channels)
        self.to_semantic = nn.Linear(config.channels, config.semantic_dim)
        self.to_acoustic = nn.Linear(config.channels, config.acoustic_dim)

    def init_state(self, num_slots: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """Return the state of `num_slots` streams that have heard nothing."""
        shapes = [self.mel.context_shape, *(b.context_shape for b in self.blocks)]
        return [torch.zeros(num_slots, *shape, device=device) for shape in shapes]

    def forward(self, pcm: Tensor, state: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Encode ``pcm [B, 1280 * T]`` into latents.

        Returns:
            The semantic ones ``[B, T, semantic_dim]``, the acoustic ones ``[B, T, acoustic_dim]``
            and the new state.
        """
        mel, heard = self.mel(pcm, state[0])
        # [B, T, channels], from 8 hops of 80 mels each
        x = self.patch(mel.unflatten(1, (-1, HOPS_PER_FRAME)).flatten(2))
        x, contexts = run_blocks(self.blocks, x, state[1:])
        x = self.norm(x)
        return self.to_semantic(x), self.to_acoustic(x), [heard, *contexts]


class Decoder(nn.Module):
    """Codes in the language model's delayed order to a wave."""

    def __init__(self, config: MelCodecConfig) -> None:
        super().__init__()
        self.semantic_dim = config.semantic_dim
        self.hop_channels = config.hop_channels
        self.from_codes = nn.Linear(2 * config.semantic_dim + config.acoustic_dim, config.channels)
        self.blocks = cast(
            "Sequence[ConvBlock]",
            nn.ModuleList(ConvBlock(config.channels) for _ in range(config.decoder_blocks)),
        )
        self.norm = nn.LayerNorm(config.channels)
        self.upsample = nn.Linear(config.channels, HOPS_PER_FRAME * config.hop_channels)
        self.hop_blocks = cast(
            "Sequence[ConvNeXtBlock]",
            nn.ModuleList(ConvNeXtBlock(config.hop_channels) for _ in range(config.hop_blocks)),
        )
        self.hop_norm = nn.LayerNorm(config.hop_channels)
        self.vocoder = Vocoder(config.hop_channels)

    def init_state(self, num_slots: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """Return the state of `num_slots` voices that have said nothing."""
        shapes = [(1, self.semantic_dim)]
        shapes += [b.context_shape for b in self.blocks]
        shapes += [b.context_shape for b in self.hop_blocks]
        rows = [torch.zeros(num_slots, *shape, device=device) for shape in shapes]
        return rows + self.vocoder.init_state(num_slots, device)

    # What step s decodes is frame s - 1. Its acoustic codes come with step s, its semantic code
    # came with step s - 1 and is kept in the state, and the semantic code of the next frame, which
    # step s brings too, says what sound it has to lead to:
    #
    #     step   semantic of   acoustic of   decodes
    #     0      frame 0       -             nothing yet
    #     1      frame 1       frame 0       frame 0, from semantic 0 and 1, acoustic 0
    #     2      frame 2       frame 1       frame 1
    #     flush  -             frame 2       frame 2
    def features(
        self, semantic: Tensor, acoustic: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute hop-rate features ``[B, 8 * T, hop_channels]``.

        Args:
            semantic: vectors ``[B, T, semantic_dim]`` of step s (the frame after the one decoded).
            acoustic: vectors ``[B, T, acoustic_dim]`` of step s, which belong to the frame before.
            state: all but the vocoder's part.
        """
        # [B, T, semantic_dim]
        before = torch.cat([state[0].to(semantic.dtype), semantic[:, :-1]], dim=1)
        x = self.from_codes(torch.cat([before, semantic, acoustic], dim=-1))
        split = 1 + len(self.blocks)
        x, contexts = run_blocks(self.blocks, x, state[1:split])
        # One frame becomes eight hops of 10 ms: the linear makes all eight at once, and the axis is
        # split.
        hops = (
            self.upsample(self.norm(x))
            .unflatten(-1, (HOPS_PER_FRAME, self.hop_channels))
            .flatten(1, 2)
        )
        hops, hop_contexts = run_blocks(self.hop_blocks, hops, state[split:])
        return self.hop_norm(hops), [semantic[:, -1:], *contexts, *hop_contexts]

    def forward(
        self, semantic: Tensor, acoustic: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Decode code vectors (as in `features`) into ``pcm [B, 1280 * T]``."""
        split = 1 + len(self.blocks) + len(self.hop_blocks)
        hops, contexts = self.features(semantic, acoustic, state[:split])
        pcm, voice = self.vocoder(hops, state[split:])
        return pcm, contexts + voice


class MelCodec(nn.Module):
    """The tokenizer and vocoder of the starter."""

    frame_samples = FRAME_SAMPLES
    sample_rate_hz = SAMPLE_RATE_HZ
    # 1760 = 110 ms, from a frame's codes to its last final sample
    lookahead_samples = FRAME_SAMPLES + DELAY_SAMPLES

    def __init__(self, config: MelCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config or MelCodecConfig()
        self.encoder = Encoder(self.config)
        self.semantic = ResidualQuantizer(1, self.config.codebook_size, self.config.semantic_dim)
        self.acoustic = ResidualQuantizer(
            self.config.num_acoustic, self.config.codebook_size, self.config.acoustic_dim
        )
        self.decoder = Decoder(self.config)

    def codebook_vectors(self) -> Tensor:
        """Return all code vectors ``[K, codebook_size, acoustic_dim]``.

        The semantic ones are padded with zeros.
        """
        dim = max(self.config.acoustic_dim, self.config.semantic_dim)
        table = torch.zeros(self.config.num_codebooks, self.config.codebook_size, dim)
        for k, book in enumerate([*self.semantic.books, *self.acoustic.books]):
            table[k, :, : book.vectors.shape[1]] = book.vectors
        return table

    def init_encoder_state(self, num_slots: int) -> CodecState:
        """Return encoder state for `num_slots` streams."""
        return CodecState(self.encoder.init_state(num_slots, self._device()))

    def init_decoder_state(self, num_slots: int) -> CodecState:
        """Return decoder state for `num_slots` streams."""
        return CodecState(self.decoder.init_state(num_slots, self._device()))

    def reset_encoder(self, state: CodecState, slot: int) -> None:
        """Make `slot` of an encoder state new."""
        state.copy_slot(self.init_encoder_state(1), slot)

    def reset_decoder(self, state: CodecState, slot: int) -> None:
        """Make `slot` of a decoder state new."""
        state.copy_slot(self.init_decoder_state(1), slot)

    @torch.inference_mode()
    def encode_step(self, pcm: Tensor, state: CodecState, slots: Tensor) -> Tensor:
        """Encode the next frames of the streams in `slots`.

        Args:
            pcm: float32 ``[n, 1280 * T]`` in [-1, 1], 16 kHz.
            state: updated in place for `slots` only.
            slots: int64 ``[n]``, distinct.

        Returns:
            Codes int64 ``[n, T, K]``.
        """
        codes, rows = self._encode(pcm, state.take(slots))
        state.put(slots, rows)
        return codes

    @torch.inference_mode()
    def decode_step(self, codes: Tensor, state: CodecState, slots: Tensor) -> Tensor:
        """Decode the next steps of the streams in `slots`.

        Args:
            codes: int64 ``[n, T, K]`` in the language model's order: step s holds the semantic code
                of frame s and the acoustic codes of frame s - 1; -1 where there is none (the first
                step's acoustic codes, the semantic code of the flush).
            state: updated in place for `slots` only.
            slots: int64 ``[n]``, distinct.

        Returns:
            float32 ``[n, 1280 * T]``. The stream lags by `lookahead_samples`: drop that many at its
            beginning and flush two steps at its end (one with the last acoustic codes, one all -1).
        """
        rows = state.take(slots)
        semantic, acoustic = self._vectors(codes)
        pcm: Tensor
        pcm, rows = self.decoder(semantic, acoustic, rows)
        state.put(slots, rows)
        return pcm.clamp(-1.0, 1.0)

    @torch.inference_mode()
    def encode(self, pcm: Tensor) -> Tensor:
        """Encode whole recordings ``pcm [B, 1280 * T]`` into codes ``[B, T, K]``, undelayed."""
        return self._encode(pcm, self.encoder.init_state(len(pcm), pcm.device))[0]

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode whole recordings, undelayed codes ``[B, T, K]`` into ``pcm [B, 1280 * T]``.

        The audio is aligned with what was encoded.
        """
        # Two steps of flush: the first brings the last acoustic codes, and the second pushes out
        # the 480 samples that the vocoder still holds back.
        semantic, acoustic = self._vectors(delay(codes, flush=2))
        pcm: Tensor
        pcm, _ = self.decoder(semantic, acoustic, self.decoder.init_state(len(codes), codes.device))
        end = self.lookahead_samples + codes.shape[1] * FRAME_SAMPLES
        return pcm[:, self.lookahead_samples : end].clamp(-1.0, 1.0)

    def _encode(self, pcm: Tensor, rows: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if pcm.shape[1] % FRAME_SAMPLES:
            msg = f"expected pcm [batch, a multiple of {FRAME_SAMPLES}], got {list(pcm.shape)}"
            raise ValueError(msg)
        semantic: Tensor
        acoustic: Tensor
        semantic, acoustic, rows = self.encoder(pcm, rows)
        codes = torch.cat(
            [
                self.semantic.encode(semantic.flatten(0, 1)),
                self.acoustic.encode(acoustic.flatten(0, 1)),
            ],
            dim=1,
        )
        return torch.unflatten(codes, 0, semantic.shape[:2]), rows

    def _vectors(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.semantic.decode(codes[..., :1]), self.acoustic.decode(codes[..., 1:])

    def _device(self) -> torch.device:
        return self.decoder.from_codes.weight.device


def delay(codes: Tensor, flush: int = 1) -> Tensor:
    """Put codes ``[B, T, K]`` into the language model's order ``[B, T + flush, K]``.

    There the acoustic codes come one step late; -1 fills what is left.
    """
    # Three frames with one step of flush, S for semantic and A for acoustic codes:
    #
    #     step       0    1    2    3
    #     semantic   S0   S1   S2   -1
    #     acoustic   -1   A0   A1   A2
    batch, frames, books = codes.shape
    out = torch.full((batch, frames + flush, books), -1, dtype=codes.dtype, device=codes.device)
    out[:, :frames, :1] = codes[..., :1]
    out[:, 1 : frames + 1, 1:] = codes[..., 1:]
    return out


__all__ = ["HOP_SAMPLES", "CodecState", "MelCodec", "MelCodecConfig", "delay"]
