"""Mimi against the public packages themselves: fresh weights and audio in every run.

`make test-reference` installs Kyutai's package; without it these tests are skipped.
"""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.codec.mimi import Mimi, MimiConfig, load_mimi

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # theirs
]

ATOL = 1e-4
# Codes may differ where two entries are as near as this, relative to the distance.
NEAR_TIE = 1e-5
NUM_FRAMES = 12  # twice the window

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


@pytest.fixture(scope="module", autouse=True)
def seed() -> int:
    """Draw and print a new seed, to repeat a run that failed."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown with a failure
    torch.manual_seed(seed)
    return seed


@pytest.fixture(scope="module")
def values(golden: Path) -> dict[str, Any]:
    """Sizes in the form of Kyutai's package."""
    values: dict[str, Any] = json.loads((golden / "mimi.json").read_text())
    for part, sizes in SIZES.items():
        values[part] |= sizes
    return values


@pytest.fixture(scope="module")
def theirs(values: dict[str, Any]) -> nn.Module:
    """Kyutai's codec with random weights."""
    reason = "needs Kyutai's package: make test-reference"
    loaders = pytest.importorskip("moshi.models.loaders", reason=reason)
    codec: nn.Module = loaders.get_mimi(None, values, num_codebooks=values["quantizer"]["n_q"])
    shake(codec)
    return codec


@pytest.fixture(scope="module")
def ours(
    theirs: nn.Module, values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Mimi:
    """Ours, from a file as Kyutai publishes it."""
    path = tmp_path_factory.mktemp("mimi") / "mimi.safetensors"
    renamed = {
        name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0", "out_proj"): t
        for name, t in theirs.state_dict().items()
    }
    save_file(renamed, path)
    return load_mimi(path, MimiConfig.from_kyutai(values))


def shake(codec: nn.Module) -> None:
    """Make every part of a codec matter: fresh modules scale their layers to almost nothing."""
    state = codec.state_dict()
    for name, tensor in state.items():
        if "layer_scale" in name:
            tensor.uniform_(0.2, 0.6)
        elif name.endswith(("cluster_usage", "bias")):
            tensor.uniform_(0.1, 2.0)
        elif name.endswith(("embedding_sum", "embed_sum")):
            tensor.normal_()
        elif "downsample" in name or "upsample" in name:
            tensor.normal_(std=0.3)
    codec.load_state_dict(state)  # some keep what they computed from the old


def audio(num_streams: int) -> Tensor:
    """Noise of changing loudness."""
    pcm = 0.3 * torch.randn(num_streams, NUM_FRAMES * 1920)
    return pcm * torch.rand(num_streams, NUM_FRAMES).repeat_interleave(1920, dim=1)


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values, of about unit scale."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(got / scale, expected / scale, atol=ATOL, rtol=0)


def same_codes(mimi: Mimi, latents: Tensor, expected: Tensor) -> None:
    """Compare the codes of our ``latents [B, T, dim]`` with theirs ``[B, T, K]``.

    A code that differs must be a tie to rounding; those after it in its frame follow from it.
    """
    got = mimi.codes.encode(latents)
    assert (got == expected).float().mean() > 0.99
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
    yield from pcm.unsqueeze(1).split(1920, dim=2)


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
