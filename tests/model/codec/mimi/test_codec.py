"""Mimi streams: pieces equal the whole, slots are alone, memory is constant."""

import pytest
import torch
from torch import Tensor

from model.codec.mimi import Mimi, MimiConfig, MimiState, session_bytes
from tests.model.codec.mimi.small import TINY

FRAME = TINY.frame_samples


def frames(pcm: Tensor) -> tuple[Tensor, ...]:
    """Cut audio into frames."""
    return pcm.split(FRAME, dim=1)


def encode_stream(mimi: Mimi, pcm: Tensor, state: MimiState) -> Tensor:
    """Latents of a stream, frame by frame."""
    return torch.cat([mimi.latents_step(frame, state) for frame in frames(pcm)], dim=1)


def slot_tensors(state: MimiState, slot: int) -> list[Tensor]:
    """Return what a state holds of one slot."""
    return [*(context[slot] for context in state.contexts), state.kv[:, :, slot], state.steps[slot]]


def test_codes_do_not_depend_on_how_the_audio_arrives(mimi: Mimi, sound: Tensor) -> None:
    """Calls of many frames equal calls of one, past the window."""
    expected = encode_stream(mimi, sound, mimi.init_encoder_state(3))
    state = mimi.init_encoder_state(3)
    cuts = ((0, 3), (3, 4), (4, 10))
    got = [mimi.latents_step(sound[:, a * FRAME : b * FRAME], state) for a, b in cuts]
    torch.testing.assert_close(torch.cat(got, 1), expected, atol=1e-5, rtol=0)


