"""The tensors of `LM`, read one at a time from a published file or from one that is quantised.

A quantised file, as `model.kyutai.quantize` writes it, holds our own tensors. Those of the linears
that a step spends its time in are in NF4, under the keys that bitsandbytes has for them,

    W                                     uint8 [size / 2, 1]     two levels a byte
    W.absmax                              float32 [size / 64]     the scale of each block
    W.quant_map                           float32 [16]            the levels
    W.quant_state.bitsandbytes__nf4       uint8                   JSON: what is above, shape, type

and all others are as they were.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kernels.arithmetic import ceil_div
from kernels.nf4 import dequantize_nf4, quantize_nf4
from model.errors import WeightsError
from model.files.published import TensorFile
from model.kyutai.config import KyutaiConfig
from model.kyutai.layouts import PublishedWeights
from model.kyutai.names import sources
from model.transformer.linears import hot_linears
from model.transformer.lm import LM

FORMAT_KEY, FORMAT = "parley", "1"  # in the header of a quantised file
BLOCK_SIZE = 64
STATE = "quant_state.bitsandbytes__nf4"

# As many numbers as are quantised at once: whole blocks and whole bytes, so that it is the same as
# all at once, and the working memory does not grow with the tensor.
_PART = 1 << 18


class Weights(Protocol):
    """Where the tensors of a language model come from."""

    @property
    def names(self) -> Iterable[str]:
        """Names of our tensors, in the order in which they are read with the least effort."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a tensor, float32."""
        ...

    def read_nf4(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a weight in NF4: uint8 [ceil(size / 2)], float32 [ceil(size / 64)]."""
        ...

    def dtype(self, name: str) -> str:
        """Return the type that a tensor is stored in, as a header calls it."""
        ...


def open_weights(file: TensorFile, config: KyutaiConfig) -> Weights:
    """Find out what a file holds, and check all names, shapes and types; nothing is read.

    Raises:
        WeightsError: naming the tensor that is missing, left over, or has another shape or type
            (got and expected).
    """
    if FORMAT_KEY in file.metadata:
        return _Quantised(file, config)
    return _Converted(PublishedWeights(file, config))


def skeleton(config: KyutaiConfig, rewind_steps: int = 0) -> LM:
    """Return the model without memory for its weights; what is no weight it has."""
    with torch.device("meta"), _NoDraws():
        return LM(config.lm(rewind_steps))


class _NoDraws(TorchFunctionMode):
    """Draw no first weights: without memory there is nothing to draw, yet it would take seconds.

    To say what a draw or a range would be like, PyTorch loads a good part of its compiler. Ranges
    are what the rotary frequencies are made of, which no file holds: those are worked out.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.arange:
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise to NF4 part by part; as `kernels.nf4.quantize_nf4`."""
    parts = [quantize_nf4(part) for part in torch.split(weight.reshape(-1), _PART)]
    return torch.cat([packed for packed, _ in parts]), torch.cat([absmax for _, absmax in parts])


@functools.cache
def levels() -> Tensor:
    """Return the 16 levels, float32 [16]; only to be read."""
    every = torch.arange(0, 16, 2, dtype=torch.uint8)
    return dequantize_nf4((every << 4) | (every + 1), torch.ones(1), (16,))


class _Converted:
    """Our tensors, made of published ones."""

    def __init__(self, published: PublishedWeights) -> None:
        self._published = published
        self._sources = sources(published.config)

    @property
    def names(self) -> Iterable[str]:
        return self._sources

    def read(self, name: str) -> Tensor:
        source = self._sources[name]
        return source.convert(*map(self._published.read, source.tensors))

    def read_nf4(self, name: str) -> tuple[Tensor, Tensor]:
        try:
            return quantize(self.read(name))
        except ValueError as error:
            path = self._published.file.path
            raise WeightsError(f"{path}: {name}: cannot be in NF4 ({error})") from error

    def dtype(self, name: str) -> str:
        types = set(map(self._published.dtype, self._sources[name].tensors))
        return types.pop() if len(types) == 1 else "F32"


class _Quantised:
    """Our tensors, as they are in a quantised file."""

    def __init__(self, file: TensorFile, config: KyutaiConfig) -> None:
        if file.metadata[FORMAT_KEY] != FORMAT:
            raise WeightsError(
                f"{file.path}: expected format {FORMAT}, got {file.metadata[FORMAT_KEY]!r}"
            )
        self._file = file
        lm = skeleton(config)
        hot = {f"{name}.weight" for name in hot_linears(lm)}
        self._shapes = {n: tuple(t.shape) for n, t in lm.state_dict().items() if t.numel()}
        self._packed = {name for name in self._shapes if name in hot}
        expected: set[str] = set()
        for name, shape in self._shapes.items():
            if name in self._packed:
                expected |= self._check_packed(name, shape)
            else:
                file.check(name, shape)
                expected.add(name)
        if extra := sorted(file.shapes.keys() - expected):
            raise WeightsError(f"{file.path}: {extra[0]}: not part of this model")

    @property
    def names(self) -> Iterable[str]:
        return self._shapes

    def read(self, name: str) -> Tensor:
        if name in self._packed:
            return dequantize_nf4(*self.read_nf4(name), self._shapes[name])
        return self._file.read(name, self._shapes[name])

    def read_nf4(self, name: str) -> tuple[Tensor, Tensor]:
        file, parts = self._file, packed_shapes(self._shapes[name])
        self._check_state(name)
        packed = file.read_raw(name, parts[""], "U8").flatten()
        return packed, file.read_raw(f"{name}.absmax", parts["absmax"], "F32")

    def dtype(self, name: str) -> str:
        return self._file.dtypes[name]

    def _check_packed(self, name: str, shape: tuple[int, ...]) -> set[str]:
        parts = packed_shapes(shape)
        self._file.check(name, parts[""], "U8")
        self._file.check(f"{name}.absmax", parts["absmax"], "F32")
        self._file.check(f"{name}.quant_map", parts["quant_map"], "F32")
        state = f"{name}.{STATE}"
        self._file.check(state, self._file.shapes.get(state, (1,)), "U8")
        return {name, f"{name}.absmax", f"{name}.quant_map", state}

    def _check_state(self, name: str) -> None:
        """Refuse what is packed in another way, though it has the same sizes."""
        file, state = self._file, f"{name}.{STATE}"
        raw = bytes(file.read_raw(state, file.shapes[state], "U8").tolist())
        try:
            values: dict[str, Any] = json.loads(raw)
            got = [values[key] for key in ("quant_type", "blocksize", "shape")]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{file.path}: {state}: not what bitsandbytes writes") from error
        expected = ["nf4", BLOCK_SIZE, list(self._shapes[name])]
        if got != expected:
            raise WeightsError(f"{file.path}: {state}: expected {expected}, got {got}")
        if not torch.equal(file.read_raw(f"{name}.quant_map", (16,), "F32"), levels()):
            raise WeightsError(f"{file.path}: {name}.quant_map: expected the levels of NF4")


def packed_shapes(shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a weight in NF4 is stored as, its state apart."""
    size = math.prod(shape)
    return {"": (ceil_div(size, 2), 1), "absmax": (ceil_div(size, BLOCK_SIZE),), "quant_map": (16,)}


def packed_state(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return what bitsandbytes keeps beside a weight in NF4, uint8."""
    values = {
        "quant_type": "nf4",
        "blocksize": BLOCK_SIZE,
        "dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype],
        "shape": list(shape),
    }
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
