"""Mimi gives what Kyutai's own package gave: codes exactly, audio and latents to 1e-4.

The bundled golden codec is small and its window five frames: a stream of twelve runs well past it.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.codec.mimi import Mimi, MimiConfig, load_mimi

pytestmark = pytest.mark.golden

ATOL = 1e-4


@pytest.fixture(scope="module")
def codec(golden: Path, golden_config: MimiConfig) -> Mimi:
    """Return the golden codec."""
    return load_mimi(golden / "mimi.weights.safetensors", golden_config)


@pytest.fixture(scope="module")
def case(golden: Path) -> dict[str, Tensor]:
    """Return its inputs and outputs, in our order of axes: time before channels and codebooks."""
    tensors = load_file(golden / "mimi.io.safetensors")
    return {
        name: tensor.transpose(1, 2) if "codes" in name or "latent" in name else tensor.squeeze(1)
        for name, tensor in tensors.items()
    }


def close(got: Tensor, expected: Tensor) -> None:
    """Compare continuous values."""
    torch.testing.assert_close(got, expected, atol=ATOL, rtol=0)


def test_whole_recordings(codec: Mimi, case: dict[str, Tensor]) -> None:
    """Encoding and decoding at once."""
    close(codec.latents(case["wav"]), case["offline.latent"])
    assert torch.equal(codec.encode(case["wav"]), case["offline.codes"])
    close(codec.decode(case["offline.codes"]), case["offline.decode"])


def test_a_recording_that_ends_within_a_frame(codec: Mimi, case: dict[str, Tensor]) -> None:
    """Silence completes it."""
    assert torch.equal(codec.encode(case["odd.wav"]), case["odd.codes"])


def test_fewer_codebooks(golden: Path, golden_config: MimiConfig, case: dict[str, Tensor]) -> None:
    """The first codebooks of a file are a codec."""
    codec = load_mimi(golden / "mimi.weights.safetensors", golden_config, num_codebooks=4)
    codes = case["offline.codes_nq4"]
    assert torch.equal(codec.encode(case["wav"]), codes)
    expected = case["offline.decode_nq4"]
    num_frames = expected.shape[1] // codec.frame_samples
    close(codec.decode(codes[: len(expected), :num_frames]), expected)


def test_streams_past_the_window(codec: Mimi, case: dict[str, Tensor]) -> None:
    """Frame by frame, where the window of a stream is not that of a whole recording."""
    encoder, decoder = codec.init_encoder_state(2), codec.init_decoder_state(2)
    frames = case["wav"].split(codec.frame_samples, dim=1)
    latents = torch.cat([codec.latents_step(frame, encoder) for frame in frames], dim=1)
    close(latents, case["stream.latent"])
    assert torch.equal(codec.codes.encode(latents), case["stream.codes"])
    codes = case["offline.codes"].split(1, dim=1)
    close(torch.cat([codec.decode_step(step, decoder) for step in codes], 1), case["stream.decode"])


@pytest.mark.parametrize("how", ["masked", "chosen"])
def test_streams_that_wait_and_start_anew(codec: Mimi, case: dict[str, Tensor], how: str) -> None:
    """Streams pause and are reset each on their own, by mask or by leaving their slots out."""
    encoder, decoder = codec.init_encoder_state(2), codec.init_decoder_state(2)
    for frame, active in enumerate(case["desync.masks"]):
        reset = case["desync.resets"][frame]
        for slot in reset.nonzero().flatten().tolist():
            encoder.reset(slot)
            decoder.reset(slot)
        at = slice(frame * codec.frame_samples, (frame + 1) * codec.frame_samples)
        pcm, codes = case["wav"][:, at], case["offline.codes"][:, frame : frame + 1]
        if how == "masked":
            got_codes = codec.encode_step(pcm, encoder, active=active)[active]
            got_pcm = codec.decode_step(codes, decoder, active=active)[active]
        else:
            slots = active.nonzero().flatten()
            if not len(slots):
                continue
            got_codes = codec.encode_step(pcm[slots], encoder, slots)
            got_pcm = codec.decode_step(codes[slots], decoder, slots)
        assert torch.equal(got_codes[:, 0], case["desync.codes"][active, frame])
        close(got_pcm, case["desync.decode"][active, at])


def test_the_layout_of_transformers(golden: Path, case: dict[str, Tensor]) -> None:
    """The other published form of the same weights."""
    config = MimiConfig.from_transformers(json.loads((golden / "hf_mimi.json").read_text()))
    codec = load_mimi(golden / "hf_mimi.weights.safetensors", config)
    expected = load_file(golden / "hf_mimi.io.safetensors")["codes"].transpose(1, 2)
    assert torch.equal(codec.encode(case["wav"]), expected)
