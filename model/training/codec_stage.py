"""Train the tokenizer.

It hears noisy speech, names its phones and describes its clean spectrum and pitch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codec.features import (
    FRAME_SAMPLES,
    HOPS_PER_FRAME,
    MEL_UNIT_DB,
    NUM_MELS,
    LogMel,
)
from model.codec.mel import MelCodec, MelCodecConfig
from model.training.corrupt import corrupt
from model.training.loop import Trainer, step_generator
from model.training.pitch import estimate_pitch
from model.training.speech.types import PHONES

if TYPE_CHECKING:
    from pathlib import Path

    from model.training.store import Clip

# Four labels a frame: a phone lasts 60 to 100 ms, so that one label for 80 ms would miss every
# second boundary.
PHONE_SLOTS_PER_FRAME = 4  # 20 ms each
# A worked example of these delays. The code of frame 0 names the phones at -40, -20, 0 and 20 ms,
# that is two pauses and the first two labels; frame 1 the four that begin at 40 to 100 ms. A phone
# is named when 40 ms more were heard, since its end tells much of what it was.
PHONE_DELAY_SLOTS = 2  # the frame's code names the phones up to 40 ms before its end
UNQUANTISED_STEPS = 60  # the latents settle before k-means places the codebooks
# 24 frames are just under 2 s, which is longer than what the encoder's blocks look back.
CROP_FRAMES = 24
BATCH = 32


@dataclass(frozen=True, slots=True)
class Crops:
    """A batch of clean crops: ``pcm [B, S]`` and 20 ms ``phones [B, S / 320]``.

    Beyond a clip's end the phone is a pause.
    """

    pcm: Tensor
    phones: Tensor


class CropSampler:
    """Draw random crops from user and assistant speech, the assistant's share fixed."""

    def __init__(
        self, users: list[Clip], replies: list[Clip], reply_share: float, frames: int, batch: int
    ) -> None:
        self.pools = (users, replies)
        self.reply_share = reply_share
        self.samples = frames * FRAME_SAMPLES
        self.batch = batch

    def draw(self, generator: torch.Generator, device: torch.device) -> Crops:
        """Return one batch on `device`, a function of the generator alone."""
        pcm = np.zeros((self.batch, self.samples), dtype=np.float32)
        phones = np.zeros((self.batch, self.samples // 320), dtype=np.int64)
        chance = torch.rand(self.batch, 4, generator=generator).numpy()
        # Four numbers between 0 and 1 make a row: whose speech it is, which clip, where the crop
        # begins, how loud it is. As they are all drawn at once, a row is the same however many
        # clips there are before it.
        for row, (pool, pick, where, gain) in enumerate(chance):
            clips = self.pools[int(pool < self.reply_share)]
            clip = clips[int(pick * len(clips))]
            # The crop may begin up to 0.4 s before the clip: starts from silence are what a decoder
            # meets first.
            lowest = -20
            # A worked example: a clip of 2 s has 32,000 samples, and a crop of 24 frames 30,720.
            # Crops begin at a multiple of 320 samples, 20 ms: from 20 of these before the clip to
            # (32,000 - 30,720) // 320 + 10 = 14 after its beginning.
            highest = max(lowest + 1, (len(clip.pcm) - self.samples) // 320 + 10)
            start = (lowest + int(where * (highest - lowest))) * 320
            piece = clip.pcm[max(0, start) : max(0, start + self.samples)]
            begin = max(0, -start)
            # The gain is from -7 dB to +3 dB: 10 to the power of (0 - 0.7) * 0.5 up to (1 - 0.7) *
            # 0.5, in amplitude.
            pcm[row, begin : begin + len(piece)] = piece * (10 ** ((gain - 0.7) * 0.5) / 32768.0)
            labels = clip.phones[max(0, start) // 320 : max(0, start + self.samples) // 320]
            phones[row, begin // 320 : begin // 320 + len(labels)] = labels
        return Crops(torch.from_numpy(pcm).to(device), torch.from_numpy(phones).to(device))


class CodecObjective(nn.Module):
    """The codec with the heads that only training needs."""

    def __init__(self, codec: MelCodec) -> None:
        super().__init__()
        self.codec = codec
        config = codec.config
        # These heads are thrown away after training. They make the semantic codes name phones and
        # the decoder describe spectra, before there is a vocoder that could be listened to.
        self.phones = nn.Sequential(
            nn.Linear(config.semantic_dim, 256),
            nn.GELU(),
            nn.Linear(256, PHONE_SLOTS_PER_FRAME * len(PHONES)),
        )
        self.mel = nn.Linear(config.hop_channels, NUM_MELS)
        self.analysis = LogMel()

    def forward(
        self, noisy: Tensor, clean: Crops, *, quantise: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and the figures to log."""
        codec = self.codec
        with torch.autocast(noisy.device.type, torch.bfloat16):
            semantic, acoustic, _ = codec.encoder(
                noisy, codec.encoder.init_state(len(noisy), noisy.device)
            )
            shape = semantic.shape[:2]
            commit = torch.zeros((), device=noisy.device)
            # Straight through: the decoder gets the codebooks' entries, and the gradient goes to
            # the encoder as if its own output had been used. `commit` pulls that output towards the
            # entries.
            if quantise:
                semantic, _, first = codec.semantic(semantic.flatten(0, 1))
                acoustic, _, second = codec.acoustic(acoustic.flatten(0, 1))
                semantic, acoustic = semantic.unflatten(0, shape), acoustic.unflatten(0, shape)
                commit = first + second
            logits = self.phones(semantic).unflatten(-1, (PHONE_SLOTS_PER_FRAME, len(PHONES)))
            # Delayed order with one flush step: acoustic vectors one step late.
            # Step s of the decoder takes the semantic vector of frame s and the acoustic one of
            # frame s - 1, as in speech that is made. So semantic vectors get a step of zeros at
            # their end, and acoustic ones at their beginning.
            semantic_in = functional.pad(semantic, (0, 0, 0, 1))
            acoustic_in = functional.pad(acoustic, (0, 0, 1, 0))
            split = 1 + len(codec.decoder.blocks) + len(codec.decoder.hop_blocks)
            hops, _ = codec.decoder.features(
                semantic_in, acoustic_in, codec.decoder.init_state(len(noisy), noisy.device)[:split]
            )
            # The first step decodes nothing: its eight hops are left out, and the rest lies beside
            # the clean audio.
            hops = hops[:, HOPS_PER_FRAME:]
            mel = self.mel(hops)
            octaves, voicing = codec.decoder.vocoder.predict_pitch(hops)
        labels = functional.pad(clean.phones, (PHONE_DELAY_SLOTS, 0))[:, : clean.phones.shape[1]]
        labels = torch.unflatten(labels, 1, (-1, PHONE_SLOTS_PER_FRAME))
        phone_loss = functional.cross_entropy(logits.float().flatten(0, 2), labels.flatten())
        target = self.analysis(
            clean.pcm, noisy.new_zeros(len(noisy), *self.analysis.context_shape)
        )[0]
        mel_loss = (mel.float() - target).abs().mean()
        # Half the batch teaches pitch as well, and the estimate is slow.
        some = slice(0, len(noisy) // 2)
        pitch, voiced = estimate_pitch(clean.pcm[some])
        octaves, voicing = octaves[some], voicing[some]
        voicing_loss = functional.binary_cross_entropy_with_logits(voicing, voiced.float())
        pitch_loss = ((octaves - pitch).abs() * voiced).sum() / voiced.sum().clamp_min(1)
        # The weights bring the parts to about the same size: an error of 0.2 in log-mel units (5
        # dB) counts 1.0, an uncertainty of 1.4 nats about a phone the same.
        loss = 5.0 * mel_loss + 0.7 * phone_loss + 0.3 * voicing_loss + pitch_loss + 0.25 * commit
        return loss, {
            "mel_db": mel_loss.item() * MEL_UNIT_DB,
            "phone_accuracy": (logits.argmax(-1) == labels).float().mean().item(),
            "voicing": voicing_loss.item(),
            "octaves": pitch_loss.item(),
            "commit": commit.item(),
        }

    @torch.no_grad()
    def place_codebooks(self, batches: list[Tensor]) -> None:
        """Set all codebooks by k-means over the latents of some noisy batches ``[B, S]``."""
        latents = [
            self.codec.encoder(b, self.codec.encoder.init_state(len(b), b.device))[:2]
            for b in batches
        ]
        self.codec.semantic.initialise(torch.cat([s.flatten(0, 1) for s, _ in latents]))
        self.codec.acoustic.initialise(torch.cat([a.flatten(0, 1) for _, a in latents]))


def train_codec(
    users: list[Clip],
    replies: list[Clip],
    directory: Path,
    *,
    num_steps: int,
    seed: int,
    config: MelCodecConfig,
    device: torch.device,
) -> MelCodec:
    """Train the tokenizer on `users` and `replies`; resumes from `directory`."""
    torch.manual_seed(seed)
    objective = CodecObjective(MelCodec(config)).to(device)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=1.2e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    trainer = Trainer("codec", directory, objective, [optimizer], num_steps)
    sampler = CropSampler(users, replies, 0.45, CROP_FRAMES, BATCH)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed, step)
        torch.manual_seed(seed + step)  # dead codes are re-seeded from the global generator
        # Codebooks that start as noise are hit by few latents and stay unused. Placed by k-means
        # over latents that have settled, nearly all of them are used from the first step on.
        if step == UNQUANTISED_STEPS:
            drawn = (step_generator(seed, -k) for k in range(1, 7))
            objective.place_codebooks([corrupt(sampler.draw(g, device).pcm, g) for g in drawn])
        crops = sampler.draw(generator, device)
        noisy = corrupt(crops.pcm, generator, share=0.6)
        answer: tuple[Tensor, dict[str, float]] = objective(
            noisy, crops, quantise=step >= UNQUANTISED_STEPS
        )
        return answer

    trainer.run(loss_of)
    return objective.codec.eval()
