"""Mimi against the public packages themselves: fresh weights and audio in every run.

`make test-reference` installs Kyutai's package; without it these tests are skipped.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.reference import our_mimi, shake, their_mimi
from model.codec.mimi import Mimi, MimiConfig, load_mimi

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.usefixtures("fresh_seed"),
]

ATOL = 1e-4
# Codes may differ where two entries are as near as this, relative to the distance.
NEAR_TIE = 1e-5
NUM_FRAMES = 12  # twice the window
FRAME_SAMPLES = 1920
PUBLISHED_WINDOW = 250  # steps, two a frame

SIZES: dict[str, dict[str, Any]] = {
    "seanet": {"dimension": 64, "n_filters": 8},
    "quantizer": {
        "dimension": 16, "bins": 64, "n_q": 9, "input_dimension": 64, "output_dimension": 64,
    },
    "transformer": {
        "d_model": 64, "num_heads": 2, "num_layers": 3, "context": 12, "dim_feedforward": 96,
        "input_dimension": 64, "output_dimensions": [64],
    },
}  # fmt: skip


@pytest.fixture
def values(golden: Path) -> dict[str, Any]:
    """Sizes in the form of Kyutai's package."""
    values: dict[str, Any] = json.loads((golden / "mimi.json").read_text())
    for part, sizes in SIZES.items():
        values[part] |= sizes
    return values


@pytest.fixture
def theirs(values: dict[str, Any], moshi_package: object) -> nn.Module:
    """Kyutai's codec with random weights."""
    assert moshi_package
    return their_mimi(values)


@pytest.fixture
def ours(theirs: nn.Module, values: dict[str, Any]) -> Mimi:
    """Ours, from a file as Kyutai publishes it."""
    return our_mimi(theirs, values)


def audio(num_streams: int, num_frames: int = NUM_FRAMES) -> Tensor:
    """Noise of changing loudness."""
    pcm = 0.3 * torch.randn(num_streams, num_frames * FRAME_SAMPLES)
    return pcm * torch.rand(num_streams, num_frames).repeat_interleave(FRAME_SAMPLES, dim=1)


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values, of about unit scale."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(got / scale, expected / scale, atol=ATOL, rtol=0)


def same_codes(mimi: Mimi, latents: Tensor, expected: Tensor) -> None:
    """Compare the codes of our ``latents [B, T, dim]`` with theirs ``[B, T, K]``.

    A code that differs must be a tie to rounding; those after it in its frame follow from it.
    """
    got = mimi.codes.encode(latents)
    halves = ((mimi.codes.semantic, slice(0, 1)), (mimi.codes.acoustic, slice(1, None)))
    for half, part in halves:
        for latent, mine, other in zip(
            latents.flatten(0, 1),
            got[..., part].flatten(0, 1),
            expected[..., part].flatten(0, 1),
            strict=True,
        ):
            left = half.to_codes(latent)
            for table, a, b in zip(half.tables, mine, other, strict=True):
                if a != b:
                    distances = (left - table[torch.stack([a, b])]).norm(dim=1)
                    assert (distances[0] - distances[1]).abs() < NEAR_TIE * distances[0]
                    break
                left = left - table[a]


def their_frames(pcm: Tensor) -> Iterator[Tensor]:
    """Go through audio frame by frame in their order of axes."""
    yield from pcm.unsqueeze(1).split(FRAME_SAMPLES, dim=2)


@torch.no_grad()
def test_whole_recordings(ours: Mimi, theirs: Any) -> None:
    """Both directions at once, past the window."""
    pcm = audio(2)
    latents = ours.latents(pcm)
    close(latents, theirs.encode_to_latent(pcm.unsqueeze(1), quantize=False).transpose(1, 2))
    codes = theirs.encode(pcm.unsqueeze(1))
    same_codes(ours, latents, codes.transpose(1, 2))
    close(ours.decode(codes.transpose(1, 2)), theirs.decode(codes).squeeze(1))


