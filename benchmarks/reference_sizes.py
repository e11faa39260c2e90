"""Sizes of the models that are timed against Kyutai's own package, as published files say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.kyutai.config import MOSHI_7B

Values = Mapping[str, Any]  # Any: parsed JSON

# What every model of the family has in common, in the words of its `config.json`.
# No size is in it: what is the same for 82 million parameters and for 7 billion.
_LM: Values = {
    "causal": True,
    "layer_scale": None,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "depformer_multi_linear": True,
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
    "model_type": "moshi",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """A language model and a codec.

    Attributes:
        lm: a `config.json`.
        mimi: the same of Mimi.
    """

    lm: Values
    mimi: Values


def mimi(*, filters: int, dim: int, num_layers: int, window: int, bins: int) -> Values:
    """Return a Mimi of 8 codebooks, whose other sizes follow from these."""
    # The strides are 8 · 6 · 5 · 4 · 2 = 1,920 samples: 24,000 Hz become 12.5 frames a second.
    return {
        "sample_rate": 24_000, "channels": 1, "frame_rate": 12.5,
        "seanet": {
            "channels": 1, "dimension": dim, "causal": True, "n_filters": filters,
            "n_residual_layers": 1, "activation": "ELU", "compress": 2, "dilation_base": 2,
            "disable_norm_outer_blocks": 0, "kernel_size": 7, "residual_kernel_size": 3,
            "last_kernel_size": 3, "norm": "none", "pad_mode": "constant",
            "ratios": [8, 6, 5, 4], "true_skip": True,
        },
        "quantizer": {
            "dimension": dim // 2, "n_q": 8, "bins": bins, "input_dimension": dim,
            "output_dimension": dim,
        },
        "transformer": {
            "d_model": dim, "num_heads": dim // 64, "num_layers": num_layers, "causal": True,
            "layer_scale": 0.01, "context": window, "conv_layout": True, "max_period": 10_000,
            "gating": "none", "norm": "layer_norm", "positional_embedding": "rope",
            "dim_feedforward": 4 * dim, "input_dimension": dim, "output_dimensions": [dim],
        },
    }  # fmt: skip


def moshi(**changes: int) -> Values:
    """Return a language model of Moshi's shape, 8 codebooks heard and 8 made, with other sizes."""
    return {**_LM, **MOSHI_7B, **changes}


# For a CPU: 82 million parameters, and a window of 6 s that a benchmark can fill; Mimi as it is.
MID = Sizes(
    lm=moshi(
        dim=512, num_heads=8, num_layers=8, context=75, text_card=4000, depformer_dim=256,
        depformer_num_heads=4, depformer_num_layers=4, depformer_dim_feedforward=1056,
    ),
    mimi=mimi(filters=64, dim=512, num_layers=8, window=250, bins=2048),
)  # fmt: skip
# To see that it all runs.
TINY = Sizes(
    lm=moshi(
        dim=64, num_heads=4, num_layers=2, context=12, text_card=40, depformer_dim=32,
        depformer_num_heads=2, depformer_num_layers=2, depformer_dim_feedforward=132, card=64,
    ),
    mimi=mimi(filters=2, dim=64, num_layers=2, window=12, bins=64),
)  # fmt: skip
# For a GPU.
SEVEN_B = Sizes(lm=moshi(), mimi=MID.mimi)
