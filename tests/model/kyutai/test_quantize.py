"""A checkpoint is streamed to NF4: the same model as one quantised in memory, in little memory."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.cache.state import Kind, Steps
from model.errors import ConfigError, WeightsError
from model.kyutai.check import QUANTISED_FILE, check_directory
from model.kyutai.load import load_lm
from model.kyutai.quantize import quantize_checkpoint
from model.kyutai.tensors import num_parameters
from model.transformer.lm import LM
from tests.fakes.kyutai import load_directory, random_moshi

MakeDirectory = Callable[..., Path]

QKV = "layers.0.attention.qkv.weight"


def logits(lm: LM) -> list[Tensor]:
    """Return what a model makes of a few frames."""
    torch.manual_seed(0)
    config = lm.config
    assert config.family is not None
    text = torch.randint(config.text_vocab, (2, 5))
    made = torch.randint(config.codebook_size, (2, 5, config.num_codebooks))
    user = torch.randint(config.codebook_size, (2, 5, config.family.num_user_codebooks))
    kind = torch.full(text.shape, int(Kind.DUPLEX))
    with torch.no_grad():
        hidden = lm(Steps(text, user, made, kind, torch.arange(5).expand(2, 5)))
        return [lm.text_logits(hidden), lm.depth(hidden[:, -1], text[:, -1], made[:, -1])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["moshi", "personaplex", "hibiki", "hibiki_zero"])
def test_it_is_the_model_quantised_in_memory(
    make_directory: MakeDirectory, tmp_path: Path, case: str, dtype: torch.dtype
) -> None:
    """To the last bit of every logit."""
    source = make_directory(case)
    quantize_checkpoint(source, tmp_path / "nf4")
    assert check_directory(tmp_path / "nf4").layout == "nf4"
    in_memory = load_directory(source, dtype, linears="nf4")
    loaded = load_directory(tmp_path / "nf4", dtype, linears="nf4")
    for one, other in zip(logits(in_memory.lm), logits(loaded.lm), strict=True):
        assert torch.equal(one, other)
    assert loaded.config == in_memory.config
    (pieces,) = (tmp_path / "nf4").glob("*.model")
    assert pieces.read_bytes() == (source / pieces.name).read_bytes()
    # What it stands for can also be had dense.
    dense = load_directory(tmp_path / "nf4", linears="dense")
    full = load_directory(source, linears="nf4").lm
    for one, other in zip(logits(dense.lm), logits(full), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_bitsandbytes_reads_it(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """Keys, state and levels are its own, and stand for the same weight."""
    functional = pytest.importorskip("bitsandbytes.functional", reason="needs bitsandbytes")
    source = make_directory()
    quantize_checkpoint(source, tmp_path / "nf4")
    weight = load_directory(source).lm.layers[0].attention.qkv.weight.detach()
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    tensors = load_file(tmp_path / "nf4" / QUANTISED_FILE)
    ours = {n.removeprefix(f"{QKV}."): t for n, t in tensors.items() if n.startswith(f"{QKV}.")}
    theirs = state.as_dict(packed=True)
    assert torch.equal(tensors[QKV], packed)
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["absmax"], theirs["absmax"])
    assert torch.equal(ours["quant_map"], theirs["quant_map"])
    read = functional.QuantState.from_dict(ours, device=torch.device("cpu"))
    assert (read.shape, read.dtype, read.blocksize) == (weight.shape, weight.dtype, 64)


def test_the_codec_of_a_file_that_holds_both(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """Has a file of its own afterwards."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    source = make_directory()
    sizes = json.loads((Path(__file__).parent / "transformers.json").read_text())
    model = transformers.MoshiForConditionalGeneration(transformers.MoshiConfig(**sizes))
    for name in ("config.json", "model.safetensors", "tokenizer-1.safetensors", "mimi.json"):
        (source / name).unlink()
    model.save_pretrained(source)
    assert check_directory(source).problems == ()
    quantize_checkpoint(source, tmp_path / "nf4")
    one, other = load_directory(source, linears="nf4"), load_directory(tmp_path / "nf4")
    theirs = other.mimi.state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in one.mimi.state_dict().items())


def test_a_run_that_fails_leaves_nothing(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """Neither the directory nor the one beside it; the next run succeeds."""
    source, target = make_directory(), tmp_path / "out" / "nf4"

    def stop(_: str, done: int, count: int) -> None:
        if done == count // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, target, stop)
    assert list(target.parent.iterdir()) == []
    (target.parent / "nf4.partial").mkdir()  # as a killed run leaves it
    quantize_checkpoint(source, target)
    assert [path.name for path in target.parent.iterdir()] == ["nf4"]
    with pytest.raises(ConfigError, match="exists already"):
        quantize_checkpoint(source, target)
    with pytest.raises(ConfigError, match="is in NF4 already"):
        quantize_checkpoint(target, tmp_path / "again")


def test_what_is_wrong_is_refused_first(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """Nothing is written of a checkpoint that is not whole."""
    source = make_directory()
    (source / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expected one file .*model.safetensors.*, got none"):
        quantize_checkpoint(source, tmp_path / "nf4")
    assert not (tmp_path / "nf4").exists()


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory a piece of work takes beyond what there was, at most.

    It is done in a process of its own: one that has run other tests has room of theirs to use, or
    reads a file again that it has mapped before.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak_bytes, work).result()


def _peak_bytes(work: Callable[[], object]) -> int:
    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.fixture(scope="module")
def large(
    golden: Path, pieces: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A checkpoint with much in many layers, and the bytes of its language model in float32."""
    directory = tmp_path_factory.mktemp("large")
    sizes = {"dim": 512, "num_layers": 12, "num_heads": 8, "hidden_scale": 2.0}
    config, _ = random_moshi(golden, directory, **sizes, mimi_config_name="mimi.json")
    for name, file in (
        ("mimi.json", "mimi.json"),
        ("mimi.weights.safetensors", "mimi.safetensors"),
    ):
        (directory / file).write_bytes((golden / name).read_bytes())
    (directory / "tokenizer.model").write_bytes(pieces)
    return directory, 4 * num_parameters(config)


def test_memory_stays_small(large: tuple[Path, int], tmp_path: Path) -> None:
    """Little more than the file in bf16, libraries' buffers included; in full it is found."""
    directory, size = large
    found = check_directory(directory)
    assert found.problems == ()
    config, path = found.config, found.files["lm"]
    assert config is not None
    assert peak_bytes(partial(load_lm, path, config)) > 0.9 * size
    in_nf4 = partial(load_lm, path, config, torch.bfloat16, linears="nf4")
    assert peak_bytes(in_nf4) < 0.65 * size
    assert peak_bytes(partial(quantize_checkpoint, directory, tmp_path / "nf4")) < 0.65 * size
