"""The depth transformer: generating equals teacher forcing, and no code sees a later one."""

from __future__ import annotations

import torch

from model.config import LMConfig
from model.sampling import Sampling
from model.transformer.depth import CodebookVectors, Depth

CONFIG = LMConfig(
    dim=32,
    text_vocab=20,
    num_codebooks=4,
    codebook_size=50,
    audio_rank=6,
    delays=(0, 1, 1, 1),
    depth_dim=16,
    depth_layers=2,
    depth_heads=2,
    depth_ff=24,
)


def make_depth(seed: int = 0) -> Depth:
    """Return a tiny random depth transformer."""
    torch.manual_seed(seed)
    codebooks = CodebookVectors(CONFIG)
    codebooks.set(torch.randn(4, 50, 6))
    return Depth(CONFIG, codebooks).eval()


def test_greedy_generation_equals_teacher_forcing() -> None:
    """Each generated code is the likeliest one given the codes before it."""
    depth = make_depth()
    hidden, text = torch.randn(30, 32), torch.randint(20, (30,))
    with torch.no_grad():
        codes = depth.generate(hidden, text)
        logits = depth(hidden, text, codes)
    assert codes.shape == (30, 4)
    assert torch.equal(codes, logits.argmax(-1))
    assert (codes != codes[0]).any(dim=0).all()  # or the test could not fail


def test_drawn_codes_do_not_depend_on_the_batch() -> None:
    """With its own noise, a row draws the same codes alone and in company."""
    depth = make_depth()
    hidden, text = torch.randn(5, 32), torch.randint(20, (5,))
    sampling = Sampling(temperature=0.8, top_k=10)
    noise = torch.empty(5, 4, 10).exponential_()
    with torch.no_grad():
        together = depth.generate(hidden, text, sampling, noise)
        greedy = depth.generate(hidden, text)
        for row in range(5):
            one = slice(row, row + 1)
            alone = depth.generate(hidden[one], text[one], sampling, noise[one])
            assert torch.equal(alone, together[one])
    assert not torch.equal(together, greedy)


def test_no_gradient_from_later_codes() -> None:
    """Logits of codebook k depend on codes before k only; an absent code is exact zero."""
    depth = make_depth()
    hidden, text = torch.randn(1, 32), torch.randint(20, (1,))
    codes = torch.randint(50, (1, 4))
    with torch.no_grad():
        base = depth(hidden, text, codes)
        for k in range(4):
            changed = codes.clone()
            changed[0, k] = -1
            same = (depth(hidden, text, changed) == base).all(dim=-1)[0]
            assert same[: k + 1].all()
            assert not same[k + 1 :].any()


def test_codebook_vectors_have_unit_power() -> None:
    """Semantic vectors and summed acoustic vectors enter at the same scale."""
    codebooks = CodebookVectors(CONFIG)
    codebooks.set(7.0 * torch.randn(4, 50, 6))
    table = codebooks.table
    torch.testing.assert_close(table[0].square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(table[1:].square().mean(dim=(1, 2)).sum(), torch.tensor(1.0))
    assert not codebooks(torch.tensor([-1, -1]), 1).any()
