"""Kokoro's generator: each of its operations against the plain one, the whole against the graph."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from model.training.speech import kokoro
from model.training.speech.kokoro import has_kokoro
from model.training.speech.kokoro_generator import (
    GENERATOR_INPUTS,
    Quantised,
    QuantisedConvolution,
    Upsample,
    quantise,
    snake,
)

needs_kokoro = pytest.mark.skipif(
    not has_kokoro(), reason="needs Kokoro's voices: parley train --stage voices"
)


def meant(given: Quantised) -> torch.Tensor:
    """Return what the 8 bits mean."""
    return (given.rows.float() - given.zero_point) * given.scale


@pytest.mark.parametrize("num_rows", [3, 1024, 1300, 2500])
@pytest.mark.parametrize(("taps", "dilation"), [(3, 1), (7, 3), (11, 5)])
def test_convolution_is_the_plain_one(num_rows: int, taps: int, dilation: int) -> None:
    """Of what the 8 bits mean, zeros before and after, for one piece and for several."""
    rng = np.random.default_rng(num_rows)
    weight = rng.integers(0, 128, (128, 16, taps), np.uint8)
    bias = rng.standard_normal(128).astype(np.float32)
    convolve = QuantisedConvolution(weight, 70, 0.02, bias, dilation)
    values = torch.from_numpy(rng.standard_normal((num_rows, 16), np.float32) + 0.5)
    low, high = (float(bound) for bound in values.aminmax())
    given = quantise([values], low, high, convolve.margin)
    # The pieces are those of the result, which is as wide as the input in Kokoro, and here is not.
    padding = torch.full((2048, 16), given.zero_point, dtype=torch.uint8)
    padded = Quantised(torch.cat([given.rows, padding]), given.scale, given.zero_point)
    got = torch.cat([*convolve(padded, num_rows)])
    expected = torch.nn.functional.conv1d(
        meant(given)[convolve.margin : convolve.margin + num_rows].T[None],
        torch.from_numpy((weight.astype(np.float32) - 70) * np.float32(0.02)),
        torch.from_numpy(bias),
        padding=convolve.margin,
        dilation=dilation,
    )[0].T
    assert got.shape == (num_rows, 128)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_more_than_8_bits_are_refused() -> None:
    """128 steps above the zero point do not fit."""
    weight = np.array([[[0, 10, 138]]], np.uint8)
    with pytest.raises(ValueError, match="zero point 10, got -10 to 128"):
        QuantisedConvolution(weight, 10, 1.0, np.zeros(1, np.float32), 1)


def test_rounding_to_8_bits() -> None:
    """A worked example of ONNX's DynamicQuantizeLinear, with zeros around."""
    values = torch.tensor([[0.0, 2.0], [-3.0, -2.4], [1.34, 0.4]])
    got = quantise([values[:2], values[2:]], -3.0, 2.0, 1)
    assert got.scale == pytest.approx(5 / 255)
    assert got.zero_point == 153
    assert got.rows[1:4].tolist() == [[153, 255], [0, 31], [221, 173]]
    assert set(got.rows[:1].ravel().tolist()) == {153}
    assert set(got.rows[4:].ravel().tolist()) == {153}
    # Zero has a number of its own even where all values are above it.
    assert quantise([values + 7.0], 4.0, 9.0, 0).zero_point == 0
    assert quantise([values * 0], 0.0, 0.0, 0).rows.max() == 0


def test_activation_is_the_plain_one() -> None:
    """Normalised, activated, in 8 bits."""
    rng = np.random.default_rng(5)
    rows, factor, addend = (
        torch.from_numpy(rng.standard_normal(shape, np.float32)) for shape in ((300, 8), 8, 8)
    )
    alpha = torch.from_numpy(rng.uniform(0.3, 2.0, 8).astype(np.float32))
    given = snake(rows.split(128), factor, addend, alpha, 2)
    y = factor * rows + addend
    expected = y + torch.sin(alpha * y) ** 2 / alpha
    assert float((meant(given)[2:302] - expected).abs().max()) < 0.51 * given.scale
    assert given.scale == pytest.approx(float(expected.max() - expected.min()) / 255, rel=1e-4)


@pytest.mark.parametrize(("taps", "stride", "cut"), [(12, 6, 3), (20, 5, 10)])
def test_upsampling_is_the_transposed_convolution(taps: int, stride: int, cut: int) -> None:
    """Two and four rows overlap."""
    rng = np.random.default_rng(taps)
    weight = rng.standard_normal((4, 3, taps), np.float32)
    bias = rng.standard_normal(3, np.float32)
    rows = torch.from_numpy(rng.standard_normal((9, 4), np.float32))
    got = Upsample(weight, bias, stride=stride, cut=cut)(rows)
    expected = torch.nn.functional.conv_transpose1d(
        rows.T[None], torch.from_numpy(weight), torch.from_numpy(bias), stride, cut
    )[0].T
    torch.testing.assert_close(got, expected)
    without = Upsample(weight, None, stride=stride, cut=cut)(rows)
    torch.testing.assert_close(without + torch.from_numpy(bias), expected)


def log_spectrum(audio: np.ndarray) -> torch.Tensor:
    """Return the spectrum in dB: [bins, frames], nothing below -60 dB of full scale."""
    window = torch.hann_window(600)
    spectrum = torch.stft(torch.from_numpy(audio), 600, 240, window=window, return_complex=True)
    return 20 * torch.log10(spectrum.abs() / 150).clamp_min(1e-3)


@needs_kokoro
def test_speech_is_the_graphs() -> None:
    """The two parts say what the whole graph says, sample for sample as long, and sound alike."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(kokoro._joined())
    durations = onnx.helper.make_tensor_value_info(kokoro._DURATIONS, onnx.TensorProto.FLOAT, None)
    model.graph.output.append(durations)
    whole = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    front, generator = kokoro._network()
    style = kokoro._style("af_heart")[5][None]
    tokens = np.array([[0, 62, 156, 86, 56, 4, 0]], np.int64)
    given = {"tokens": tokens, "style": style, "speed": np.ones(1, np.float32)}
    audio, steps = whole.run(["audio", kokoro._DURATIONS], given)
    same_steps, voiced, oscillation = front.run([kokoro._DURATIONS, *GENERATOR_INPUTS], given)
    assert np.array_equal(steps, same_steps)
    got = generator(voiced, oscillation, style)
    assert got.shape == (600 * int(steps.sum()),) == np.ravel(audio).shape
    difference = (log_spectrum(got) - log_spectrum(np.ravel(audio))).abs()
    assert float(difference.mean()) < 1.0
