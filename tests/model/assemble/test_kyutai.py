"""A model of the family, put together for the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.assemble.kyutai import load_parts, sampling_of
from model.duplex.driver import Duplex, DuplexConfig
from model.duplex.prompt import PUBLISHED_TONES
from model.errors import ConfigError, EngineError, WeightsError
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.kyutai.memory import REACH_FRAMES
from model.pieces import PAD
from model.sampling import Sampling
from tests.fakes.duplex import PIECES, make_small_parts, voice

MakeDirectory = Callable[..., Path]


def test_moshi(make_directory: MakeDirectory) -> None:
    """As it was published: its sampling, its delays, one voice, and no prompt."""
    parts = load_parts(make_directory(), "moshi-local")
    assert parts.name == "moshi-local"
    assert parts.voices == ("moshi",)
    drive = parts.model.drive
    assert drive.audio_sampling == Sampling(0.8, 250)
    assert drive.text_sampling == Sampling(0.7, 25)
    assert (drive.lag, drive.guidance) == (0, 1.0)
    assert parts.model.lm.config.rewind_steps == parts.model.reach == REACH_FRAMES
    assert parts.traits.frame_ms == 80
    assert parts.traits.input_end is None
    assert parts.traits.silence.shape == (3,)
    assert len(parts.prompt("moshi", "be kind")) == 0
    assert parts.note == ""


def test_hibiki(make_directory: MakeDirectory) -> None:
    """Is told what a good translation is like, and knows how its input and its answer end."""
    options = {"temp": 0.6, "temp_text": 0.5, "top_k": 9, "top_k_text": 7}
    directory = make_directory("hibiki", lm_gen_config=options)
    parts = load_parts(directory, "hibiki", guidance=3.0)
    assert parts.model.drive.audio_sampling == Sampling(0.6, 9)
    assert parts.model.drive.text_sampling == Sampling(0.5, 7)
    assert parts.model.drive.guidance == 3.0
    assert parts.traits.input_end == 20
    assert parts.traits.text_end == 2
    lm = parts.model.lm
    for condition, said in (
        (parts.model.condition, "very_good"),
        (parts.model.without, "very_bad"),
    ):
        assert condition is not None
        assert condition.added is not None
        expected = lm.conditioners({"description": said}).added
        assert expected is not None
        assert torch.equal(condition.added, expected)
    table = lm.get_parameter("text_emb.weight")
    assert torch.equal(table[2], table[PAD])
    assert load_parts(directory, "hibiki").model.without is None


def test_personaplex(make_directory: MakeDirectory) -> None:
    """Has voices of its own where they were converted, the tones that are published, and lags."""
    directory = make_directory("personaplex")
    assert load_parts(directory, "p").voices == ("personaplex",)
    folder = directory / "voices"
    folder.mkdir()
    for name in ("NATM0", "NATF0"):
        tensors = {"embeddings": torch.ones(5, 16), "cache": torch.ones((17, 4)).long()}
        save_file(tensors, folder / f"{name}.safetensors")
    parts = load_parts(directory, "p")
    assert parts.voices == ("NATF0", "NATM0")
    assert parts.model.drive.lag == parts.traits.lag == 1
    prompt = parts.prompt("NATM0", "")
    assert prompt.voice is not None
    assert prompt.voice.embedded is not None
    assert prompt.voice.embedded.shape == (5, 16)
    assert len(prompt) == 12
    assert (prompt.forced[:, 1:] == PUBLISHED_TONES.silence).all()
    assert parts.prompt("NATM0", "fox").num_pieces > 0


def test_what_cannot_be_served(make_directory: MakeDirectory) -> None:
    """Is refused by name, before the weights are read where that is possible."""
    directory = make_directory()
    with pytest.raises(ConfigError, match=r"engine.device: 'cuda:99' cannot be used"):
        load_parts(directory, "m", device="cuda:99")
    with pytest.raises(ConfigError, match=r"model.guidance: moshi takes no conditions, got 2.0"):
        load_parts(directory, "m", guidance=2.0)
    with pytest.raises(WeightsError, match="'stt' can be loaded, but nothing here serves one"):
        load_parts(make_directory("stt"), "m")
    (directory / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="got none"):
        load_parts(directory, "m")


def test_sampling_that_a_checkpoint_leaves_out() -> None:
    """Is Kyutai's own."""
    assert sampling_of({"temp": 0.0}) == (Sampling(0.0, 250), Sampling(0.7, 25))


def test_instructions_are_only_for_those_who_take_them() -> None:
    """And not more than a model remembers."""
    assert len(make_small_parts("moshi").prompt("voice", "the dog")) == 0
    prompt = make_small_parts("personaplex").prompt
    bare = len(prompt("ann", " \n"))
    assert bare == 3 + 12
    pieces = PIECES.encode("<system> the dog <system>")
    assert prompt("ann", "the dog").forced[3 + 6 :, 0].tolist() == [*pieces, *[PAD] * 6]
    assert (prompt("eve", "").forced[:3, 1:] == voice("eve").codes).all()
    with pytest.raises(EngineError, match="at most 1000"):
        prompt("ann", "dog " * 1_001)


def test_steps_whose_output_is_thrown_away(golden: Path) -> None:
    """PersonaPlex without the depth steps of the user's codes says what it says with them."""
    values = json.loads((golden / "personaplex.json").read_text())
    skipping = KyutaiConfig.from_dict(values)
    # The same weights, as a model that makes all sixteen codebooks.
    whole = KyutaiConfig.from_dict({**values, "model_type": "moshi"})
    assert (skipping.num_made, whole.num_made) == (8, 16)
    path = golden / "personaplex.weights.safetensors"
    user = torch.randint(20, (30, 1, 8))
    told: list[torch.Tensor] = []
    for config in (skipping, whole):
        drive = DuplexConfig(delays=config.delays, lag=1)
        duplex = Duplex(load_lm(path, config), drive, 1)
        frames = []
        for heard in user:
            if config is skipping:
                frame = duplex.step([0], heard)
            else:
                # The user's codes are forced upon the steps that would make them.
                forced = torch.full((1, 17), -2)
                forced[:, 9:] = heard
                frame = duplex.step([0], heard[:, :0], forced)
            frames.append(frame.tokens[:, :9])
        told.append(torch.stack(frames))
    assert torch.equal(told[0], told[1])
    assert (told[0][3:] >= 0).all()
