"""A duplex model with its codec around it: a frame of sound goes in, a frame of sound comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from model.cache.state import LMState
from model.cache.store import LayerMemory
from model.codec.mimi import Mimi, Rows
from model.duplex.driver import Duplex, DuplexFrame, FrameInputs
from model.duplex.work import Work
from model.transformer.depth import UNDECIDED


@dataclass(frozen=True, slots=True, eq=False)
class AudioInputs:
    """What a step reads besides memory, for `AudioDuplex.frame`.

    Attributes:
        frame: of the model; its user's codes count where nothing is heard.
        pcm: float32 [n, frame_samples], what is heard.
        hears: int64 [n], conversations whose users are heard; one more than there are elsewhere.
        speaks: int64 [n], conversations whose sound is wanted; likewise.
    """

    frame: FrameInputs
    pcm: Tensor
    hears: Tensor
    speaks: Tensor

    def to(self, device: torch.device) -> AudioInputs:
        """Return the inputs on `device`."""
        frame = self.frame.to(device)
        return AudioInputs(frame, *(t.to(device) for t in (self.pcm, self.hears, self.speaks)))

    def take(self, other: AudioInputs) -> None:
        """Let these tensors hold what `other` does, in place."""
        self.frame.take(other.frame)
        self.pcm.copy_(other.pcm)
        self.hears.copy_(other.hears)
        self.speaks.copy_(other.speaks)


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """What one step of n conversations gave.

    Attributes:
        frame: of the model.
        pcm: float32 [n, frame_samples] in [-1, 1]; means nothing in rows that did not want it.
    """

    frame: DuplexFrame
    pcm: Tensor

    def first(self, num_rows: int) -> AudioFrame:
        """Return the frame without the rows that only filled up."""
        return AudioFrame(self.frame.first(num_rows), self.pcm[:num_rows])


class AudioDuplex:
    """Drive a model and its codec in several slots.

    Args:
        duplex: the model.
        mimi: the codec, in evaluation mode, on the same device.

    Attributes:
        duplex: as given.
        encode_seconds, decode_seconds: what `step` has spent in the codec.
    """

    def __init__(self, duplex: Duplex, mimi: Mimi) -> None:
        self.duplex, self._mimi = duplex, mimi
        # One row more takes what nobody hears or says.
        self._encoder = mimi.init_encoder_state(duplex.num_slots + 1)
        self._decoder = mimi.init_decoder_state(duplex.num_slots + 1)
        self._pcm_dtype = next(mimi.parameters()).dtype
        self.encode_seconds = self.decode_seconds = 0.0

    @property
    def state(self) -> LMState:
        """Return what the model remembers."""
        return self.duplex.state

    @property
    def num_slots(self) -> int:
        """Return how many conversations there can be."""
        return self.duplex.num_slots

    def reset(self, slot: int) -> None:
        """Leave nothing of a conversation in its slot; the others are untouched."""
        self.duplex.reset(slot)
        self._encoder.reset(slot)
        self._decoder.reset(slot)

    def planned(
        self, slots: Sequence[int], num_rows: int | None = None
    ) -> tuple[list[list[int]], list[int]]:
        """Plan a step; see `Duplex.planned`."""
        return self.duplex.planned(slots, num_rows)

    @torch.inference_mode()
    def step(
        self, slots: Sequence[int], work: Sequence[Work], keys: Sequence[int] | None = None
    ) -> AudioFrame:
        """Hear a frame and make one; only what is heard and wanted goes through the codec.

        Args:
            slots: n distinct ones; what is not among them stands still.
            work: what each is fed.
            keys: of each row's noise, as for `Duplex.step`.

        Raises:
            OutOfPagesError: there is no memory for another step; nothing has happened then.
        """
        device, memory = self.state.device, self.state.advance(*self.planned(slots))
        inputs = self.inputs(slots, work, keys)
        frame = inputs.frame.to(device)
        start = perf_counter()
        hearing = [i for i, each in enumerate(work) if each.heard is not None]
        if hearing:
            pcm = inputs.pcm[hearing].to(device, self._pcm_dtype)
            # [hearing, K]
            codes = self._mimi.encode_step(pcm, self._encoder, inputs.hears[hearing])[:, 0]
            frame.user[hearing] = codes[:, : self.duplex.num_user]
        self.encode_seconds += perf_counter() - start
        made = self.duplex.frame(frame, memory)
        start = perf_counter()
        sound = torch.zeros(inputs.pcm.shape, device=device)  # [n, frame_samples]
        speaking = [i for i, each in enumerate(work) if each.is_wanted]
        if speaking:
            codes = made.tokens[speaking, None, 1:]
            pcm = self._mimi.decode_step(codes, self._decoder, inputs.speaks[speaking])
            sound[speaking] = pcm.float().clamp(-1, 1)
        self.decode_seconds += perf_counter() - start
        return AudioFrame(made, sound)

    def inputs(
        self,
        slots: Sequence[int],
        work: Sequence[Work],
        keys: Sequence[int] | None = None,
        num_rows: int | None = None,
    ) -> AudioInputs:
        """Count a step of `slots` in and return what it reads, on the host.

        Args:
            slots: as `step` takes them.
            work: as `step` takes it.
            keys: as `step` takes them.
            num_rows: rows to fill up to, with such as are nobody's.
        """
        num, num_all = len(work), num_rows or len(work)
        user = np.zeros((num, self.duplex.num_user), np.int64)
        forced = np.full((num, 1 + self.duplex.num_made), UNDECIDED, np.int64)
        pcm = np.zeros((num_all, self._mimi.frame_samples), np.float32)
        # Rows in which nobody is heard, or whose sound nobody wants, still go through the codec in
        # a captured graph. They write into a row of the codec's state that belongs to no
        # conversation, the last one.
        hears, speaks = np.full((2, num_all), self.num_slots, np.int64)
        for i, (slot, each) in enumerate(zip(slots, work, strict=True)):
            if each.heard is not None:
                pcm[i], hears[i] = each.heard, slot
            elif each.user is not None:
                user[i] = each.user
            if each.forced is not None:
                forced[i] = each.forced
            if each.is_wanted:
                speaks[i] = slot
        frame = self.duplex.inputs(
            slots, torch.from_numpy(user), torch.from_numpy(forced), keys, num_rows
        )
        return AudioInputs(frame, *(torch.from_numpy(array) for array in (pcm, hears, speaks)))

    def nothing(self, num_rows: int) -> AudioInputs:
        """Return what a step of nobody reads."""
        return self.inputs([], [], num_rows=num_rows)

    def frame(self, inputs: AudioInputs, memory: Sequence[LayerMemory | None]) -> AudioFrame:
        """Do a step that is planned and counted; all of it on the device, see `Duplex.frame`."""
        pcm = inputs.pcm.to(self._pcm_dtype)
        codes = self._mimi.encode_step(pcm, self._encoder, Rows.on_device(inputs.hears))[:, 0]
        is_heard = (inputs.hears < self.num_slots)[:, None]
        known = inputs.frame.user
        # What was heard counts where there was something; elsewhere the user's codes were given, as
        # in a prompt or a replay.
        user = torch.where(is_heard, codes[:, : self.duplex.num_user], known)
        made = self.duplex.frame(replace(inputs.frame, user=user), memory)
        # Rows of which no frame is whole yet say something that nobody hears.
        said = made.tokens[:, None, 1:].clamp(min=0)
        sound = self._mimi.decode_step(said, self._decoder, Rows.on_device(inputs.speaks))
        return AudioFrame(made, sound.float().clamp(-1, 1))
