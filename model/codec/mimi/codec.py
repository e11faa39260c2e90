"""Mimi, Kyutai's codec: 24 kHz audio to 12.5 frames of codes a second and back, as a stream.

Both directions are causal without look-ahead: a frame's codes are known when its last sample is,
and its audio when its codes are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codec.mimi.config import MimiConfig
from model.codec.mimi.convolution import Analysis, FrameToSteps, StepsToFrame, Synthesis
from model.codec.mimi.quantize import SplitCodes
from model.codec.mimi.state import MimiState, Rows, decoder_contexts, encoder_contexts
from model.codec.mimi.transformer import Transformer

# Steps that the transformer takes at once where a whole recording is given.
_RECORDING_STEPS = 128


class Encoder(nn.Module):
    """Audio to latents, one a frame."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.analysis = Analysis(config)
        self.transformer = Transformer(config)
        self.to_frame = StepsToFrame(config)

    def forward(self, pcm: Tensor, state: MimiState, rows: Rows) -> Tensor:
        """Encode ``pcm [n, frame_samples * T]`` into ``[n, T, dim]``, updating the state."""
        contexts = [context[rows.slots] for context in state.contexts]
        # A stream's first frame has no frame before it. `StepsToFrame` then repeats the first step,
        # the padding that the published codec was trained with.
        is_new = state.steps[rows.slots] == 0
        x, after = self.analysis(pcm, contexts[:-1])
        x = self.transformer(x, state, rows)
        latent: Tensor
        latent, context = self.to_frame(x, contexts[-1], is_new)
        for target, new in zip(state.contexts, [*after, context], strict=True):
            rows.write(target, new)
        return latent


class Decoder(nn.Module):
    """Latents, one a frame, to audio."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.to_steps = FrameToSteps(config)
        self.transformer = Transformer(config)
        self.synthesis = Synthesis(config)

    def forward(self, latent: Tensor, state: MimiState, rows: Rows) -> Tensor:
        """Decode ``latent [n, T, dim]`` into ``[n, frame_samples * T]``, updating the state."""
        contexts = [context[rows.slots] for context in state.contexts]
        x, context = self.to_steps(latent, contexts[0])
        x = self.transformer(x, state, rows)
        pcm: Tensor
        pcm, after = self.synthesis(x, contexts[1:])
        for target, new in zip(state.contexts, [context, *after], strict=True):
            rows.write(target, new)
        return pcm


class Mimi(nn.Module):
    """The codec; weights only, what streams remember is a `MimiState`.

    Args:
        config: sizes. Fewer codebooks than a file has use its first ones.
    """

    lookahead_samples = 0

    def __init__(self, config: MimiConfig | None = None) -> None:
        super().__init__()
        self.config = config or MimiConfig()
        self.frame_samples = self.config.frame_samples
        self.sample_rate_hz = self.config.sample_rate_hz
        self.encoder = Encoder(self.config)
        self.codes = SplitCodes(self.config)
        self.decoder = Decoder(self.config)

    def prepare(self) -> None:
        """Compute what no file holds, after the weights have been set."""
        for part in (self.codes, self.encoder.transformer, self.decoder.transformer):
            part.prepare()

    def init_encoder_state(self, num_slots: int) -> MimiState:
        """Return encoder state for `num_slots` streams that have heard nothing."""
        return self._state(encoder_contexts(self.config), num_slots)

    def init_decoder_state(self, num_slots: int) -> MimiState:
        """Return decoder state for `num_slots` streams that have said nothing."""
        return self._state(decoder_contexts(self.config), num_slots)

    @torch.inference_mode()
    def encode_step(
        self,
        pcm: Tensor,
        state: MimiState,
        slots: Tensor | Rows | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Encode the next frames of some streams.

        Args:
            pcm: float32 ``[n, frame_samples * T]`` in [-1, 1], 24 kHz. The codes do not depend on
                how many frames come in one call.
            state: updated in place, for `slots` only.
            slots: int64 ``[n]``, distinct: the slot of each row. None means all in order; then
                nothing is read back from the device, nor with `Rows.on_device`.
            active: bool ``[n]``: the other rows leave their slots as they are, and their results
                mean nothing. None means all rows.

        Returns:
            Codes int64 ``[n, T, K]``.

        Raises:
            ValueError: if `pcm` is not whole frames.
        """
        return self.codes.encode(self.latents_step(pcm, state, slots, active))

    @torch.inference_mode()
    def latents_step(
        self,
        pcm: Tensor,
        state: MimiState,
        slots: Tensor | Rows | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Compute what `encode_step` quantises, ``[n, T, dim]``; arguments as there."""
        if pcm.dim() != 2 or pcm.shape[1] % self.frame_samples or not pcm.shape[1]:
            raise ValueError(
                f"expected pcm [batch, a multiple of {self.frame_samples}], got {list(pcm.shape)}"
            )
        rows = slots if isinstance(slots, Rows) else Rows.of(slots, state.num_slots, active)
        latents: Tensor = self.encoder(pcm, state, rows)
        return latents

    @torch.inference_mode()
    def decode_step(
        self,
        codes: Tensor,
        state: MimiState,
        slots: Tensor | Rows | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Decode the next frames of some streams.

        Args:
            codes: int64 ``[n, T, K]``, each in 0 .. codebook_size - 1. Fewer codebooks than the
                codec has are decoded as they are, with less detail.
            state: updated in place, for `slots` only.
            slots: as for `encode_step`.
            active: as for `encode_step`.

        Returns:
            float32 ``[n, frame_samples * T]``, 24 kHz, not clipped to [-1, 1].

        Raises:
            ValueError: if `codes` has no codebook or more than the codec.
        """
        self._check_codes(codes)
        rows = slots if isinstance(slots, Rows) else Rows.of(slots, state.num_slots, active)
        pcm: Tensor = self.decoder(self.codes.decode(codes), state, rows)
        return pcm

    @torch.inference_mode()
    def encode(self, pcm: Tensor) -> Tensor:
        """Encode whole recordings at once.

        The window moves with every step here, so after 10 s codes differ from those of a stream.

        Args:
            pcm: float32 ``[B, S]`` in [-1, 1], 24 kHz; silence completes the last frame.

        Returns:
            Codes int64 ``[B, ceil(S / frame_samples), K]``.
        """
        return self.codes.encode(self.latents(pcm))

    @torch.inference_mode()
    def latents(self, pcm: Tensor) -> Tensor:
        """Compute what `encode` quantises, ``[B, T, dim]``."""
        pcm = functional.pad(pcm, (0, -pcm.shape[1] % self.frame_samples))
        state = self._state(encoder_contexts(self.config), len(pcm), _RECORDING_STEPS)
        return self.latents_step(pcm, state)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode whole recordings ``codes [B, T, K]`` at once into ``[B, frame_samples * T]``."""
        state = self._state(decoder_contexts(self.config), len(codes), _RECORDING_STEPS)
        return self.decode_step(codes, state)

    def _state(
        self, contexts: list[tuple[int, int]], num_slots: int, call_steps: int | None = None
    ) -> MimiState:
        like = self.decoder.to_steps.weight
        return MimiState.zeros(self.config, contexts, num_slots, like, call_steps)

    def _check_codes(self, codes: Tensor) -> None:
        most = self.config.num_codebooks
        if codes.dim() != 3 or not 1 <= codes.shape[2] <= most:
            raise ValueError(
                f"expected codes [batch, frames, 1 to {most}], got {list(codes.shape)}"
            )
