"""Listening and speaking at once: every frame the model takes the user's codes and gives its own.

Streams come late by their delays. What is known of each stream waits in a ring, [slots, streams,
longest delay + 2], with the text first, then the model's codebooks, then the user's. The step of
position s reads column s, which for s <= delay is the first input instead, and writes column s + 1;
a frame is whole, and given out, once its latest stream is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.condition import Condition
from model.depth import UNDECIDED
from model.lm import LM
from model.sampling import GREEDY, Sampling, draw_noise, guide, sample
from model.state import Kind, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplexConfig:
    """Say how a model is driven.

    Attributes:
        delays: frames by which each stream comes late: text, the model's codebooks, the user's.
        lag: frames by which the model is behind the user besides, 1 for PersonaPlex.
        text_sampling: how text is chosen.
        audio_sampling: how codes are chosen.
        guidance: how far to go towards the condition; 1 to do as it says and no further.
    """

    delays: tuple[int, ...]
    lag: int = 0
    text_sampling: Sampling = GREEDY
    audio_sampling: Sampling = GREEDY
    guidance: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DuplexFrame:
    """What one step of n slots gave.

    Attributes:
        tokens: int64 [n, 1 + K], text and codes of the newest whole frame; -2 as long as there is
            none.
        chosen: int64 [n, 1 + K], what was written now, of frames that are not whole yet.
        hidden: float [n, dim], backbone output; with guidance that of the condition, [2 * n, dim]
            with what it is without one behind. None if the model has not begun.
        text_logits: float [n, text_out], as text was chosen from. None if the model has not begun.
    """

    tokens: Tensor
    chosen: Tensor
    hidden: Tensor | None = None
    text_logits: Tensor | None = None


class Duplex:
    """Drive a model in several slots, each at a pace of its own.

    Args:
        lm: in evaluation mode.
        config: delays and sampling.
        num_slots: conversations.
    """

    def __init__(self, lm: LM, config: DuplexConfig, num_slots: int) -> None:
        self._lm, self._config = lm, config
        self._num_made = lm.config.num_codebooks
        self._num_slots = num_slots
        # Guidance takes a second slot of the model for each conversation.
        self.state = lm.init_state(num_slots * self._sides)
        device = self.state.device
        self._delays = torch.tensor(config.delays, device=device)
        self._longest = max(config.delays)
        first = [lm.config.text_vocab] + [lm.config.codebook_size] * (len(config.delays) - 1)
        self._first = torch.tensor(first, device=device)
        shape = (num_slots, len(config.delays), self._longest + 2)
        self._ring = torch.full(shape, UNDECIDED, device=device)
        self._calls = [0] * num_slots

    @property
    def _sides(self) -> int:
        return 1 if self._config.guidance == 1.0 else 2

    def reset(self, slot: int) -> None:
        """Leave nothing of a conversation in its slot; the others are untouched."""
        self._ring[slot] = UNDECIDED
        self._calls[slot] = 0
        for side in range(self._sides):
            self.state.reset(slot + side * self._num_slots)

    def set_condition(self, slot: int, condition: Condition, without: Condition | None) -> None:
        """Tell the model something about the whole conversation, before its first frame.

        Args:
            slot: which one.
            condition: what is said.
            without: what guidance leads away from; not needed without guidance.
        """
        self._lm.set_condition(condition, self.state, slot)
        if without is not None and self._sides == 2:
            self._lm.set_condition(without, self.state, slot + self._num_slots)

    @torch.inference_mode()
    def step(
        self,
        slots: Sequence[int],
        user: Tensor,
        forced: Tensor | None = None,
        noise: Sequence[torch.Generator] = (),
    ) -> DuplexFrame:
        """Hear a frame and make one.

        Args:
            slots: n distinct ones; what is not among them stands still.
            user: int64 [n, codebooks of the user].
            forced: int64 [n, 1 + K], what the frame that begins now must be: text and codes, -2
                where the model chooses. -1 is nothing at all.
            noise: one a row, needed unless greedy.
        """
        calls = torch.tensor([self._calls[slot] for slot in slots], device=self._ring.device)
        position = calls - self._config.lag
        rows = torch.tensor(list(slots), device=self._ring.device)[:, None]
        made = 1 + self._num_made
        if forced is None:
            forced = user.new_full((len(slots), made), UNDECIDED)
        self._write(rows, slice(made, None), calls, user)
        self._write(rows, slice(made), position + 1, forced)
        for slot in slots:
            self._calls[slot] += 1
        begun = [row for row, p in enumerate(position.tolist()) if p >= 0]
        if len(begun) == len(slots):
            return self._make(slots, rows, position, noise)
        return self._make_some(slots, rows, position, noise, begun)

    def _make_some(
        self,
        slots: Sequence[int],
        rows: Tensor,
        position: Tensor,
        noise: Sequence[torch.Generator],
        begun: list[int],
    ) -> DuplexFrame:
        """Do the rows that lag behind the user no longer."""
        nothing = self._ring.new_full((len(slots), 1 + self._num_made), UNDECIDED)
        if not begun:
            return DuplexFrame(nothing, nothing.clone())
        frame = self._make(
            [slots[row] for row in begun],
            rows[begun],
            position[begun],
            [noise[row] for row in begun] if noise else (),
        )
        chosen = nothing.clone()
        nothing[begun], chosen[begun] = frame.tokens, frame.chosen
        return DuplexFrame(nothing, chosen)

    def _make(
        self,
        slots: Sequence[int],
        rows: Tensor,
        position: Tensor,
        noise: Sequence[torch.Generator],
    ) -> DuplexFrame:
        config, lm, made = self._config, self._lm, 1 + self._num_made
        heard = self._read(rows, position[:, None].expand(-1, len(self._delays)))
        heard = torch.where(position[:, None] <= self._delays, self._first, heard)
        hidden = self._run(slots, heard, position)
        text_logits = guide(lm.text_logits(hidden), config.guidance)
        decided = self._read(rows, (position + 1)[:, None].expand(-1, made))
        text_noise = self._noise(noise, config.text_sampling, text_logits.shape[1:])
        text = sample(text_logits, config.text_sampling, text_noise)
        text = torch.where(decided[:, 0] == UNDECIDED, text, decided[:, 0])
        chosen = text[:, None]
        if self._num_made:
            codes = lm.depth.generate(
                hidden,
                text,
                config.audio_sampling,
                self._noise(noise, config.audio_sampling, (made - 1, lm.config.codebook_size)),
                forced=decided[:, 1:],
                guidance=config.guidance,
            )
            chosen = torch.cat([chosen, codes], dim=1)
        ring = self._ring.shape[2]
        self._ring[rows, torch.arange(made, device=rows.device), (position[:, None] + 1) % ring] = (
            chosen
        )
        newest = position[:, None] + 1 - self._longest
        tokens = self._read(rows, newest + self._delays[:made])
        tokens = torch.where(newest > 0, tokens, UNDECIDED)
        return DuplexFrame(tokens, chosen, hidden, text_logits)

    def _run(self, slots: Sequence[int], heard: Tensor, position: Tensor) -> Tensor:
        """Take the backbone a step further, with guidance in both slots of each conversation."""
        made, sides = 1 + self._num_made, self._sides
        heard = heard.repeat(sides, 1)[:, None]
        steps = Steps(
            text=heard[..., 0],
            user=heard[..., made:],
            assistant=heard[..., 1:made],
            kind=torch.full(heard.shape[:2], int(Kind.DUPLEX)),
            position=position.repeat(sides)[:, None],
        )
        theirs = [slot + side * self._num_slots for side in range(sides) for slot in slots]
        return self._lm.step(steps, self.state, theirs)[:, 0]

    def _write(self, rows: Tensor, streams: slice, frame: Tensor, tokens: Tensor) -> None:
        """Store a frame's tokens where their streams come late."""
        index = torch.arange(len(self._delays), device=rows.device)[streams]
        column = (frame[:, None] + self._delays[streams]) % self._ring.shape[2]
        self._ring[rows, index, column] = tokens

    def _read(self, rows: Tensor, column: Tensor) -> Tensor:
        """Return the tokens of the first streams at positions [n, streams]."""
        index = torch.arange(column.shape[1], device=rows.device)
        return self._ring[rows, index, column % self._ring.shape[2]]

    def _noise(
        self, noise: Sequence[torch.Generator], sampling: Sampling, shape: tuple[int, ...]
    ) -> Tensor | None:
        """Draw what a choice takes; the last of `shape` is the number of logits."""
        if sampling.temperature == 0:
            return None
        *many, vocab = shape
        return draw_noise(noise, (*many, sampling.num_candidates(vocab))).to(self._ring.device)
