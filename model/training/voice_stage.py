"""Teach trained weights one more voice of the assistant.

A voice is a piece at the beginning of a conversation, and so one row of the table of text pieces.
Only that row is learned, from speech of the new voice. It begins as the mean of the known voices.
All else stays as it is, also the other voices.

Source: Gal et al. 2022, "An image is worth one word: personalizing text-to-image generation using
textual inversion", section 3, here of speech.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.text import voice_piece
from model.training.layout import SpokenTurn, lay_out
from model.training.lm_stage import Batch, LMObjective, collate
from model.training.loop import Trainer, step_generator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model.config import LMConfig
    from model.training.encode_stage import CodedClip
    from model.training.layout import Pieces
    from model.transformer.lm import LM

STEPS_PER_BATCH = 1_200
RATE = 0.02


def learn_voice(
    lm: LM,
    pieces: Pieces,
    said: Sequence[tuple[str, str, CodedClip]],
    voice: int,
    directory: Path,
    *,
    num_steps: int,
    seed: int,
) -> LM:
    """Learn the row of a voice; resumes from `directory`.

    Args:
        lm: trained; its row of this voice is written, and nothing else.
        pieces: the tokenizer.
        said: what the voice says: a question, the reply, and the reply's speech.
        voice: its number; lower ones are trained.
        directory: of the checkpoint and the log.
        num_steps: training steps.
        seed: of the batches.

    Returns:
        The model, in evaluation mode.
    """
    lm.requires_grad_(requires_grad=False)
    table = lm.text_emb.get_parameter("weight")
    row = voice_piece(voice)
    known = torch.tensor([voice_piece(number) for number in range(voice)])
    with torch.no_grad():
        table[row] = table[known].mean(0)  # from the middle of those that are there
    only = torch.zeros(len(table), 1)
    only[row] = 1.0
    table.requires_grad_()
    hook = table.register_hook(lambda g: g * only)  # type: ignore[no-untyped-call]
    # Without decay, a row without a gradient stays what it is, bit for bit.
    optimizer = torch.optim.AdamW([table], lr=RATE, weight_decay=0.0)
    objective = LMObjective(lm)
    trainer = Trainer("voice", directory, objective, [optimizer], num_steps)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(seed, step)
        batch = _draw(said, voice, pieces, lm.config, generator)
        answer: tuple[Tensor, dict[str, float]] = objective(batch, generator)
        return answer

    trainer.run(loss_of)
    hook.remove()
    return lm.requires_grad_(requires_grad=False).eval()


def _draw(
    said: Sequence[tuple[str, str, CodedClip]],
    voice: int,
    pieces: Pieces,
    config: LMConfig,
    generator: torch.Generator,
) -> Batch:
    """Draw replies for about `STEPS_PER_BATCH` steps."""
    rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
    rows = []
    while True:
        question, reply, clip = said[int(rng.integers(len(said)))]
        turn = SpokenTurn(question, reply, None, clip)
        rows.append(lay_out([turn], voice, pieces, config.num_codebooks, [0]))
        if len(rows) * max(len(row) for row in rows) >= STEPS_PER_BATCH:
            return collate(rows, rng, config.codebook_size)
