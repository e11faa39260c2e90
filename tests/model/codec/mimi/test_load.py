"""Published files are read strictly: what is wrong is named, with what was found and expected."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.codec.mimi import Mimi, MimiConfig, load_mimi
from model.codec.mimi.names import sources
from model.errors import ConfigError, WeightsError

Tensors = dict[str, Tensor]
Change = Callable[[Tensors], object]

DOWN = "downsample.conv.conv.conv.weight"
BOOK = "quantizer.rvq_rest.vq.layers.3._codebook"


@pytest.fixture
def tensors(golden: Path) -> Tensors:
    """Return what a sound file holds."""
    return load_file(golden / "mimi.weights.safetensors")


def equal(one: Mimi, other: Mimi) -> bool:
    """Compare all weights."""
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in one.state_dict().items())


def test_the_published_file_is_as_large_as_its_tensors() -> None:
    """318 tensors in float32 and a header; one of each codebook's three says nothing."""
    config = MimiConfig()
    shapes = {
        n: s for source in sources(config, "kyutai").values() for n, s in source.tensors.items()
    }
    assert len(shapes) + config.num_codebooks == 318
    num_values = sum(math.prod(shape) for shape in shapes.values()) + config.num_codebooks
    assert num_values == 96_151_393
    assert 0 < 384_644_900 - 4 * num_values < 150 * 318


def test_both_layouts_give_the_same_codec(golden: Path, golden_config: MimiConfig) -> None:
    """Down to the last bit of every weight."""
    kyutai = load_mimi(golden / "mimi.weights.safetensors", golden_config)
    transformers = load_mimi(golden / "hf_mimi.weights.safetensors", golden_config)
    assert equal(kyutai, transformers)


def test_old_names_of_codebooks(
    golden_config: MimiConfig, tensors: Tensors, tmp_path: Path
) -> None:
    """Files from before the codebooks were renamed."""
    save_file(tensors, tmp_path / "new.safetensors")
    for new, old in (("_initialized", "inited"), ("cluster_usage", "cluster_size")):
        for name in [name for name in tensors if name.endswith(new)]:
            tensors[name.replace(new, old)] = tensors.pop(name)
    tensors[f"{BOOK}.embed_avg"] = tensors.pop(f"{BOOK}.embedding_sum")
    save_file(tensors, tmp_path / "old.safetensors")
    first, second = (
        load_mimi(tmp_path / f"{n}.safetensors", golden_config) for n in ("new", "old")
    )
    assert equal(first, second)


def test_a_codec_within_a_larger_file(
    golden: Path, golden_config: MimiConfig, tmp_path: Path
) -> None:
    """Only the names under the prefix are the codec's."""
    inner = load_file(golden / "hf_mimi.weights.safetensors")
    outer = {f"audio_encoder.{name}": tensor for name, tensor in inner.items()}
    save_file(outer | {"lm.weight": torch.zeros(3)}, tmp_path / "both.safetensors")
    got = load_mimi(tmp_path / "both.safetensors", golden_config, prefix="audio_encoder.")
    assert equal(got, load_mimi(golden / "hf_mimi.weights.safetensors", golden_config))


def test_bfloat16_is_read_as_float32(
    golden_config: MimiConfig, tensors: Tensors, tmp_path: Path
) -> None:
    """A file of half the size is a codec, too."""
    save_file({n: t.bfloat16() for n, t in tensors.items()}, tmp_path / "half.safetensors")
    got = load_mimi(tmp_path / "half.safetensors", golden_config)
    assert {t.dtype for t in got.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(DOWN), rf"{DOWN}: missing, expected \[32, 32, 4\]"),
        (
            lambda t: t.update({DOWN: torch.zeros(32, 32, 3)}),
            rf"{DOWN}: expected \[32, 32, 4\] .* got \[32, 32, 3\] in F32",
        ),
        (
            lambda t: t.update({DOWN: torch.zeros(32, 32, 4, dtype=torch.int8)}),
            rf"{DOWN}: expected .* got \[32, 32, 4\] in I8",
        ),
        (lambda t: t.update({"lm.weight": torch.zeros(2)}), "lm.weight: not part of this codec"),
        (lambda t: t.pop(f"{BOOK}.cluster_usage"), f"{BOOK}.cluster_usage: missing"),
        (
            lambda t: t.update({BOOK.replace("3", "7") + ".embedding_sum": torch.zeros(32, 16)}),
            "layers.7._codebook.embedding_sum: not part",
        ),
        (lambda t: t.pop("encoder.model.0.conv.conv.weight"), "not a Mimi"),
    ],
    ids=["missing", "shape", "type", "left over", "codebook", "too many codebooks", "other model"],
)
def test_a_wrong_file_is_refused(
    golden_config: MimiConfig, tensors: Tensors, tmp_path: Path, change: Change, message: str
) -> None:
    """By file and tensor, got and expected."""
    change(tensors)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=message) as error:
        load_mimi(path, golden_config)
    assert str(path) in str(error.value)


def test_codebooks_that_are_not_used_are_checked_too(
    golden_config: MimiConfig, tensors: Tensors, tmp_path: Path
) -> None:
    """A damaged file is not accepted because its damage is elsewhere."""
    tensors[f"{BOOK}.embedding_sum"] = torch.zeros(3)
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="embedding_sum: expected"):
        load_mimi(tmp_path / "wrong.safetensors", golden_config, num_codebooks=2)


def test_a_file_of_other_sizes_is_refused(golden: Path, golden_config: MimiConfig) -> None:
    """The published sizes are not those of the golden codec."""
    with pytest.raises(WeightsError, match=r"expected \[64, 1, 7\] .* got \[2, 1, 7\]"):
        load_mimi(golden / "mimi.weights.safetensors")
    wider = replace(golden_config, codebook_size=64)
    with pytest.raises(WeightsError, match=r"expected \[64, 16\] .* got \[32, 16\]"):
        load_mimi(golden / "mimi.weights.safetensors", wider)


@pytest.mark.parametrize("num_codebooks", [1, 9])
def test_codebooks_that_there_are_not(
    golden: Path, golden_config: MimiConfig, num_codebooks: int
) -> None:
    """Two to all of them can be used."""
    with pytest.raises(ConfigError, match=f"expected 2 to 8 codebooks, got {num_codebooks}"):
        load_mimi(golden / "mimi.weights.safetensors", golden_config, num_codebooks=num_codebooks)
