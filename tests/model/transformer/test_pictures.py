"""Pictures in the transformer: streamed as offline, and absent from models that see none."""

import pytest
import torch

from model.cache.state import Kind, Steps
from model.config import LMConfig
from model.errors import ConfigError
from model.text import Special
from model.transformer.lm import LM

SIZES = {
    "dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "ff_dim": 48, "text_vocab": 40,
    "num_codebooks": 2, "codebook_size": 8, "audio_rank": 4, "delays": (0, 1), "depth_dim": 16,
    "depth_layers": 1, "depth_heads": 2, "depth_ff": 16,
}  # fmt: skip
SEEING = LMConfig(**SIZES, picture_size=8, patch_size=4, has_end_head=1)  # type: ignore[arg-type]


def steps_of(text: list[int]) -> Steps:
    """Return typed steps."""
    shape = (1, len(text), 2)
    absent = torch.full(shape, -1)
    kind = torch.full(shape[:2], int(Kind.TEXT))
    return Steps(torch.tensor([text]), absent, absent, kind, torch.arange(len(text))[None])


def make_lm() -> LM:
    """Return a random model that sees."""
    torch.manual_seed(1)
    lm = LM(SEEING).double()
    lm.set_codebook_vectors(torch.randn(2, 8, 4))
    return lm


TEXT = [30, *[Special.IMAGE] * 4, 31, 32, *[Special.IMAGE] * 4, 33]


def test_streamed_is_offline() -> None:
    """Step by step, with inputs embedded beforehand, the outputs are those of the whole."""
    lm = make_lm()
    pictures = torch.rand(2, 4, 48, dtype=torch.float64) * 2 - 1
    steps = steps_of(TEXT)
    with torch.no_grad():
        whole = lm(steps, pictures)
        embedded = lm.embed(steps, pictures.flatten(0, 1), torch.arange(4).repeat(2))
    state = lm.init_state(1)
    parts = [
        lm.step(steps.columns(i, i + 1), state, [0], embedded[:, i : i + 1])
        for i in range(len(TEXT))
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_pictures_are_seen_in_their_order() -> None:
    """Each patch changes the steps from its own on, and none before."""
    lm = make_lm()
    pictures = torch.zeros(2, 4, 48, dtype=torch.float64)
    other = pictures.clone()
    other[1, 0] = 1.0
    with torch.no_grad():
        one, two = lm(steps_of(TEXT), pictures), lm(steps_of(TEXT), other)
    assert torch.equal(one[:, :7], two[:, :7])
    assert not torch.allclose(one[:, 7], two[:, 7])


def test_end_head_says_one_thing_a_step() -> None:
    """A logit of each step, for a model that has the head."""
    lm = make_lm()
    assert lm.end_logits(torch.zeros(3, 5, 32, dtype=torch.float64)).shape == (3, 5)


def test_older_models_have_none_of_this() -> None:
    """Their files are as they were."""
    names = LM(LMConfig(**SIZES)).state_dict()  # type: ignore[arg-type]
    assert not [name for name in names if name.startswith(("picture_emb", "end_head"))]
    assert LMConfig.from_dict({}).picture_size == 0


def test_patches_must_fill_a_picture() -> None:
    """Sizes that do not fit are refused by name."""
    with pytest.raises(ConfigError, match="picture_size: must be a multiple of patch_size"):
        LMConfig(picture_size=60)
