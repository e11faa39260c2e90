"""Sizes of Mimi, read from any of the forms in which they are published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MimiConfig:
    """Sizes of Mimi; the defaults are those of the published 24 kHz codec.

    Attributes:
        sample_rate_hz: of the mono audio.
        filters: channels at the audio's own rate; they double at every stage.
        ratios: by how much each decoder stage upsamples; the encoder goes through them backwards.
        kernel: of the first convolution, in samples.
        last_kernel: of the last convolution, in its own steps.
        residual_kernel: of the wider convolution in a residual block.
        dim: width of the latents and of both transformers.
        num_layers: layers of each transformer.
        num_heads: attention heads; `dim` is a multiple.
        ff_dim: hidden width of a layer's MLP.
        window: steps (of 40 ms) that a transformer step sees, itself included.
        rope_base: base of the rotary frequencies.
        frame_steps: transformer steps of one frame.
        codebook_size: entries of a codebook.
        codebook_dim: width of an entry.
        num_codebooks: codes of one frame: one semantic, then the acoustic ones.

    Source: Défossez et al. 2024, "Moshi", section 3.3.
    """

    sample_rate_hz: int = 24_000
    filters: int = 64
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    kernel: int = 7
    last_kernel: int = 3
    residual_kernel: int = 3
    dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    ff_dim: int = 2048
    window: int = 250  # 10 s
    rope_base: float = 10_000.0
    frame_steps: int = 2
    codebook_size: int = 2048
    codebook_dim: int = 256
    num_codebooks: int = 32

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ConfigError(
                f"Mimi: expected an even number of channels in each of {self.num_heads} heads, "
                f"got a width of {self.dim}"
            )
        if self.window < self.frame_steps or self.num_codebooks < 2:
            raise ConfigError(
                f"Mimi: expected a window of {self.frame_steps} steps or more and two codebooks or "
                f"more, got {self.window} and {self.num_codebooks}"
            )

    @property
    def frame_samples(self) -> int:
        """Samples of one frame: 1920, 80 ms, as published."""
        return math.prod(self.ratios) * self.frame_steps

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @classmethod
    def from_kyutai(cls, values: Mapping[str, Any]) -> MimiConfig:
        """Read the form of Kyutai's package: `seanet`, `quantizer`, `transformer`.

        Raises:
            ConfigError: naming a key that is missing, or a value that this codec does not have.
        """
        read = _Reader(values, "Mimi config")
        net = _Reader(read("seanet"), "Mimi config, seanet")
        quantizer = _Reader(read("quantizer"), "Mimi config, quantizer")
        transformer = _Reader(read("transformer"), "Mimi config, transformer")
        dim = net("dimension")
        read.require(channels=1)
        net.require(
            channels=1, causal=True, n_residual_layers=1, activation="ELU", compress=2,
            norm="none", pad_mode="constant", true_skip=True,
        )  # fmt: skip
        quantizer.require(input_dimension=dim, output_dimension=dim)
        transformer.require(
            d_model=dim, causal=True, gating="none", norm="layer_norm", positional_embedding="rope",
            input_dimension=dim, output_dimensions=[dim],
        )  # fmt: skip
        ratios = tuple(net("ratios"))
        steps_per_second = read("sample_rate") / math.prod(ratios)
        return cls(
            sample_rate_hz=read("sample_rate"),
            filters=net("n_filters"),
            ratios=ratios,
            kernel=net("kernel_size"),
            last_kernel=net("last_kernel_size"),
            residual_kernel=net("residual_kernel_size"),
            dim=dim,
            num_layers=transformer("num_layers"),
            num_heads=transformer("num_heads"),
            ff_dim=transformer("dim_feedforward"),
            window=transformer("context"),
            rope_base=float(transformer("max_period")),
            frame_steps=round(steps_per_second / read("frame_rate")),
            codebook_size=quantizer("bins"),
            codebook_dim=quantizer("dimension"),
            num_codebooks=quantizer("n_q"),
        )

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any]) -> MimiConfig:
        """Read `config.json` of a Hugging Face Mimi; what it leaves out is as published.

        Raises:
            ConfigError: naming a value that this codec does not have.
        """
        read = _Reader({**_TRANSFORMERS_DEFAULTS, **values}, "Mimi config")
        dim, heads = read("hidden_size"), read("num_attention_heads")
        read.require(
            audio_channels=1, num_residual_layers=1, use_causal_conv=True, pad_mode="constant",
            compress=2, trim_right_ratio=1.0, use_conv_shortcut=False, num_semantic_quantizers=1,
            num_key_value_heads=heads, hidden_act="gelu", norm_eps=1e-5, attention_bias=False,
            vector_quantization_hidden_dimension=read("codebook_dim"), upsample_groups=dim,
        )  # fmt: skip
        if values.get("head_dim") is not None:
            read.require(head_dim=dim // heads)
        # Older files give the base of the rotary frequencies by itself.
        rope = values.get("rope_parameters") or {"rope_theta": read("rope_theta")}
        return cls(
            sample_rate_hz=read("sampling_rate"),
            filters=read("num_filters"),
            ratios=tuple(read("upsampling_ratios")),
            kernel=read("kernel_size"),
            last_kernel=read("last_kernel_size"),
            residual_kernel=read("residual_kernel_size"),
            dim=dim,
            num_layers=read("num_hidden_layers"),
            num_heads=heads,
            ff_dim=read("intermediate_size"),
            window=read("sliding_window"),
            rope_base=float(rope["rope_theta"]),
            codebook_size=read("codebook_size"),
            codebook_dim=read("codebook_dim"),
            num_codebooks=read("num_quantizers"),
        )


# What `transformers.MimiConfig` assumes for a key that a file does not give.
_TRANSFORMERS_DEFAULTS: Mapping[str, Any] = {
    "sampling_rate": 24_000,
    "audio_channels": 1,
    "hidden_size": 512,
    "num_filters": 64,
    "num_residual_layers": 1,
    "upsampling_ratios": [8, 6, 5, 4],
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "compress": 2,
    "trim_right_ratio": 1.0,
    "codebook_size": 2048,
    "codebook_dim": 256,
    "num_quantizers": 32,
    "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 256,
    "num_semantic_quantizers": 1,
    "upsample_groups": 512,
    "num_hidden_layers": 8,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "attention_bias": False,
    "sliding_window": 250,
    "rope_theta": 10_000.0,
}


class _Reader:
    """Take values out of a published mapping, naming what is missing or not what it must be."""

    def __init__(self, values: Any, source: str) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: expected a mapping, got {type(values).__name__}")
        self._values: Mapping[str, Any] = values
        self._source = source

    def __call__(self, key: str) -> Any:
        if key not in self._values:
            raise ConfigError(f"{self._source}: {key} is missing")
        return self._values[key]

    def require(self, **expected: Any) -> None:
        """Refuse a key that has another value than the expected one."""
        for key, value in expected.items():
            got = self._values.get(key, value)
            if got != value:
                raise ConfigError(f"{self._source}: {key}: expected {value!r}, got {got!r}")
