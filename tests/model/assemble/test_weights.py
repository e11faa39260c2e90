"""Weight files: what is saved comes back, and everything else is refused by name."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kernels.int8 import Int8Linear
from kernels.nf4 import NF4Linear, dequantize_nf4, quantize_nf4
from kernels.nf4.library import load_library
from model.assemble.weights import load_lm, load_starter, save_starter, write_judgement
from model.cache.state import Kind, Steps
from model.config import LMConfig
from model.errors import ConfigError, WeightsError
from model.judgement import Judgement
from model.text import Tokenizer
from model.transformer.linears import convert_to_int8
from model.transformer.lm import LM
from tests.fakes.tiny import CODEC_CONFIG, LM_CONFIG, make_codec, make_lm


@pytest.fixture(scope="module")
def lm() -> LM:
    """Return a tiny random language model."""
    return make_lm()


STARTER = Path(__file__).parents[3] / "model" / "starter"


@pytest.fixture(scope="module")
def saved(lm: LM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved starter; not to be changed."""
    directory = tmp_path_factory.mktemp("weights") / "starter"
    save_starter(
        directory,
        lm=lm,
        codec=make_codec(),
        tokenizer=Tokenizer.train(["hello there", "hello world"] * 9, 60),
        voices=("anna", "ben"),
    )
    return directory


@pytest.fixture
def directory(saved: Path, tmp_path: Path) -> Path:
    """Return a saved starter to break."""
    return Path(shutil.copytree(saved, tmp_path / "starter"))


def forget_hashes(directory: Path) -> None:
    """Make the hashes fit files that a test has changed, as someone who edits both would."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for name in config["sha256"]:
        config["sha256"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(config))


def make_steps() -> Steps:
    """Return a few text steps."""
    text = torch.arange(6)[None]
    codes = torch.full((1, 6, 3), -1)
    return Steps(text, codes, codes, torch.full((1, 6), int(Kind.TEXT)), torch.arange(6)[None])


def test_round_trip(lm: LM, saved: Path) -> None:
    """Quantised weights come back as their levels, all others as their fp16 values."""
    starter = load_starter(saved)
    assert starter.voices == ("anna", "ben")
    assert starter.tokenizer.decode(starter.tokenizer.encode("hello world")) == "hello world"
    assert starter.codec.config == CODEC_CONFIG
    original, loaded = lm.state_dict(), starter.lm.state_dict()
    quantised = {
        f"{name}.weight"
        for name, module in lm.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(("layers.", "depth."))
    }
    for name, weight in original.items():
        if name in quantised:
            expected = dequantize_nf4(*quantize_nf4(weight), tuple(weight.shape))
        else:
            expected = weight.half().float()
        assert torch.equal(loaded[name], expected), name
    assert len(quantised) == 4 * (LM_CONFIG.num_layers + LM_CONFIG.depth_layers) + 6
    assert not starter.lm.training
    assert not starter.codec.training


def test_packed_and_dense_linears_agree(saved: Path) -> None:
    """Keeping weights packed computes the same, in less memory."""
    dense, packed = load_lm(saved), load_lm(saved, linears="nf4")
    assert sum(isinstance(module, NF4Linear) for module in packed.modules()) == 18
    with torch.no_grad():
        torch.testing.assert_close(packed(make_steps()), dense(make_steps()))


def test_bitsandbytes_multiplies_by_the_shipped_weights() -> None:
    """What it computes is what our own product of the packed weights is."""
    pytest.importorskip("bitsandbytes", reason="needs the package bitsandbytes")
    ours, theirs = load_lm(STARTER, linears="nf4"), load_lm(STARTER, linears="bitsandbytes")
    layers = [(name, each) for name, each in theirs.named_modules() if isinstance(each, NF4Linear)]
    others = {name for name, layer in layers if layer.backend != "bitsandbytes"}
    assert {name.rpartition(".")[0] for name in others} == {"depth.code_proj"}
    for name, layer in layers:
        x = torch.randn(3, layer.in_features)
        torch.testing.assert_close(layer(x), ours.get_submodule(name)(x), rtol=1e-4, atol=1e-4)


def test_bitsandbytes_is_missing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting that asks for it is named."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    load_library.cache_clear()
    with pytest.raises(ConfigError, match=r"engine.linears: .* cannot be loaded"):
        load_lm(saved, linears="bitsandbytes")
    load_library.cache_clear()


def test_int8_linears_are_close(saved: Path) -> None:
    """The fast CPU form computes nearly the same: whole, streamed, and in the depth transformer."""
    dense, fast = load_lm(saved), load_lm(saved, linears="int8")
    num_fast = sum(isinstance(module, Int8Linear) for module in fast.modules())
    assert num_fast == 4 * (LM_CONFIG.num_layers + LM_CONFIG.depth_layers) + 1 + 3
    steps = make_steps()
    with torch.no_grad():
        expected = dense(steps)
        for hidden in (fast(steps), fast.step(steps, fast.init_state(1), [0])):
            assert (hidden - expected).norm() < 0.03 * expected.norm()
        codes = dense.depth.generate(expected[0], steps.text[0])
        same = fast.depth.generate(expected[0], steps.text[0]) == codes
    assert same.float().mean() > 0.8


def test_int8_refuses_widths_it_cannot_do() -> None:
    """The kernel would read past the end of a row."""
    lm = LM(LMConfig(dim=24, ff_dim=48, num_heads=2, num_kv_heads=2))
    with pytest.raises(
        ConfigError, match=r"layers\.0\.attention\.qkv: .* multiple of 16 .* got 24"
    ):
        convert_to_int8(lm)


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    """Weights that did not change do not bloat a history."""
    starter = load_starter(saved)
    save_starter(
        tmp_path,
        lm=starter.lm,
        codec=starter.codec,
        tokenizer=starter.tokenizer,
        voices=starter.voices,
    )
    for path in saved.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_was_found_out_is_kept_beside_the_weights(tmp_path: Path) -> None:
    """Thresholds are written into the card afterwards, and read with the weights."""
    lm = make_lm(has_end_head=1)
    tokenizer = Tokenizer.train(["hello there", "hello world"] * 9, 60)
    save_starter(tmp_path, lm=lm, codec=make_codec(), tokenizer=tokenizer, voices=("anna",))
    assert load_starter(tmp_path).judgement == Judgement()
    judgement = Judgement(ends={"low": 0.9, "medium": 0.5, "high": 0.25}, doubt_below=0.5)
    write_judgement(tmp_path, judgement)
    assert load_starter(tmp_path).judgement == judgement
    assert judgement.doubt_score == math.log(0.5)


@pytest.mark.parametrize(
    ("judgement", "message"),
    [
        ({"ends": {"low": 0.5}}, "ends: expected low, medium, high, got low"),
        ({"ends": {"low": 0.5, "medium": 2, "high": 0}}, r"ends\.medium: .* from 0 to 1, got 2"),
        ({"doubt_below": True}, "doubt_below: expected a number from 0 to 1, got True"),
        ({"doubts": 1}, "judgement: expected ends and doubt_below"),
        ({"ends": [1]}, r"ends: .* got \[1\]"),
        ({"ends": {"low": 1, "medium": 1, "high": 1}}, "the model has no head for ends"),
    ],
)
def test_refuses_a_card_that_cannot_be(directory: Path, judgement: object, message: str) -> None:
    """What is no threshold is named, with what was expected."""
    change_config(judgement=judgement)(directory)
    with pytest.raises(WeightsError, match=message):
        load_starter(directory)


def test_unquantised(lm: LM, saved: Path, tmp_path: Path) -> None:
    """Storing fp16 throughout is a choice."""
    starter = load_starter(saved)
    save_starter(
        tmp_path,
        lm=lm,
        codec=starter.codec,
        tokenizer=starter.tokenizer,
        voices=("anna",),
        quantised=False,
    )
    loaded = load_lm(tmp_path).state_dict()
    assert all(torch.equal(loaded[n], w.half().float()) for n, w in lm.state_dict().items())


def change_tensors(
    name: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> Callable[[Path], None]:
    """Return a breakage that edits the tensors of one file."""

    def breakage(directory: Path) -> None:
        tensors = safetensors.torch.load_file(directory / name)
        change(tensors)
        safetensors.torch.save_file(tensors, directory / name)
        forget_hashes(directory)

    return breakage


def change_config(**changes: object) -> Callable[[Path], None]:
    """Return a breakage that edits the configuration."""

    def breakage(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return breakage


def truncate(directory: Path) -> None:
    """Cut the codec's file short."""
    path = directory / "codec.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    forget_hashes(directory)


