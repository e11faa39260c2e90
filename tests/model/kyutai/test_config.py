"""A published configuration is read strictly, and names everything that the program needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from model.kyutai.config import MOSHI_7B, KyutaiConfig, gated_width


def read(golden: Path, case: str, **changes: Any) -> KyutaiConfig:
    """Read a golden case's configuration with some keys changed."""
    values = json.loads((golden / f"{case}.json").read_text())
    return KyutaiConfig.from_dict(values | changes)


def test_moshi_needs_no_file() -> None:
    """Kyutai publishes it without a configuration."""
    config = KyutaiConfig.from_dict({})
    assert (config.kind, config.num_codebooks, config.num_generated) == ("moshi", 16, 8)
    assert (config.backbone.ff_dim, config.backbone.head_dim) == (11_264, 128)
    assert config.depth is not None
    assert (config.depth.ff_dim, config.depth.context) == (2816, 8)
    assert config.num_mimi_codebooks == 8


def test_personaplex_only_says_what_it_is() -> None:
    """NVIDIA's file has two keys; the model also makes the user's codes."""
    config = KyutaiConfig.from_dict({"model_type": "personaplex", "version": "7b-v1"})
    assert (config.kind, config.num_generated, config.num_depth_sets) == ("personaplex", 16, 16)
    assert config.backbone == KyutaiConfig.from_dict({}).backbone


def test_hibiki(golden: Path) -> None:
    """A schedule of weight sets, low-rank embeddings, and a condition that is summed."""
    config = read(golden, "hibiki")
    assert (config.depth_sets, config.num_depth_sets, config.depth_rank) == ((0, 1, 1), 2, 8)
    condition = config.conditioners["description"]
    assert (condition.how, condition.num_rows, condition.values[3]) == ("sum", 32, "good")
    assert not config.has_cross_attention


def test_hibiki_zero(golden: Path) -> None:
    """Halves rotate, keys are shared, and the depth MLP's width follows the backbone's scale."""
    config = read(golden, "hibiki_zero")
    assert (config.backbone.rope, config.backbone.num_kv_heads) == ("halves", 2)
    assert config.has_depth_norms
    assert config.depth is not None
    assert config.depth.ff_dim == 64


def test_speech_to_text(golden: Path) -> None:
    """No depth transformer; more heads; delays for the program around it."""
    config = read(golden, "stt")
    assert (config.depth, config.num_depth_sets, config.num_extra_heads) == (None, 0, 2)
    assert config.options["stt_config"]["audio_delay_seconds"] == 0.5
    assert config.num_mimi_codebooks == 6


def test_text_to_speech(golden: Path) -> None:
    """Two texts in one token, and voices that are attended to."""
    config = read(golden, "tts")
    assert config.has_two_texts
    assert config.has_cross_attention
    assert config.cross_position_scale == 1.0
    assert config.conditioners["speaker_wavs"].num_rows == 0


def test_files_are_those_that_are_named(golden: Path) -> None:
    """As far as the configuration names them."""
    config = read(golden, "hibiki", moshi_name="h.safetensors", tokenizer_name="t.model")
    assert config.files == {"lm": "h.safetensors", "tokenizer": "t.model"}


@pytest.mark.parametrize(("ff", "width"), [(16_896, 11_264), (16_384, 10_752), (100, 66)])
def test_width_of_the_gated_mlp(ff: int, width: int) -> None:
    """Two thirds, except for four times the width of the model."""
    assert gated_width(4096, ff) == width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detph": 3}, "unknown keys .* detph"),
        ({"norm": "layer_norm"}, "norm: expected one of .* got 'layer_norm'"),
        ({"gating": "gelu"}, "gating"),
        ({"positional_embedding": "sin"}, "positional_embedding"),
        ({"lora": True}, "lora"),
        ({"model_type": "csm"}, "model_type: expected one of moshi"),
        ({"delays": [0, 1]}, "expected 7 delays"),
        ({"depformer_weights_per_step_schedule": [0]}, "a weight set for each of 3"),
        ({"dim": "wide"}, "not a model configuration"),
        ({"fuser": {"sum": [], "cross": []}}, "expected description to be either"),
        ({"cross_attention": True}, "cross_attention: expected False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_known_is_refused(golden: Path, changes: dict[str, Any], message: str) -> None:
    """By its key."""
    with pytest.raises(ConfigError, match=message):
        read(golden, "hibiki", **changes)


def test_a_size_that_is_missing_is_named() -> None:
    """Half a configuration is not completed from another model's."""
    values = {key: value for key, value in MOSHI_7B.items() if key != "context"}
    with pytest.raises(ConfigError, match="context"):
        KyutaiConfig.from_dict(values)
