"""Kokoro's generator, the costly part of the network, in int8 with the CPU's own instructions.

Nine tenths of Kokoro's arithmetic is in 48 convolutions that turn 80 rows a second into 4,800.
onnxruntime unrolls each of them into a matrix many times as large as its input, and goes over all
data once for each of the small operations between two of them. Here oneDNN convolves directly
(VNNI), and the operations between two convolutions are done in pieces that stay in the cache.

It computes what the ONNX graph says, with the same 8-bit weights and the same way to round what
goes into a convolution: a scale and a zero point for each input, found from its least and greatest
value. The rest of the graph stays with onnxruntime: `split` cuts it.

Arrays lie row by row, one row for each point in time: float32 [rows, channels].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_GRAPH = "/decoder/decoder/generator/"
GENERATOR_INPUTS = (_GRAPH + "LeakyRelu_output_0", _GRAPH + "Squeeze_output_0")
"""Values of the ONNX graph that `Generator` takes: the voice at 80 rows a second, and the
oscillation of its vocal cords at 24 kHz."""

_WEIGHTS = "decoder.decoder.generator."
_BLOCKS = (
    "noise_res.0",
    "resblocks.0",
    "resblocks.1",
    "resblocks.2",
    "noise_res.1",
    "resblocks.3",
    "resblocks.4",
    "resblocks.5",
)
_DILATIONS = (1, 3, 5)
_QUANTISED = ("ConvInteger", "MatMulInteger")
_PARTS = ("weight", "zero_point", "scale")
_EPSILON = 1e-5
_STYLE = 128  # the first half of a style is the decoder's
_HOP = 5  # samples between two frames of the inverse Fourier transform
_FRAME = 20  # samples of a frame
_BINS = _FRAME // 2 + 1
_PIECE = 1 << 17  # values that are worked on at a time: 512 kB, half of a core's second cache


def split(model: Any, keep: tuple[str, ...]) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Cut Kokoro's graph before its generator.

    Args:
        model: an `onnx.ModelProto`.
        keep: other values that the first part is to return.

    Returns:
        The model up to the generator, whose outputs are `keep` and `GENERATOR_INPUTS`; and the
        weights of the generator by name.
    """
    import onnx  # noqa: PLC0415 - only the first run of all needs it

    graph = model.graph
    outputs = (*keep, *GENERATOR_INPUTS)
    wanted = set(outputs)
    nodes = []
    for node in reversed(graph.node):  # they are sorted: a node stands before those that need it
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    front = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes[::-1],
            "front",
            list(graph.input),
            [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs],
            [tensor for tensor in graph.initializer if tensor.name in wanted],
        ),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    return front, _weights(graph.node, stored)