def flip_a_bit(directory: Path) -> None:
    """Damage a weight without damaging the file's structure."""
    path = directory / "lm.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


LM_FILE = "lm.safetensors"


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), r"config\.json: cannot be read \(No such file"),
        (lambda d: (d / LM_FILE).unlink(), r"lm\.safetensors: cannot be read \(No such file"),
        (lambda d: (d / "config.json").write_text("{"), r"config\.json: not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "expected the keys .* got list"),
        (truncate, r"codec\.safetensors: not a whole safetensors file"),
        (flip_a_bit, r"lm\.safetensors: damaged, its sha256 is not"),
        (change_config(format=2), "expected format 1, got 2"),
        (change_config(extra=1), "expected the keys"),
        (change_config(voices=[]), "expected 1 to 16 different voices"),
        (change_config(voices="anna"), "voices: expected a list of names"),
        (change_config(sha256={}), "sha256: expected one for each"),
        (change_config(lm={"dimm": 3}), r"config\.json: unknown keys .* dimm"),
        (change_config(lm=LMConfig().to_dict()), "8 codebooks of 1024, the codec 3 of 16"),
        (change_config(lm=LM_CONFIG.to_dict() | {"text_vocab": 20}), "pieces, the model 20"),
        (
            change_tensors(LM_FILE, lambda t: t.pop("norm.weight")),
            r"lm\.safetensors: norm\.weight: missing",
        ),
        (
            change_tensors(LM_FILE, lambda t: t.update(extra=torch.zeros(1))),
            r"lm\.safetensors: extra: not part of this model",
        ),
        (
            change_tensors(LM_FILE, lambda t: t.update({"norm.weight": torch.ones(33)})),
            r"norm\.weight: expected float32 \[32\], got float32 \[33\]",
        ),
        (
            change_tensors(LM_FILE, lambda t: t.update({"norm.weight": torch.ones(32).int()})),
            r"norm\.weight: expected float32 \[32\], got int32 \[32\]",
        ),
        (
            change_tensors(LM_FILE, lambda t: t.pop("layers.0.mlp.down.weight.absmax")),
            r"layers\.0\.mlp\.down\.weight\.absmax: missing",
        ),
        (
            change_tensors(
                LM_FILE,
                lambda t: t.update({"layers.0.mlp.down.weight.nf4": torch.zeros(3).byte()}),
            ),
            r"layers\.0\.mlp\.down\.weight\.nf4: expected uint8 \[768\], got uint8 \[3\]",
        ),
    ],
)
def test_refusals(directory: Path, breakage: Callable[[Path], object], message: str) -> None:
    """Each broken directory is refused by the file, the tensor, got and expected."""
    breakage(directory)
    with pytest.raises(WeightsError, match=message):
        load_starter(directory)
