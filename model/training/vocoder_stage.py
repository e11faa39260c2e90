"""Train the vocoder on frozen codes: decoder and filters learn to make the clean wave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codec.features import HOPS_PER_FRAME, MEL_UNIT_DB, LogMel
from model.training.codec_stage import CropSampler
from model.training.corrupt import corrupt
from model.training.loop import Trainer, step_generator
from model.training.pitch import estimate_pitch
from model.training.spectrum import power_spectrum

if TYPE_CHECKING:
    from pathlib import Path

    from model.codec.mel import MelCodec
    from model.training.store import Clip

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256), (2048, 512))  # (FFT, hop) samples
CROP_FRAMES = 14
BATCH = 16


def spectral_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Compare waves ``[B, S]`` by log and relative linear STFT magnitude at several resolutions.

    Source: Yamamoto et al. 2020, "Parallel WaveGAN", equations 5-7.
    """
    total = made.new_zeros(())
    for size, hop in RESOLUTIONS:
        window = torch.hann_window(size, device=made.device)
        a, b = (power_spectrum(x, window, hop).add(1e-10).sqrt() for x in (made, wanted))
        # Two measures, because each is blind where the other sees. The relative one looks at what
        # is loud, the harmonics; the logarithmic one at what is quiet, the breath between them.
        linear = (a - b).norm(dim=(1, 2)) / b.norm(dim=(1, 2)).clamp_min(0.1)
        # A floor at -66 dB re a full-scale bin keeps inaudible detail out of the log term.
        floor = size * 1.2e-4
        log = ((a + floor).log() - (b + floor).log()).abs().mean()
        total = total + linear.mean() + 1.5 * log
    return total / len(RESOLUTIONS)


class VocoderObjective(nn.Module):
    """Decoder and vocoder under a frozen tokenizer."""

    def __init__(self, codec: MelCodec) -> None:
        super().__init__()
        self.codec = codec
        self.decoder = codec.decoder  # the only part with gradients
        self.analysis = LogMel()
        for part in (codec.encoder, codec.semantic, codec.acoustic):
            part.requires_grad_(requires_grad=False)
            part.eval()

    def forward(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and the figures to log."""
        loss, figures, _ = self.made(noisy, clean)
        return loss, figures

    def made(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, float], Tensor]:
        """Return the loss, the figures to log and the wave that was made, ``[B, S]``."""
        codec, decoder = self.codec, self.codec.decoder
        with torch.no_grad():
            codes = codec.encode(noisy).clone()
            semantic, acoustic = codec._vectors(codes)  # noqa: SLF001 - same package of the model, training only
        pitch, voiced = estimate_pitch(clean)
        state = decoder.init_state(len(noisy), noisy.device)
        split = 1 + len(decoder.blocks) + len(decoder.hop_blocks)
        with torch.autocast(noisy.device.type, torch.bfloat16):
            hops, _ = decoder.features(
                # Two steps of flush, as `MelCodec.decode` has them: the acoustic vectors come one
                # step late, and the vocoder holds back 480 samples.
                functional.pad(semantic, (0, 0, 0, 2)),
                functional.pad(acoustic, (0, 0, 1, 1)),
                state[:split],
            )
        hops = hops.float()
        octaves, logit = decoder.vocoder.predict_pitch(hops[:, HOPS_PER_FRAME:-HOPS_PER_FRAME])
        lead = (HOPS_PER_FRAME, HOPS_PER_FRAME)
        # Pulses are placed by the true pitch, so that the filters learn from waves that lie on top
        # of each other. The predicted pitch is taught beside that, by a loss of its own.
        true_pitch = functional.pad(pitch[:, None], lead, mode="replicate")[:, 0]
        true_voiced = functional.pad(voiced.float(), lead)
        made, _ = decoder.vocoder(hops, state[split:], true_pitch, true_voiced)
        made = made[:, codec.lookahead_samples : codec.lookahead_samples + clean.shape[1]]
        stft = spectral_loss(made, clean)
        context = noisy.new_zeros(len(noisy), *self.analysis.context_shape)
        mel = (self.analysis(made, context)[0] - self.analysis(clean, context)[0]).abs().mean()
        voicing_loss = functional.binary_cross_entropy_with_logits(logit, voiced.float())
        pitch_loss = ((octaves - pitch).abs() * voiced).sum() / voiced.sum().clamp_min(1)
        loss = stft + 2.0 * mel + 0.2 * voicing_loss + 0.7 * pitch_loss
        figures = {
            "stft": stft.item(),
            "mel_db": mel.item() * MEL_UNIT_DB,
            "voicing": voicing_loss.item(),
            "octaves": pitch_loss.item(),
        }
        return loss, figures, made


def train_vocoder(
    codec: MelCodec,
    users: list[Clip],
    replies: list[Clip],
    directory: Path,
    *,
    num_steps: int,
    seed: int,
    device: torch.device,
) -> MelCodec:
    """Train decoder and vocoder of `codec`; encoder and codebooks stay bit-equal.

    Resumes from `directory`.
    """
    torch.manual_seed(seed)
    objective = VocoderObjective(codec).to(device)
    optimizer = torch.optim.AdamW(
        objective.decoder.parameters(), lr=1.2e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    trainer = Trainer("vocoder", directory, objective, [optimizer], num_steps)
    sampler = CropSampler(users, replies, 0.75, CROP_FRAMES, BATCH)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed + 1, step)
        crops = sampler.draw(generator, device)
        answer: tuple[Tensor, dict[str, float]] = objective(
            corrupt(crops.pcm, generator, share=0.15), crops.pcm
        )
        return answer

    trainer.run(loss_of)
    return codec.eval()