@torch.no_grad()
@pytest.mark.usefixtures("moshi_package")
def test_streams_past_the_published_window(values: dict[str, Any]) -> None:
    """Both directions frame by frame for longer than 10 s, from where on a recording differs."""
    small = copy.deepcopy(values)
    small["seanet"]["n_filters"] = 2
    small["transformer"] |= {"context": PUBLISHED_WINDOW, "num_layers": 2}
    theirs: Any = their_mimi(small)
    ours = our_mimi(theirs, small)
    num_frames = PUBLISHED_WINDOW // 2 + 12
    pcm = audio(1, num_frames)
    codes = torch.randint(ours.config.codebook_size, (1, num_frames, 9))
    encoder, decoder = ours.init_encoder_state(1), ours.init_decoder_state(1)
    latents = []
    with theirs.streaming(1):
        for frame, their_pcm in enumerate(their_frames(pcm)):
            step = codes[:, frame : frame + 1]
            latents.append(ours.latents_step(their_pcm.squeeze(1), encoder))
            same_codes(ours, latents[-1], theirs.encode(their_pcm).transpose(1, 2))
            heard = ours.decode_step(step, decoder)
            close(heard, theirs.decode(step.transpose(1, 2)).squeeze(1))
    whole = ours.latents(pcm).split(1, dim=1)
    differences = [float((a - b).abs().max()) for a, b in zip(latents, whole, strict=True)]
    assert max(differences[: PUBLISHED_WINDOW // 2]) < ATOL < max(differences)


@torch.no_grad()
def test_streams_out_of_step(ours: Mimi, theirs: Any) -> None:
    """Both directions frame by frame, each stream pausing and starting anew at random."""
    num_streams = 4
    pcm = audio(num_streams)
    codes = torch.randint(ours.config.codebook_size, (num_streams, NUM_FRAMES, 9))
    encoder, decoder = ours.init_encoder_state(num_streams), ours.init_decoder_state(num_streams)
    with theirs.streaming(num_streams):
        for frame, their_pcm in enumerate(their_frames(pcm)):
            active = torch.rand(num_streams) < 0.8
            reset = torch.rand(num_streams) < 0.06
            theirs.reset_streaming(reset)
            theirs.set_exec_mask(active)
            for slot in reset.nonzero().flatten().tolist():
                encoder.reset(slot)
                decoder.reset(slot)
            step = codes[:, frame : frame + 1]
            latent = ours.latents_step(their_pcm.squeeze(1), encoder, active=active)[active]
            heard = ours.decode_step(step, decoder, active=active)[active]
            if active.any():
                same_codes(ours, latent, theirs.encode(their_pcm).transpose(1, 2)[active])
                close(heard, theirs.decode(step.transpose(1, 2)).squeeze(1)[active])
            else:
                theirs.encode(their_pcm)
                theirs.decode(step.transpose(1, 2))


@torch.no_grad()
def test_transformers(values: dict[str, Any], tmp_path: Path) -> None:
    """The codec of Hugging Face, from its own file, on whole recordings."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    net, codes, layers = values["seanet"], values["quantizer"], values["transformer"]
    config = transformers.MimiConfig(
        hidden_size=net["dimension"], num_filters=net["n_filters"], codebook_size=codes["bins"],
        codebook_dim=codes["dimension"], num_quantizers=codes["n_q"],
        vector_quantization_hidden_dimension=codes["dimension"], upsample_groups=net["dimension"],
        num_hidden_layers=layers["num_layers"], num_attention_heads=layers["num_heads"],
        num_key_value_heads=layers["num_heads"], intermediate_size=layers["dim_feedforward"],
        head_dim=net["dimension"] // layers["num_heads"], sliding_window=layers["context"],
    )  # fmt: skip
    theirs = transformers.MimiModel(config).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    published = json.loads((tmp_path / "config.json").read_text())
    ours = load_mimi(tmp_path / "model.safetensors", MimiConfig.from_transformers(published))
    pcm = audio(2)
    expected = theirs.encode(pcm.unsqueeze(1)).audio_codes
    same_codes(ours, ours.latents(pcm), expected.transpose(1, 2))
    heard = theirs.decode(expected).audio_values.squeeze(1)
    close(ours.decode(expected.transpose(1, 2)), heard)
