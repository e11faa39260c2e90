"""Train the vocoder further against critics that tell speech from what it makes.

A loss that compares spectra is content with their mean, which sounds dull and buzzes. Critics look
at spectrograms of several resolutions, as pictures, and learn what speech looks like; the decoder
learns to satisfy them. Tokenizer and codebooks stay as they are.

Source: Jang et al. 2021, "UnivNet" (critics of several resolutions); Mao et al. 2017, "Least
squares generative adversarial networks"; Kumar et al. 2019, "MelGAN" (matching their features).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from model.training.codec_stage import CropSampler
from model.training.corrupt import corrupt
from model.training.loop import Trainer, step_generator
from model.training.spectrum import power_spectrum
from model.training.vocoder_stage import VocoderObjective

if TYPE_CHECKING:
    from pathlib import Path

    from model.codec.mel import MelCodec
    from model.training.store import Clip

# A short window sees when, a long one sees which pitch: no single one shows both. Buzz between
# harmonics is seen by the last, smeared onsets by the first.
RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))  # (FFT, hop) samples
CHANNELS = 16
CROP_FRAMES = 10
BATCH = 12
FOOLING_WEIGHT = 0.3
FEATURES_WEIGHT = 1.0
LEARNING_STEPS = 200  # the critics' alone, before the decoder listens to them


# A worked example of one critic. A crop of 10 frames, 12,800 samples, with windows of 512 every 128
# is a picture of 257 frequencies by 101 moments. Three of the four layers halve the frequencies, so
# the last one judges some 33 by 101 places. Each sees a patch of the picture and not all of it:
# what sounds wrong for 50 ms is told where it is.
class Critic(nn.Module):
    """Judge waves by one spectrogram: high where it looks like speech.

    Args:
        size: samples of a frame.
        hop: samples between frames.
    """

    window: Tensor

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv2d(before, CHANNELS, (9, 3), stride=(stride, 1), padding=(4, 1)))
            for before, stride in ((1, 1), (CHANNELS, 2), (CHANNELS, 2), (CHANNELS, 2))
        )
        self.verdict = norm(nn.Conv2d(CHANNELS, 1, 3, padding=1))
        # CPUs convolve few channels faster when those of a place lie side by side.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pcm: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return verdicts ``[B, 1, F, T]`` on ``pcm [B, S]``, and what each layer saw."""
        power = power_spectrum(pcm, self.window, self.hop)  # [B, T, F]
        # The logarithm brings quiet sounds near loud ones, as ears do; 0.25 keeps the numbers near
        # one, where layers learn best.
        x = ((power + 1e-5 * self.size).log() * 0.25).transpose(1, 2)[:, None]
        x = x.contiguous(memory_format=torch.channels_last)
        seen = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.1)
            seen.append(x)
        return self.verdict(x), seen


class AdversaryObjective(nn.Module):
    """Decoder and critics, each with its own loss; their sum is what one step descends.

    The critics judge what is made without a way back to the decoder, and the decoder hears them
    without a way back to their weights. So the gradient of the sum is for each what its own loss
    says.
    """

    def __init__(self, codec: MelCodec) -> None:
        super().__init__()
        self.making = VocoderObjective(codec)
        self.critics = nn.ModuleList(Critic(size, hop) for size, hop in RESOLUTIONS)

    def forward(
        self, noisy: Tensor, clean: Tensor, *, fools: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and the figures to log.

        Args:
            noisy: what is encoded, ``[B, S]``.
            clean: what is to be made, ``[B, S]``.
            fools: whether the decoder hears the critics.
        """
        loss, figures, made = self.making.made(noisy, clean)
        # With least squares a critic should say 1 to speech and 0 to what was made, and the decoder
        # wants to hear 1. If a critic says 0.8 and 0.3, its loss is 0.04 + 0.09 and the decoder's
        # is 0.49.
        judged = clean.new_zeros(())
        fooling, features = clean.new_zeros(()), clean.new_zeros(())
        device = clean.device.type
        for critic in self.critics:
            with torch.autocast(device, torch.bfloat16):
                real, seen_real = critic(clean)
                fake, _ = critic(made.detach())
            judged = judged + (real.float() - 1).square().mean() + fake.float().square().mean()
            if not fools:
                continue
            # The weights without a way back: the gradient runs through the critic's computation to
            # the decoder and leaves no trace in the critic. To run the critic twice with other
            # flags would cost the same and be easier to get wrong.
            fixed = {name: weight.detach() for name, weight in critic.named_parameters()}
            with torch.autocast(device, torch.bfloat16):
                fake, seen_fake = functional_call(critic, fixed, (made,))
            fooling = fooling + (fake.float() - 1).square().mean()
            for a, b in zip(seen_fake, seen_real, strict=True):
                # Layers differ in how large their numbers are. Divided by their own mean, each
                # counts the same.
                scale = b.detach().abs().mean().clamp_min(1e-3)
                features = features + ((a - b.detach()).abs().mean() / scale).float()
        count = len(self.critics)
        judged, fooling, features = judged / count, fooling / count, features / (4 * count)
        loss = loss + judged + FOOLING_WEIGHT * fooling + FEATURES_WEIGHT * features
        return loss, {
            **figures,
            "critics": judged.item(),
            "fooling": fooling.item(),
            "features": features.item(),
        }


def train_adversary(
    codec: MelCodec,
    users: list[Clip],
    replies: list[Clip],
    directory: Path,
    *,
    num_steps: int,
    seed: int,
    device: torch.device,
) -> MelCodec:
    """Train decoder and vocoder of `codec` against critics; encoder and codebooks stay bit-equal.

    Resumes from `directory`.
    """
    torch.manual_seed(seed)
    objective = AdversaryObjective(codec).to(device)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(parameters, lr=rate, betas=(0.8, 0.99), weight_decay=0.01, fused=True)
        for parameters, rate in (
            # The critics learn twice as fast: they have to stay ahead of what they judge.
            (objective.making.decoder.parameters(), 3e-4),
            (objective.critics.parameters(), 6e-4),
        )
    ]
    trainer = Trainer("adversary", directory, objective, optimizers, num_steps)
    sampler = CropSampler(users, replies, 0.85, CROP_FRAMES, BATCH)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed + 2, step)
        crops = sampler.draw(generator, device)
        answer: tuple[Tensor, dict[str, float]] = objective(
            corrupt(crops.pcm, generator, share=0.1), crops.pcm, fools=step >= LEARNING_STEPS
        )
        return answer

    trainer.run(loss_of)
    return codec.eval()
