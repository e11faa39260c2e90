"""What the tests of Mimi share: small codecs with known weights, and audio."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.codec.mimi import Mimi, MimiConfig
from tests.model.codec.mimi.small import TINY


@pytest.fixture(scope="session")
def golden_config(golden: Path) -> MimiConfig:
    """Sizes of the golden codec."""
    return MimiConfig.from_kyutai(json.loads((golden / "mimi.json").read_text()))


@pytest.fixture(scope="session")
def mimi() -> Mimi:
    """Return a small codec with seeded random weights."""
    torch.manual_seed(5)
    return Mimi(TINY).eval().requires_grad_(requires_grad=False)


@pytest.fixture
def sound() -> Tensor:
    """Audio of ten frames for three streams."""
    noise = torch.randn(3, 10 * TINY.frame_samples, generator=torch.Generator().manual_seed(1))
    return 0.2 * noise
