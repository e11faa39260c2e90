"""Listening and speaking at once: every frame the model takes the user's codes and gives its own.

Streams come late by their delays. What is known of each stream waits in a ring, [slots, streams,
longest delay + 2], with the text first, then the model's codebooks, then the user's. The step of
position s reads column s, which for s <= delay is the first input instead, and writes column s + 1;
a frame is whole, and given out, once its latest stream is written.

The newest steps can be taken back exactly, as far as the reach that was asked for. A conversation's
beginning can be kept and given to another slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from kernels.noise import exponential_noise
from model.cache.pages import PADDING
from model.cache.state import Kind, SlotMemory, Steps
from model.cache.store import LayerMemory, MemoryConfig
from model.errors import RewindError
from model.sampling import GREEDY, Sampling
from model.transformer.condition import Condition
from model.transformer.depth import UNDECIDED
from model.transformer.lm import LM
from model.transformer.sampling import guide, sample

# A worked example of the ring. Three streams: text and the semantic code come without delay, the
# acoustic code one frame late. The longest delay is 1, so a conversation has 1 + 2 = 3 columns, and
# position p lies in column p % 3. T1 is the text of frame 1, S1 and A1 its codes, "first" what a
# model is fed before there is anything:
#
#     step  reads                     writes                    whole after it
#     0     column 0: first           column 1: T0 S0 -         -
#     1     column 1: T0 S0 first     column 2: T1 S1 A0        frame 0: T0, S0 in column 1, A0 in 2
#     2     column 2: T1 S1 A0        column 0: T2 S2 A1        frame 1: T1, S1 in column 2, A1 in 0
#     3     column 0: T2 S2 A1        column 1: T3 S3 A2        frame 2
#
# So a frame is given out one step after its first token, and what a step needs is never more than
# three columns old. Each conversation counts its own steps (`calls`), so rows of one batch may
# stand in different columns; a captured graph reads the counts from a tensor.
#
# Source: Copet et al. 2023, "Simple and controllable music generation", section 2.2 (delay
# pattern); Défossez et al. 2024, "Moshi", sections 3.4.3 and 3.4.4 (text and both sides' codes as
# streams).


class _Stream(IntEnum):
    """What noise is drawn for."""

    TEXT = 0
    AUDIO = 1


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
        is_finite: bool [n], whether the numbers behind them mean anything.
        hidden: float [n, dim], backbone output; with guidance that of the condition, [2 * n, dim]
            with what it is without one behind. Means nothing in rows that have not begun.
        text_logits: float [n, text_out], as text was chosen from; the same holds.
    """

    tokens: Tensor
    chosen: Tensor
    is_finite: Tensor
    hidden: Tensor
    text_logits: Tensor

    def first(self, num_rows: int) -> DuplexFrame:
        """Return the frame without the rows that only filled up."""
        hidden = torch.unflatten(self.hidden, 0, (-1, len(self.tokens)))[:, :num_rows]
        return DuplexFrame(
            self.tokens[:num_rows],
            self.chosen[:num_rows],
            self.is_finite[:num_rows],
            hidden.flatten(0, 1),
            self.text_logits[:num_rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class FrameInputs:
    """What a step reads besides the conversations' memory, in one tensor.

    Attributes:
        packed: int64, all of the following side by side.
        rows: [n], conversations; one more than there are for rows that only fill up.
        calls: [n], steps that each has had.
        keys: [n], of the noise.
        user: [n, codebooks of the user].
        forced: [n, 1 + K], -2 where the model chooses.
    """

    packed: Tensor
    rows: Tensor
    calls: Tensor
    keys: Tensor
    user: Tensor
    forced: Tensor

    @classmethod
    def of(cls, packed: Tensor, num_user: int) -> FrameInputs:
        """Name the columns of int64 [n, 3 + num_user + 1 + K]."""
        user, forced = packed[:, 3 : 3 + num_user], packed[:, 3 + num_user :]
        return cls(packed, packed[:, 0], packed[:, 1], packed[:, 2], user, forced)

    def to(self, device: torch.device) -> FrameInputs:
        """Return the inputs on `device`."""
        return FrameInputs.of(self.packed.to(device), self.user.shape[1])

    def take(self, other: FrameInputs) -> None:
        """Let these tensors hold what `other` does, in place and in one copy."""
        self.packed.copy_(other.packed)


@dataclass(frozen=True, slots=True, eq=False)
class DuplexMemory:
    """Hold everything of one conversation, apart from the slot that it was in.

    Attributes:
        sides: what the model remembers, in each of its slots of the conversation.
        ring: int64 [streams, longest delay + 2], in host memory.
        calls: steps asked for so far.
    """

    sides: tuple[SlotMemory, ...]
    ring: Tensor
    calls: int

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors."""
        return self.ring.nbytes + sum(side.num_bytes for side in self.sides)


class Duplex:
    """Drive a model in several slots, each at a pace of its own.

    Args:
        lm: in evaluation mode.
        config: delays and sampling.
        num_slots: conversations.
        reach: steps of a conversation that can be taken back. The model's `rewind_steps` must
            allow as many once its window is full.
        memory: how keys and values are kept; the defaults if None.
        num_attended: length of what each condition lets every layer attend to; 0 for none.

    Attributes:
        config: as given.
    """

    def __init__(
        self,
        lm: LM,
        config: DuplexConfig,
        num_slots: int,
        reach: int = 0,
        memory: MemoryConfig | None = None,
        num_attended: int = 0,
    ) -> None:
        self._lm, self.config = lm, config
        self._num_made = lm.config.num_codebooks
        self._num_slots = num_slots
        # Guidance takes a second slot of the model for each conversation.
        self.state = lm.init_state(num_slots * self._sides, memory, num_attended)
        device = self.state.device
        self._delays = torch.tensor(config.delays, device=device)
        self._longest = max(config.delays)
        first = [lm.config.text_vocab] + [lm.config.codebook_size] * (len(config.delays) - 1)
        self._first = torch.tensor(first, device=device)
        # One row more takes what fills a batch up.
        shape = (num_slots + 1, len(config.delays), self._longest + 2)
        self._ring = torch.full(shape, UNDECIDED, device=device)
        self._calls = [0] * num_slots
        # The ring and the user's codes after each of the newest steps, [slots, reach + 1, ...].
        self._past = self._ring.new_full((num_slots + 1, reach + 1, *shape[1:]), UNDECIDED)
        self._heard = self._ring.new_full((num_slots + 1, reach + 1, self.num_user), UNDECIDED)
        self._oldest = [0] * num_slots  # the fewest steps of which the past is known

    @property
    def _sides(self) -> int:
        return 1 if self.config.guidance == 1.0 else 2

    @property
    def num_slots(self) -> int:
        """Return how many conversations there can be."""
        return self._num_slots

    @property
    def num_user(self) -> int:
        """Return how many codebooks the user has."""
        return len(self._delays) - 1 - self._num_made

    @property
    def num_made(self) -> int:
        """Return how many codebooks the model makes."""
        return self._num_made

    @property
    def longest_delay(self) -> int:
        """Return by how many frames the latest stream comes late."""
        return self._longest

    def num_calls(self, slot: int) -> int:
        """Return how many steps a conversation has had."""
        return self._calls[slot]

    def reset(self, slot: int) -> None:
        """Leave nothing of a conversation in its slot; the others are untouched."""
        self._ring[slot] = UNDECIDED
        self._past[slot] = UNDECIDED
        self._heard[slot] = UNDECIDED
        self._calls[slot] = self._oldest[slot] = 0
        for side in self._slots_of(slot):
            self.state.reset(side)

    def has_room(self, slots: Sequence[int]) -> bool:
        """Say whether there is memory for a step of these conversations together."""
        theirs = [side for slot in slots for side in self._slots_of(slot)]
        return self.state.has_room([[int(Kind.DUPLEX)]] * len(theirs), theirs)

    def rewind(self, slot: int, calls: int) -> Tensor | None:
        """Take back the newest steps of a conversation, as if they had never been.

        Args:
            slot: which one.
            calls: steps to keep, at most those that there were.

        Returns:
            int64 [steps taken back, codebooks of the user], what was heard in them; None if they
            are beyond reach, and then nothing has changed.
        """
        now, depth = self._calls[slot], self._past.shape[1]
        assert 0 <= calls <= now, (calls, now)
        if calls == now:
            return self._heard[slot, :0]
        # A worked example with a reach of 50: of a conversation that has had 200 steps, the rings
        # after steps 150 to 200 are known. Going back to 180 copies the ring of step 180, lets the
        # model forget 20 steps, and returns what the user said in them, so that it can be heard
        # once more.
        if calls < max(self._oldest[slot], 1):
            return None
        try:
            for side in self._slots_of(slot):
                self.state.rewind(side, max(calls - self.config.lag, 0))
        except RewindError:
            return None  # both sides are equally long, so neither has changed
        heard = self._heard[slot, [call % depth for call in range(calls + 1, now + 1)]]
        self._ring[slot] = self._past[slot, calls % depth]
        self._calls[slot] = calls
        return heard

    def snapshot(self, slot: int) -> DuplexMemory:
        """Copy a conversation into host memory; the slot is unchanged."""
        sides = tuple(self.state.snapshot(side) for side in self._slots_of(slot))
        return DuplexMemory(sides, self._ring[slot].to("cpu", copy=True), self._calls[slot])

    def restore(self, slot: int, memory: DuplexMemory) -> None:
        """Make a slot hold exactly the conversation that was kept; nothing of it can be taken back.

        Args:
            slot: any one; what it held is forgotten.
            memory: unchanged, and may be restored again.
        """
        self.reset(slot)
        for side, kept in zip(self._slots_of(slot), memory.sides, strict=True):
            self.state.restore(side, kept)
        self._ring[slot] = memory.ring.to(self._ring.device)
        self._calls[slot] = self._oldest[slot] = memory.calls

    @torch.inference_mode()
    def begin_with(self, slot: int, embedded: Tensor, ring: Tensor) -> None:
        """Begin a conversation with steps that were recorded as the model's inputs.

        Args:
            slot: a conversation that has not begun.
            embedded: float [N, dim], inputs of the model in the place of embedded tokens.
            ring: int64 [streams, columns], what was known of each stream after them, the frame at
                position p in column p modulo the columns.
        """
        assert self._calls[slot] == 0, "the conversation has begun"
        num = len(embedded)
        made = 1 + self._num_made
        nothing = self._ring.new_full((self._sides, num, len(self._delays)), -1)
        steps = Steps(
            text=nothing[..., 0],
            user=nothing[..., made:],
            assistant=nothing[..., 1:made],
            kind=torch.full_like(nothing[..., 0], int(Kind.DUPLEX)),
            position=torch.arange(num, device=self._ring.device).expand(self._sides, -1),
        )
        inputs = embedded.to(self.state.device, self.state.dtype).expand(self._sides, -1, -1)
        self._lm.step(steps, self.state, self._slots_of(slot), inputs)
        # The next step reads position N; of N + 1 there is what came late.
        # Streams with a delay have a token for the next position already: it belongs to a frame
        # that was begun. Streams without one have none yet.
        late = torch.where(self._delays > 0, ring[:, (num + 1) % ring.shape[1]], UNDECIDED)
        columns = self._ring.shape[2]
        self._ring[slot, :, num % columns] = ring[:, num % ring.shape[1]]
        self._ring[slot, :, (num + 1) % columns] = late
        self._calls[slot] = self._oldest[slot] = num + self.config.lag

    def _slots_of(self, slot: int) -> list[int]:
        """Return the model's slots of a conversation."""
        return [slot + side * self._num_slots for side in range(self._sides)]

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
        keys: Sequence[int] | None = None,
    ) -> DuplexFrame:
        """Hear a frame and make one.

        Args:
            slots: n distinct ones; what is not among them stands still.
            user: int64 [n, codebooks of the user].
            forced: int64 [n, 1 + K], what the frame that begins now must be: text and codes, -2
                where the model chooses. -1 is nothing at all.
            keys: of each row's noise: what is drawn depends on its key and on how many steps the
                conversation has had. 0 for all if None.

        Raises:
            OutOfPagesError: there is no memory for another step; nothing has happened then.
        """
        memory = self.state.advance(*self.planned(slots))
        return self.frame(self.inputs(slots, user, forced, keys).to(self.state.device), memory)

    def planned(
        self, slots: Sequence[int], num_rows: int | None = None
    ) -> tuple[list[list[int]], list[int]]:
        """Return the kinds and the model's slots of the next step, for `LMState.advance`.

        Rows that are still behind the user take no step, and are nobody's; so are those that fill
        up to `num_rows`.
        """
        num_filler = (num_rows or len(slots)) - len(slots)
        slots = [*slots, *[PADDING] * num_filler]
        has_begun = [slot != PADDING and self._calls[slot] >= self.config.lag for slot in slots]
        kinds = [[int(Kind.DUPLEX if begun else Kind.PAD)] for begun in has_begun]
        theirs = [
            slot + side * self._num_slots if begun else PADDING
            # The second half of the rows is the same conversations without their condition, in
            # slots of their own: with four slots, conversation 1 has the model's slots 1 and 5.
            for side in range(self._sides)
            for slot, begun in zip(slots, has_begun, strict=True)
        ]
        return kinds * self._sides, theirs

    def inputs(
        self,
        slots: Sequence[int],
        user: Tensor,
        forced: Tensor | None = None,
        keys: Sequence[int] | None = None,
        num_rows: int | None = None,
    ) -> FrameInputs:
        """Count a step of `slots` in and return what it reads, on the host.

        Args:
            slots: as `step` takes them.
            user: as `step` takes it.
            forced: as `step` takes it.
            keys: as `step` takes them.
            num_rows: rows to fill up to, with such as are nobody's.
        """
        num, num_user = len(slots), self.num_user
        packed = torch.zeros((num_rows or num, 4 + num_user + self._num_made), dtype=torch.int64)
        inputs = FrameInputs.of(packed, num_user)
        inputs.rows[num:] = self._num_slots
        inputs.calls[num:] = self.config.lag
        inputs.forced.fill_(UNDECIDED)
        inputs.rows[:num] = torch.tensor(slots, dtype=torch.int64)
        inputs.calls[:num] = torch.tensor([self._calls[slot] for slot in slots])
        if keys is not None:
            inputs.keys[:num] = torch.tensor(keys)
        inputs.user[:num] = user
        if forced is not None:
            inputs.forced[:num] = forced
        for slot in slots:
            self._calls[slot] += 1
            # A column of the past is written over after `reach + 1` steps.
            oldest = self._calls[slot] - self._past.shape[1] + 1
            self._oldest[slot] = max(self._oldest[slot], oldest)
        return inputs

    def nothing(self, num_rows: int) -> FrameInputs:
        """Return what a step of nobody reads."""
        none = torch.zeros((0, self.num_user), dtype=torch.int64)
        return self.inputs([], none, num_rows=num_rows)

    def frame(self, inputs: FrameInputs, memory: Sequence[LayerMemory | None]) -> DuplexFrame:
        """Do a step that is planned and counted.

        It runs on the device alone and the host waits for nothing in it, so it can be captured as a
        CUDA graph.

        Args:
            inputs: from `inputs`.
            memory: for each layer, of the rows that `planned` names.
        """
        config, lm, made = self.config, self._lm, 1 + self._num_made
        rows, position = inputs.rows[:, None], inputs.calls - config.lag
        has_begun = position >= 0
        # The user's frame is known now, and each of its codes goes to the column in which its
        # stream is due. What the model must say is for the position after this one.
        self._write(rows, slice(made, None), inputs.calls, inputs.user)
        self._write(rows, slice(made), position + 1, inputs.forced)
        heard = self._read(rows, position[:, None].expand(-1, len(self._delays)))
        heard = torch.where(position[:, None] <= self._delays, self._first, heard)
        hidden = self._run(inputs.rows, heard, position, memory)
        text_logits = guide(lm.text_logits(hidden), config.guidance)  # [n, text_out]
        decided = self._read(rows, (position + 1)[:, None].expand(-1, made))  # [n, 1 + K]
        text = sample(text_logits, config.text_sampling, self._noise(inputs, _Stream.TEXT))
        text = torch.where(decided[:, 0] == UNDECIDED, text, decided[:, 0])
        chosen = text[:, None]
        if self._num_made:
            codes = lm.depth.generate(
                hidden,
                text,
                config.audio_sampling,
                self._noise(inputs, _Stream.AUDIO),
                forced=decided[:, 1:],
                guidance=config.guidance,
            )
            chosen = torch.cat([chosen, codes], dim=1)
        streams = torch.arange(made, device=rows.device)
        column = (position[:, None] + 1) % self._ring.shape[2]  # [n, 1]
        self._ring[rows, streams, column] = torch.where(has_begun[:, None], chosen, decided)
        # The newest whole frame is the one that the latest stream has just completed. Of each
        # stream it is read at the frame's place plus that stream's delay: frame 3 of a stream that
        # is one late lies at position 4.
        newest = position[:, None] + 1 - self._longest
        tokens = self._read(rows, newest + self._delays[:made])
        tokens = torch.where(newest > 0, tokens, UNDECIDED)
        chosen = torch.where(has_begun[:, None], chosen, UNDECIDED)
        is_finite = text_logits.isfinite().all(-1) | ~has_begun
        self._note(inputs)
        return DuplexFrame(tokens, chosen, is_finite, hidden, text_logits)

    def _note(self, inputs: FrameInputs) -> None:
        """Keep what taking steps back takes."""
        column = (inputs.calls + 1) % self._past.shape[1]
        self._past[inputs.rows, column] = self._ring[inputs.rows]
        self._heard[inputs.rows, column] = inputs.user

    def _run(
        self,
        rows: Tensor,
        heard: Tensor,
        position: Tensor,
        memory: Sequence[LayerMemory | None],
    ) -> Tensor:
        """Take the backbone a step further, with guidance in both slots of each conversation."""
        made, sides = 1 + self._num_made, self._sides
        heard = heard.repeat(sides, 1)[:, None]  # [sides * n, 1, streams]
        steps = Steps(
            text=heard[..., 0],
            user=heard[..., made:],
            assistant=heard[..., 1:made],
            kind=torch.full(heard.shape[:2], int(Kind.DUPLEX), device=heard.device),
            position=position.clamp(min=0).repeat(sides)[:, None],
        )
        # The conditions of the slot that is nobody's are read and never used.
        theirs = torch.cat([rows + side * self._num_slots for side in range(sides)])
        theirs = theirs.clamp(max=self.state.num_slots - 1)
        conditions = self.state.conditions(theirs)
        return self._lm.run(steps, self._lm.embed(steps), memory, *conditions)[:, 0]

    def _write(self, rows: Tensor, streams: slice, frame: Tensor, tokens: Tensor) -> None:
        """Store a frame's tokens where their streams come late."""
        index = torch.arange(len(self._delays), device=rows.device)[streams]
        column = (frame[:, None] + self._delays[streams]) % self._ring.shape[2]
        self._ring[rows, index, column] = tokens

    def _read(self, rows: Tensor, column: Tensor) -> Tensor:
        """Return the tokens of the first streams at positions [n, streams]."""
        index = torch.arange(column.shape[1], device=rows.device)
        return self._ring[rows, index, column % self._ring.shape[2]]

    def _noise(self, inputs: FrameInputs, stream: _Stream) -> Tensor | None:
        """Draw what the choices of a step take; None if they are greedy."""
        config, lm = self.config, self._lm
        sampling, vocab = config.text_sampling, lm.text_head.out_features
        many: tuple[int, ...] = ()
        if stream is _Stream.AUDIO:
            sampling, vocab = config.audio_sampling, lm.config.codebook_size
            many = (self._num_made,)
        if sampling.temperature == 0:
            return None
        return exponential_noise(
            inputs.keys,
            inputs.calls,
            (*many, sampling.num_candidates(vocab)),
            stream=stream,
            backend=sampling.backend,
        )
