"""The tokenizer streams: pieces equal the whole, slots are alone, look-ahead is what it says."""

from __future__ import annotations

import pytest
import torch

from model.codec.mel import MelCodec, MelCodecConfig, delay
from model.errors import ConfigError

FRAME = MelCodec.frame_samples
TINY = MelCodecConfig(
    codebook_size=32, num_acoustic=3, semantic_dim=8, acoustic_dim=12, channels=24, hop_channels=16,
    encoder_blocks=2, decoder_blocks=2, hop_blocks=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def codec() -> MelCodec:
    """A small codec with seeded random weights."""
    torch.manual_seed(3)
    return MelCodec(TINY).eval()


def speech(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Noise in place of speech."""
    return 0.1 * torch.randn(batch, frames * FRAME, generator=torch.Generator().manual_seed(seed))


def test_encoding_in_pieces_equals_encoding_the_whole(codec: MelCodec) -> None:
    """Codes do not depend on how the audio arrives."""
    pcm = speech(2, 9)
    state, slots = codec.init_encoder_state(3), torch.tensor([2, 0])
    pieces = [
        codec.encode_step(pcm[:, a * FRAME : b * FRAME], state, slots)
        for a, b in ((0, 1), (1, 4), (4, 9))
    ]
    assert torch.equal(torch.cat(pieces, 1), codec.encode(pcm))


def test_decoding_in_pieces_equals_decoding_the_whole(codec: MelCodec) -> None:
    """The wave does not depend on how many steps are decoded at once, apart from float rounding."""
    codes = codec.encode(speech(2, 8))
    steps = delay(codes, flush=2)
    state, slots = codec.init_decoder_state(2), torch.tensor([1, 0])
    cuts = ((0, 1), (1, 2), (2, 5), (5, 10))
    wave = torch.cat([codec.decode_step(steps[:, a:b], state, slots) for a, b in cuts], 1)
    begin = codec.lookahead_samples
    torch.testing.assert_close(
        wave[:, begin : begin + 8 * FRAME], codec.decode(codes), atol=2e-3, rtol=0
    )


def test_slots_do_not_meet(codec: MelCodec) -> None:
    """A slot's output is the same alone and beside others.

    Untouched slots keep their state bit for bit.
    """
    pcm = speech(2, 3)
    alone = codec.init_encoder_state(1)
    expected = codec.encode_step(pcm[:1], alone, torch.tensor([0]))
    state = codec.init_encoder_state(3)
    for tensor in state.tensors:
        tensor[2].fill_(float("nan"))
    got = codec.encode_step(pcm, state, torch.tensor([1, 0]))
    assert torch.equal(got[:1], expected)
    assert all(bool(t[2].isnan().all()) for t in state.tensors)
    assert not any(bool(t[:2].isnan().any()) for t in state.tensors)


def test_reset_makes_a_slot_new(codec: MelCodec) -> None:
    """After a reset a slot encodes and decodes as if never used; its neighbour goes on."""
    pcm = speech(2, 2)
    encoder, decoder, both = (
        codec.init_encoder_state(2),
        codec.init_decoder_state(2),
        torch.tensor([0, 1]),
    )
    first = codec.encode_step(pcm, encoder, both)
    heard = codec.decode_step(first, decoder, both)
    neighbour = [t[1].clone() for t in encoder.tensors]
    codec.reset_encoder(encoder, 0)
    codec.reset_decoder(decoder, 0)
    assert all(torch.equal(t[1], n) for t, n in zip(encoder.tensors, neighbour, strict=True))
    assert torch.equal(codec.encode_step(pcm[:1], encoder, torch.tensor([0])), first[:1])
    again = codec.decode_step(first[:1], decoder, torch.tensor([0]))
    torch.testing.assert_close(again, heard[:1], atol=1e-5, rtol=0)


def test_latents_have_no_gradient_from_the_future(codec: MelCodec) -> None:
    """Frame t of the encoder depends on no sample after its end, and on those within."""
    pcm = speech(1, 6).requires_grad_()
    semantic, acoustic, _ = codec.encoder(pcm, codec.encoder.init_state(1))
    (semantic[:, 3].sum() + acoustic[:, 3].sum()).backward()
    assert pcm.grad is not None
    assert pcm.grad[:, 4 * FRAME :].abs().max() == 0
    assert pcm.grad[:, 3 * FRAME : 4 * FRAME].abs().max() > 0


def test_decoder_looks_ahead_no_further_than_it_says(codec: MelCodec) -> None:
    """Output samples of step s depend on the vectors of steps up to s only.

    So the stated lag is all there is.
    """
    semantic = torch.randn(1, 6, TINY.semantic_dim, requires_grad=True)
    acoustic = torch.randn(1, 6, TINY.acoustic_dim, requires_grad=True)
    wave, _ = codec.decoder(semantic, acoustic, codec.decoder.init_state(1))
    wave[:, 3 * FRAME : 4 * FRAME].square().sum().backward()
    assert semantic.grad is not None
    assert acoustic.grad is not None
    assert semantic.grad[:, 4:].abs().max() == 0
    assert acoustic.grad[:, 4:].abs().max() == 0
    assert semantic.grad[:, 3].abs().max() > 0


def test_delay_puts_acoustic_codes_one_step_late() -> None:
    """Step s holds the semantic code of frame s and the acoustic codes of frame s - 1.

    Only what is missing is -1.
    """
    codes = torch.arange(12).view(1, 3, 4)
    late = delay(codes, flush=2)
    assert late[0, :, 0].tolist() == [0, 4, 8, -1, -1]
    assert late[0, :, 1].tolist() == [-1, 1, 5, 9, -1]


def test_config_refuses_unknown_keys_and_round_trips() -> None:
    """A misspelt key is named."""
    assert MelCodecConfig.from_dict(TINY.to_dict()) == TINY
    with pytest.raises(ConfigError, match="chanels"):
        MelCodecConfig.from_dict({"chanels": 3})


def test_audio_of_a_wrong_length_is_refused(codec: MelCodec) -> None:
    """Only whole frames are encoded."""
    with pytest.raises(ValueError, match="multiple of 1280"):
        codec.encode(torch.zeros(1, 1281))