def test_audio_does_not_depend_on_how_the_codes_arrive(mimi: Mimi) -> None:
    """The same for decoding."""
    codes = torch.randint(16, (2, 9, 4))
    one, many = mimi.init_decoder_state(2), mimi.init_decoder_state(2)
    expected = torch.cat([mimi.decode_step(step, one) for step in codes.split(1, 1)], 1)
    got = torch.cat([mimi.decode_step(part, many) for part in codes.split((2, 6, 1), 1)], 1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_stream_equals_a_recording_until_the_window_is_full(mimi: Mimi, sound: Tensor) -> None:
    """They are the same for three frames, and differ later."""
    stream = encode_stream(mimi, sound, mimi.init_encoder_state(3))
    whole = mimi.latents(sound)
    torch.testing.assert_close(stream[:, :3], whole[:, :3], atol=1e-5, rtol=0)
    assert (stream[:, 4:] - whole[:, 4:]).abs().max() > 1e-4


def test_recordings_longer_than_one_pass_of_the_transformer(
    mimi: Mimi, monkeypatch: pytest.MonkeyPatch, sound: Tensor
) -> None:
    """How many steps are taken at once is not heard."""
    expected, codes = mimi.latents(sound), torch.randint(16, (1, 9, 4))
    heard = mimi.decode(codes)
    monkeypatch.setattr("model.codec.mimi.codec._RECORDING_STEPS", 3)
    torch.testing.assert_close(mimi.latents(sound), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(mimi.decode(codes), heard, atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", [[2], [3, 4], [4, 0, 1], [4, 2, 0]], ids=str)
def test_batched_equals_alone(mimi: Mimi, sound: Tensor, order: list[int]) -> None:
    """Streams of different age and in any slots give what they give alone."""
    slots = torch.tensor(order)
    together, spoken = mimi.init_encoder_state(5), mimi.init_decoder_state(5)
    for tensor in (*together.contexts, together.kv, *spoken.contexts, spoken.kv):
        tensor.fill_(7.0)  # what a stream before has left behind
    for slot in order:
        together.reset(slot)
        spoken.reset(slot)
    for row, slot in enumerate(order):  # `row` frames older than the next
        early = sound[row : row + 1, : (row + 1) * FRAME]
        codes = mimi.encode_step(early, together, torch.tensor([slot]))
        mimi.decode_step(codes, spoken, torch.tensor([slot]))
    for step in range(6):
        pcm = torch.stack(
            [sound[row, (row + 1 + step) * FRAME :][:FRAME] for row in range(len(order))]
        )
        latents = mimi.latents_step(pcm, together, slots)
        voices = mimi.decode_step(mimi.codes.encode(latents), spoken, slots)
    for row in range(len(order)):
        heard, said = mimi.init_encoder_state(1), mimi.init_decoder_state(1)
        for frame in frames(sound[row : row + 1, : (row + 7) * FRAME]):
            alone = mimi.latents_step(frame, heard)
            voice = mimi.decode_step(mimi.codes.encode(alone), said)
        torch.testing.assert_close(latents[row : row + 1], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(voices[row : row + 1], voice, atol=1e-5, rtol=0)


def test_other_slots_are_untouched(mimi: Mimi, sound: Tensor) -> None:
    """A call changes the state of its slots only, bit for bit."""
    state = mimi.init_encoder_state(3)
    encode_stream(mimi, sound, state)
    before = [t.clone() for t in slot_tensors(state, 1)]
    mimi.encode_step(sound[:2, :FRAME], state, torch.tensor([2, 0]))
    state.reset(0)
    after = slot_tensors(state, 1)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_masked_row_goes_on_as_if_it_had_not_been_called(mimi: Mimi, sound: Tensor) -> None:
    """Whatever audio a row that is not active carries, at any age."""
    codes = mimi.encode(sound)
    encoder, decoder = mimi.init_encoder_state(2), mimi.init_decoder_state(2)
    alone, spoken = mimi.init_encoder_state(1), mimi.init_decoder_state(1)
    for frame, pcm in enumerate(frames(sound[:2])):
        step = codes[:2, frame : frame + 1]
        expected = mimi.latents_step(pcm[:1], alone), mimi.decode_step(step[:1], spoken)
        got = mimi.latents_step(pcm, encoder), mimi.decode_step(step, decoder)
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours[:1], theirs, atol=1e-5, rtol=0)
        wait = torch.tensor([False, True])
        mimi.encode_step(torch.full_like(pcm, 0.9), encoder, active=wait)
        mimi.decode_step(step, decoder, active=wait)


def test_reset_makes_a_slot_new(mimi: Mimi, sound: Tensor) -> None:
    """A stream after a reset is a first stream, also after one that was out of range."""
    state = mimi.init_encoder_state(1)
    first = encode_stream(mimi, sound[:1], state)
    mimi.encode_step(torch.full((1, FRAME), float("nan")), state)
    state.reset(0)
    assert torch.equal(encode_stream(mimi, sound[:1], state), first)


def test_memory_does_not_grow(mimi: Mimi, sound: Tensor) -> None:
    """A stream's state is what it was at its start, and what is said of it."""
    encoder, decoder = mimi.init_encoder_state(2), mimi.init_decoder_state(2)
    before = encoder.num_bytes + decoder.num_bytes
    for frame in frames(sound[:2]):
        mimi.decode_step(mimi.encode_step(frame, encoder), decoder)
    assert encoder.num_bytes + decoder.num_bytes == before == 2 * session_bytes(TINY)


def test_a_stream_of_the_published_codec_takes_as_much_as_kyutais() -> None:
    """16.5 MB for both directions, nearly all of it keys and values."""
    assert session_bytes(MimiConfig()) == pytest.approx(16.48e6, rel=0.01)


def test_a_latent_depends_on_nothing_later(mimi: Mimi, sound: Tensor) -> None:
    """What comes after four frames changes no latent of them, and those that follow."""
    other = sound.clone()
    other[:, 4 * FRAME :] = -other[:, 4 * FRAME :]
    before, after = mimi.latents(sound), mimi.latents(other)
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=1e-6, rtol=0)
    assert (after[:, 4] - before[:, 4]).abs().max() > 1e-3


def test_audio_depends_on_no_later_codes(mimi: Mimi) -> None:
    """A frame's audio is final when its codes are there: there is no look-ahead."""
    codes = torch.randint(16, (1, 6, 4))
    other = codes.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 16
    end = 4 * FRAME
    before, after = mimi.decode(codes), mimi.decode(other)
    torch.testing.assert_close(after[:, :end], before[:, :end], atol=1e-6, rtol=0)
    assert (after[:, end : end + FRAME] - before[:, end : end + FRAME]).abs().max() > 1e-3
    assert mimi.lookahead_samples == 0


def test_fewer_codebooks_can_be_decoded(mimi: Mimi) -> None:
    """Codes that are left out add nothing."""
    codes = torch.randint(16, (1, 3, 4))
    semantic_only = mimi.decode(codes[..., :1])
    assert semantic_only.shape == (1, 3 * FRAME)
    assert not torch.allclose(semantic_only, mimi.decode(codes))


@pytest.mark.parametrize("shape", [(1, FRAME + 1), (1, 0), (FRAME,)], ids=str)
def test_only_whole_frames_are_streamed(mimi: Mimi, shape: tuple[int, ...]) -> None:
    """Audio of another length is refused."""
    with pytest.raises(ValueError, match="a multiple of 1920"):
        mimi.encode_step(torch.zeros(shape), mimi.init_encoder_state(1))


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 2, 0), (2, 4)], ids=str)
def test_codes_of_another_codec_are_refused(mimi: Mimi, shape: tuple[int, ...]) -> None:
    """More codebooks than there are, or none."""
    with pytest.raises(ValueError, match="1 to 4"):
        mimi.decode(torch.zeros(shape, dtype=torch.int64))


def test_rates_are_those_that_are_published() -> None:
    """80 ms a frame."""
    config = MimiConfig()
    assert (config.frame_samples, config.sample_rate_hz) == (1920, 24_000)