def _weights(nodes: Iterable[Any], stored: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Give the generator's weights names that say where they belong, and no more.

    Args:
        nodes: of the graph.
        stored: its constants.
    """
    found = {
        "window": stored[_GRAPH + "Constant_17_output_0"],
        "ups.0.weight": stored[_GRAPH + "Mul_output_0"],
        "ups.1.weight": stored[_GRAPH + "Mul_1_output_0"],
        "conv_post.weight": stored[_GRAPH + "Mul_2_output_0"],
        "basis": stored[_WEIGHTS + "stft.istft.stft.inverse_basis"],
    }
    # Biases and the activations' alphas have names in the graph.
    for name, value in stored.items():
        if name.startswith(_WEIGHTS) and (name.endswith(".bias") or ".alpha" in name):
            found[name.removeprefix(_WEIGHTS).replace(".fc.", ".")] = value
    # The weights in 8 bits are found by the nodes that use them: a zero point may belong to
    # several.
    for node in nodes:
        if not node.name.startswith(_GRAPH) or node.op_type not in _QUANTISED:
            continue
        name = node.name.removeprefix(_GRAPH).replace("/fc/", "/").split("/")[:-1]
        weight = node.input[1]
        parts = stored[weight], stored[node.input[3]], stored[_scale_of(weight)]
        key = ".".join(name)
        if ".convs" in key:
            found.update(zip((f"{key}.{part}" for part in _PARTS), parts, strict=True))
        else:
            levels, zero_point, scale = (part.astype(np.float32) for part in parts)
            found[f"{key}.weight"] = (levels - zero_point) * scale
    return {name: np.array(value) for name, value in found.items()}


def _scale_of(weight: str) -> str:
    return weight.removesuffix("_quantized") + "_scale"


def _piece(num_rows: int, width: int) -> int:
    """Return of how many rows the pieces are in which so many rows are worked on.

    oneDNN compiles a convolution anew for each length that it meets, so there are few lengths, and
    no last piece that is hardly filled.
    """
    step = _PIECE // width
    # A worked example: 1,300 rows in pieces of at most 512 are three. A third of them is 434,
    # rounded up to a multiple of 32 is 448.
    count = -(-num_rows // step)
    grain = step // 16
    return -(-num_rows // (count * grain)) * grain


@dataclass(slots=True)
class _Moments:
    """Sums over all rows, of each channel and of its square: float64 [channels]."""

    total: Tensor
    squares: Tensor

    @classmethod
    def none(cls, width: int) -> _Moments:
        return cls(*torch.zeros(2, width, dtype=torch.float64).unbind())

    @classmethod
    def of(cls, pieces: Iterable[Tensor], width: int) -> _Moments:
        found = cls.none(width)
        for piece in pieces:
            found.add(piece)
        return found

    def add(self, rows: Tensor) -> None:
        self.total += rows.sum(0)
        self.squares += (rows * rows).sum(0)

    def normal(self, num_rows: int) -> tuple[Tensor, Tensor]:
        """Return the factor and the addend that give each channel mean 0 and variance 1."""
        mean = self.total / num_rows
        variance = (self.squares / num_rows - mean * mean).clamp_min_(0.0)
        factor = (variance + _EPSILON).rsqrt_()
        return factor.float(), (-mean * factor).float()


class QuantisedConvolution:
    """A convolution along the rows that keeps their number, with 8-bit weights and inputs.

    Args:
        weight: uint8 [channels out, channels in, taps], taps odd.
        zero_point: the weight that means 0.
        scale: what one step of a weight is worth.
        bias: float32 [channels out].
        dilation: rows from tap to tap.
    """

    def __init__(
        self,
        weight: NDArray[np.uint8],
        zero_point: int,
        scale: float,
        bias: NDArray[np.float32],
        dilation: int,
    ) -> None:
        steps = weight.astype(np.int16) - zero_point
        if np.abs(steps).max() > 127:
            raise ValueError(
                f"weights must lie within 127 steps of their zero point {zero_point}, "
                f"got {int(steps.min())} to {int(steps.max())}"
            )
        self.taps = weight.shape[2]
        self.dilation = dilation
        self.margin = (self.taps - 1) // 2 * dilation
        """Rows before and after the first and the last that the convolution reaches."""
        self._bias = torch.from_numpy(np.array(bias, np.float32))
        self._sums = torch.from_numpy(steps.sum((1, 2)) * np.float32(scale)).float()
        self._scales = torch.full((len(steps),), float(scale))
        self._zeros = torch.zeros(len(steps), dtype=torch.int64)
        self._packed = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(steps.astype(np.int8))[:, :, None],
            self._scales,
            1.0,
            0,
            [1, 1],
            [0, 0],
            [1, dilation],
            1,
            None,
        )

    def __call__(self, given: Quantised, num_rows: int) -> Iterator[Tensor]:
        """Give the convolution piece by piece: float32 [rows, channels out].

        Args:
            given: the input, with this convolution's margin around it.
            num_rows: of the input and of all pieces together.
        """
        # An input of q means (q - z) * s. oneDNN is told that z is 0, which is twice as fast, and
        # the bias takes z * s * (sum of the weights) off.
        # A worked example: weights 2 and 3, z = 10, s = 0.5. Inputs 14 and 12 mean 2 and 1, so
        # 2 * 2 + 3 * 1 = 7. Told z = 0 they mean 7 and 6: 2 * 7 + 3 * 6 = 32. And 10 * 0.5 * 5
        # is 25.
        bias = torch.sub(self._bias, self._sums, alpha=given.zero_point * given.scale)
        step = _piece(num_rows, len(bias))
        # All have the same length, so the last one may begin within the one before it.
        for start in range(0, num_rows, step):
            first = max(min(start, num_rows - step), 0)
            rows = given.rows[first : first + step + 2 * self.margin]
            made = torch.ops.onednn.qconv2d_pointwise(
                rows[None, None].permute(0, 3, 1, 2),
                given.scale,
                0,
                self._packed,
                self._scales,
                self._zeros,
                bias,
                [1, 1],
                [0, 0],
                [1, self.dilation],
                1,
                1.0,
                0,
                torch.float32,
                "none",
                [],
                "",
            )
            yield made.permute(0, 2, 3, 1)[0, 0, start - first : num_rows - first]


@dataclass(frozen=True, slots=True)
class Quantised:
    """Rows in 8 bits: uint8 [rows with margins, channels]; q means (q - zero_point) * scale."""

    rows: Tensor
    scale: float
    zero_point: int


def quantise(pieces: Sequence[Tensor], least: float, greatest: float, margin: int) -> Quantised:
    """Round rows to 8 bits, as the operator DynamicQuantizeLinear of ONNX says.

    Args:
        pieces: float32 [rows, channels] each.
        least: of all values.
        greatest: of all values.
        margin: rows of zeros to put before and after.
    """
    least, greatest = min(least, 0.0), max(greatest, 0.0)
    scale = (greatest - least) / 255 or 1.0
    zero_point = round(-least / scale)
    width = pieces[0].shape[1]
    num_rows = sum(map(len, pieces))
    # At least one piece, since all have the same length.
    missing = max(_piece(num_rows, width) - num_rows, 0)
    before, after = (
        torch.full((rows, width), zero_point, dtype=torch.uint8)
        for rows in (margin, margin + missing)
    )
    rounded = []
    for piece in pieces:
        steps = torch.quantize_per_tensor(piece, scale, zero_point, torch.quint8)
        # The bytes themselves; `int_repr` would copy them, five times as slow as the rounding.
        rounded.append(
            torch.empty(0, dtype=torch.uint8).set_(
                steps.untyped_storage(), 0, steps.shape, steps.stride()
            )
        )
    return Quantised(torch.cat([before, *rounded, after]), scale, zero_point)


def snake(
    pieces: Iterable[Tensor], factor: Tensor, addend: Tensor, alpha: Tensor, margin: int
) -> Quantised:
    """Return y + sin²(alpha y) / alpha, of y = factor * row + addend, in 8 bits.

    Args:
        pieces: float32 [rows, channels] each.
        factor: float32 [channels].
        addend: likewise.
        alpha: likewise.
        margin: rows of zeros to put before and after.
    """
    # sin² a is (1 - cos 2a) / 2, which saves a pass: the half goes into the addend, and the factor
    # before the cosine into its coefficients.
    weight = -0.5 / alpha
    phase, phase_at_0 = 2 * alpha * factor, 2 * alpha * addend
    addend = addend - weight
    made = []
    bounds: list[Tensor] = []
    for piece in pieces:
        wave = torch.addcmul(phase_at_0, piece, phase)
        # numpy's cosine of float32 is more than twice as fast as torch's.
        array = wave.numpy()
        np.cos(array, out=array)
        wave.mul_(weight).add_(addend).addcmul_(piece, factor)
        bounds += torch.aminmax(wave)
        made.append(wave)
    least, greatest = torch.stack(bounds).aminmax()
    return quantise(made, float(least), float(greatest), margin)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Normalise, activate, convolve; `row` says where its norm's coefficients begin."""

    row: int
    alpha: Tensor
    convolve: QuantisedConvolution


class Generator:
    """Kokoro's generator.

    Args:
        weights: what `split` returned.
    """

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self._blocks: dict[str, list[_Layer]] = {}
        norms: list[NDArray[np.float32]] = []
        biases: list[NDArray[np.float32]] = []
        row = 0
        for block in _BLOCKS:
            layers = []
            for i, dilation in enumerate(_DILATIONS):
                for kind, reach in (("1", dilation), ("2", 1)):
                    norm = f"{block}.adain{kind}.{i}"
                    conv = f"{block}.convs{kind}.{i}"
                    convolve = QuantisedConvolution(
                        weights[f"{conv}.weight"],
                        int(weights[f"{conv}.zero_point"]),
                        float(weights[f"{conv}.scale"]),
                        weights[f"{conv}.bias"],
                        reach,
                    )
                    alpha = np.ravel(weights[f"{block}.alpha{kind}.{i}"])
                    layers.append(_Layer(row, torch.from_numpy(alpha.copy()), convolve))
                    norms.append(weights[f"{norm}.weight"].astype(np.float32))
                    biases.append(weights[f"{norm}.bias"])
                    row += norms[-1].shape[1]
            self._blocks[block] = layers
        self._norms = torch.from_numpy(np.concatenate(norms, 1))
        self._norm_biases = torch.from_numpy(np.concatenate(biases))
        self._window = torch.from_numpy(weights["window"].copy())
        # As a product of matrices: twelve frames of 22 numbers side by side, 256 channels.
        self._source = _matrix(weights["noise_convs.0.weight"])
        self._source_bias = torch.from_numpy(weights["noise_convs.0.bias"].copy())
        self._fine_source = _matrix(weights["noise_convs.1.weight"])
        self._fine_source_bias = torch.from_numpy(weights["noise_convs.1.bias"].copy())
        self._ups, self._fine_ups = (
            Upsample(
                weights[f"ups.{i}.weight"], weights[f"ups.{i}.bias"], stride=stride, cut=stride // 2
            )
            for i, stride in enumerate((10, 6))
        )
        self._post = torch.from_numpy(weights["conv_post.weight"].copy())[:, :, None]
        self._post_bias = torch.from_numpy(weights["conv_post.bias"].copy())
        # The graph multiplies by the number of frames that overlap.
        basis = weights["basis"] * np.float32(_FRAME // _HOP)
        self._basis = Upsample(basis, None, stride=_HOP, cut=_FRAME // 2)

    @torch.inference_mode()
    def __call__(
        self,
        voiced: NDArray[np.float32],
        oscillation: NDArray[np.float32],
        style: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return audio at 24 kHz: float32 [300 * rows].

        Args:
            voiced: the first of `GENERATOR_INPUTS`: [1, 512, rows].
            oscillation: the second: [1, 300 * rows].
            style: [1, 256].
        """
        coefficients = (
            torch.from_numpy(style[:, :_STYLE]) @ self._norms + self._norm_biases
        ).ravel()
        frames = self._frames(torch.from_numpy(oscillation))
        rows = self._ups(torch.from_numpy(voiced[0]).T.contiguous())
        around = torch.nn.functional.pad(frames, (0, 0, 3, 3))
        twelve = around.unfold(0, 12, 6).flatten(1)
        source = torch.addmm(self._source_bias, twelve, self._source)
        rows += self._residual(source, "noise_res.0", coefficients)
        rows = self._mean(rows, ("resblocks.0", "resblocks.1", "resblocks.2"), coefficients)
        grown = self._fine_ups(torch.nn.functional.leaky_relu_(rows, 0.1))
        # One row more, before the first, as a mirror at the first has it.
        rows = torch.cat([grown[1:2], grown])
        source = torch.addmm(self._fine_source_bias, frames, self._fine_source)
        rows += self._residual(source, "noise_res.1", coefficients)
        rows = self._mean(rows, ("resblocks.3", "resblocks.4", "resblocks.5"), coefficients)
        torch.nn.functional.leaky_relu_(rows, 0.01)
        bins = torch.nn.functional.conv2d(
            rows[None, None].permute(0, 3, 1, 2), self._post, self._post_bias, padding=(0, 3)
        )
        bins = bins.permute(0, 2, 3, 1)[0, 0]
        size, phase = bins[:, :_BINS].exp(), bins[:, _BINS:].sin()
        spectrum = torch.cat([size * phase.cos(), size * phase.sin()], 1)
        return self._basis(spectrum).ravel().numpy()

    def _frames(self, oscillation: Tensor) -> Tensor:
        """Return sizes and phases of each frame's Fourier transform: [300 * rows / 5 + 1, 22]."""
        half = _FRAME // 2
        around = torch.nn.functional.pad(oscillation, (half, half), mode="reflect")[0]
        spectrum = torch.fft.rfft(around.unfold(0, _FRAME, _HOP) * self._window)
        return torch.cat([spectrum.abs(), spectrum.angle()], 1)

    def _mean(self, rows: Tensor, blocks: tuple[str, ...], coefficients: Tensor) -> Tensor:
        total = torch.zeros_like(rows)
        for block in blocks:
            total += self._residual(rows.clone(), block, coefficients)
        return total.div_(len(blocks))

    def _residual(self, rows: Tensor, block: str, coefficients: Tensor) -> Tensor:
        """Return the rows after a block, in place: three times x + f(x)."""
        num_rows, width = rows.shape
        pieces = torch.split(rows, _piece(num_rows, width))
        moments = _Moments.of(pieces, width)

        def layer_of(layer: _Layer, given: Iterable[Tensor]) -> Iterator[Tensor]:
            both = coefficients[layer.row : layer.row + 2 * width]
            gain, shift = torch.split(both, width)
            factor, addend = moments.normal(num_rows)
            gain = gain + 1.0
            ready = snake(
                given, gain * factor, gain * addend + shift, layer.alpha, layer.convolve.margin
            )
            return layer.convolve(ready, num_rows)

        layers = iter(self._blocks[block])
        for first, second in zip(layers, layers, strict=True):
            inner = [*layer_of(first, pieces)]
            moments = _Moments.of(inner, width)
            made = layer_of(second, inner)
            moments = _Moments.none(width)
            for piece, more in zip(pieces, made, strict=True):
                moments.add(piece.add_(more))
        return rows


def _matrix(weight: NDArray[np.float32]) -> Tensor:
    """Turn weights [channels out, channels in, taps] to [channels in * taps, channels out]."""
    return torch.from_numpy(weight.reshape(len(weight), -1).T.copy())


class Upsample:
    """A convolution that makes `stride` rows of one, by a product of matrices.

    Args:
        weight: [channels in, channels out, taps].
        bias: [channels out].
        stride: divides taps.
        cut: rows of the result that are left out, at each end.
    """

    def __init__(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        stride: int,
        cut: int,
    ) -> None:
        parts = np.split(weight.transpose(0, 2, 1), weight.shape[2] // stride, axis=1)
        self._parts = [torch.from_numpy(part.reshape(len(part), -1).copy()) for part in parts]
        self._bias = None if bias is None else torch.from_numpy(bias.copy())
        self._width = weight.shape[1]
        self._cut = cut

    def __call__(self, rows: Tensor) -> Tensor:
        """Return float32 [stride * rows + taps - stride - 2 * cut, channels out]."""
        # A worked example with two times two taps a b c d and rows x y, one channel each: x gives
        # xa xb xc xd, and y the same two places later. So the result, two places at a time, is x
        # times ab, y times ab plus x times cd, y times cd.
        made = torch.zeros(len(rows) + len(self._parts) - 1, self._parts[0].shape[1])
        for later, part in enumerate(self._parts):
            made[later : later + len(rows)].addmm_(rows, part)
        made = made.view(-1, self._width)[self._cut : -self._cut]
        return made if self._bias is None else made.add_(self._bias)
