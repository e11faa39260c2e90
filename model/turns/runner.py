"""Run the networks for a batch of slots. Knows tensors and nothing of sessions, queues or time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from model.arrays import Ints, Scores
from model.cache.state import Steps
from model.codec.mel import CodecState, MelCodec
from model.engine.config import EngineConfig
from model.errors import OutOfPagesError
from model.messages import Pcm
from model.metrics import EngineMetrics
from model.sampling import Sampling
from model.transformer.lm import LM
from model.transformer.sampling import draw_noise, sample
from model.turns.history import StepBlock
from model.turns.pager import Pager
from model.turns.steps import Mask, NextSteps
from model.vocabulary import TurnVocabulary

_ITSELF = -1  # where no other piece is to be weighed


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for the next steps of one slot."""

    slot: int
    steps: NextSteps
    noise: torch.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the model made of a request.

    Attributes:
        pieces: int64, one for each of the masks; None without masks.
        scores: float32 [masks, 2], log-probabilities of these and of the pieces that are weighed,
            for masks of transcripts; 0 for others.
        codes: int64 [K], None if none were wanted.
        is_finite: whether the numbers behind them mean anything.
        sure: that the user's turn is over, 0 to 1, if a frame of the user was heard and the model
            has a head for it.
    """

    pieces: Ints | None = None
    scores: Scores | None = None
    codes: Ints | None = None
    is_finite: bool = True
    sure: float | None = None


class Runner:
    """Hold the networks and the state of all slots.

    Args:
        lm: language model, in evaluation mode.
        codec: tokenizer and vocoder, in evaluation mode.
        vocabulary: to know which pieces each phase allows.
        config: number of slots, sampling.
        metrics: where time is counted.
    """

    def __init__(
        self,
        lm: LM,
        codec: MelCodec,
        vocabulary: TurnVocabulary,
        config: EngineConfig,
        metrics: EngineMetrics,
    ) -> None:
        self._lm, self._codec = lm, codec
        self._config, self._metrics = config, metrics
        self._device = lm.norm.weight.device
        self._masks = _mask_table(vocabulary, lm.config.text_vocab).to(self._device)
        self.reset()

    def reset(self) -> None:
        """Start over with fresh state in every slot."""
        num_slots = self._config.max_sessions
        self._pager = Pager(self._lm, self._config, self._metrics)
        self._encoder: CodecState = self._codec.init_encoder_state(num_slots)
        self._decoder: CodecState = self._codec.init_decoder_state(num_slots)

    def wipe(self, slot: int) -> None:
        """Leave nothing of a session in its slot."""
        self._pager.wipe(slot)
        self._codec.reset_encoder(self._encoder, slot)
        self._codec.reset_decoder(self._decoder, slot)

    def seek(self, slot: int, length: int) -> bool:
        """Bring the model's memory of `slot` back to its first `length` steps.

        Returns:
            False if it no longer can; the memory is then empty.
        """
        return self._pager.seek(slot, length)

    def recall(self, slot: int, prompt: StepBlock) -> int:
        """Let a slot begin with what is known of its beginning; see `Pager.recall`."""
        return self._pager.recall(slot, prompt)

    def encode(self, slots: Sequence[int], frames: Sequence[Pcm], is_first: Sequence[bool]) -> Ints:
        """Encode one frame each of several users.

        Args:
            slots: n distinct slots.
            frames: n times float32 [frame_samples].
            is_first: whether a new stream begins, n.

        Returns:
            int64 [n, K].
        """
        start = perf_counter()
        for slot, first in zip(slots, is_first, strict=True):
            if first:
                self._codec.reset_encoder(self._encoder, slot)
        pcm = torch.from_numpy(np.stack(frames)).to(self._device)  # [n, frame_samples]
        codes = self._codec.encode_step(pcm, self._encoder, self._index(slots))[:, 0]  # [n, K]
        self._metrics.encode_seconds += perf_counter() - start
        return codes.cpu().numpy()

    def decode(self, slots: Sequence[int], codes: Sequence[Ints], is_first: Sequence[bool]) -> Pcm:
        """Decode one step each of several replies.

        Args:
            slots: n distinct slots.
            codes: n times int64 [K], as delayed; -1 where absent.
            is_first: whether a new stream begins, n.

        Returns:
            float32 [n, frame_samples].
        """
        start = perf_counter()
        for slot, first in zip(slots, is_first, strict=True):
            if first:
                self._codec.reset_decoder(self._decoder, slot)
        batch = torch.from_numpy(np.stack(codes))[:, None].to(self._device)  # [n, 1, K]
        pcm = self._codec.decode_step(batch, self._decoder, self._index(slots))
        self._metrics.decode_seconds += perf_counter() - start
        return pcm.cpu().numpy()

    def step(self, requests: Sequence[Request]) -> list[Result]:
        """Run the model for distinct slots that have seen what their steps start from.

        Single steps of all slots run together; a longer block runs by itself, since filling the
        others up to its length would cost them the same time.

        Returns:
            One result a request, in their order.
        """
        # Three speaking sessions and one that is fed an item of 40 pieces: the three run as [3, 1]
        # and the fourth as [1, 40]. As one batch they would be [4, 40], with 117 columns of
        # padding.
        single = [i for i, r in enumerate(requests) if len(r.steps.block) == 1]
        single.sort(key=lambda i: requests[i].slot)  # neighbouring slots are fastest
        groups = [[i] for i, r in enumerate(requests) if len(r.steps.block) > 1]
        if single:
            groups.append(single)
        results = [Result()] * len(requests)
        while groups:
            group = groups.pop(0)
            try:
                made = self._run([requests[i] for i in group])
            except OutOfPagesError:
                if len(group) == 1:
                    raise
                half = len(group) // 2  # all together they have no room, so they take turns
                groups[:0] = [group[:half], group[half:]]
                continue
            for i, result in zip(group, made, strict=True):
                results[i] = result
        return results

    def _run(self, group: list[Request]) -> list[Result]:
        """Run requests whose blocks are equally long."""
        start = perf_counter()
        steps, slots = _to_steps(group, self._device), [r.slot for r in group]
        state, embedded = self._pager.state, self._seen(group, steps)
        hidden = self._pager.run(
            slots, lambda: self._lm.step(steps, state, slots, embedded)
        )  # [n, T, dim]
        wanted = [
            hidden[row, -len(r.steps.masks) :] for row, r in enumerate(group) if r.steps.masks
        ]
        if not wanted:
            self._metrics.lm_seconds += perf_counter() - start
            return [Result() for _ in group]
        pieces, scores, is_finite = self._choose_pieces(group, torch.cat(wanted))
        self._metrics.lm_seconds += perf_counter() - start
        codes, sure = self._choose_codes(group, hidden, pieces), self._sure(group, hidden)
        results, done = [], 0
        for r, row_codes, row_sure in zip(group, codes, sure, strict=True):
            num = len(r.steps.masks)
            if not num:
                results.append(Result())
                continue
            chosen = slice(done, done + num)
            done += num
            is_good = bool(is_finite[chosen].all())
            results.append(Result(pieces[chosen], scores[chosen], row_codes, is_good, row_sure))
        return results

    def _seen(self, group: list[Request], steps: Steps) -> Tensor | None:
        """Embed steps in which something is seen, float [n, T, dim]; None if nothing is."""
        patches = [patch for r in group for patch in r.steps.block.patches]
        if not patches:
            return None
        values = torch.from_numpy(np.stack([patch.values for patch in patches])).to(self._device)
        return self._lm.embed(steps, values, self._index([patch.place for patch in patches]))

    def _sure(self, group: list[Request], hidden: Tensor) -> list[float | None]:
        """Say of whom a frame was heard how sure the model is that the turn is over."""
        sure: list[float | None] = [None] * len(group)
        heard = [row for row, r in enumerate(group) if r.steps.masks == (Mask.LISTEN,)]
        if heard and self._lm.config.has_end_head:
            made = self._lm.end_logits(hidden[heard, -1]).sigmoid().tolist()
            for row, row_sure in zip(heard, made, strict=True):
                sure[row] = row_sure
        return sure

    def _choose_pieces(
        self, group: list[Request], hidden: Tensor
    ) -> tuple[Ints, Scores, np.ndarray]:
        """Choose text pieces for `hidden: [masks of all requests, dim]`, request by request.

        Returns:
            Pieces, their scores where these are wanted, and whether the numbers mean anything.
        """
        logits = self._lm.text_logits(hidden).float()  # [rows, text_vocab]
        is_finite = logits.isfinite().all(-1)  # [rows]
        # Rows are in the order of the requests, and within one in the order of its steps: a request
        # with three masks has three rows. So `row` below runs along, and ends at the last row of
        # each request.
        wanted = [(mask, r) for r in group for mask in r.steps.masks]
        allowed = self._masks[[int(mask) for mask, _ in wanted]]  # [rows, text_vocab], a copy
        row = -1
        for r in group:
            row += len(r.steps.masks)
            if r.steps.also:
                allowed[row, list(r.steps.also)] = 0.0
        # Added, not multiplied: -inf where a piece may not stand, whatever its logit is.
        logits += allowed
        pieces = logits.argmax(-1)  # [rows]
        sampling = self._config.reply_sampling
        rows = [row for row, (mask, _) in enumerate(wanted) if mask in (Mask.REPLY, Mask.CALL)]
        if sampling.temperature > 0 and rows:
            noise = [wanted[row][1].noise for row in rows]
            pieces[rows] = self._draw(logits[rows], sampling, noise)
        scores = self._scores(group, logits, pieces)
        return pieces.cpu().numpy(), scores, is_finite.cpu().numpy()

    def _scores(self, group: list[Request], logits: Tensor, pieces: Tensor) -> Scores:
        """Weigh the pieces of transcripts, float32 [masks of all requests, 2]; 0 elsewhere."""
        scores = np.zeros((len(pieces), 2), np.float32)
        wanted = [
            (mask, r.steps.weighed[i] if i < len(r.steps.weighed) else _ITSELF)
            for r in group
            for i, mask in enumerate(r.steps.masks)
        ]
        rows = [row for row, (mask, _) in enumerate(wanted) if mask is Mask.TRANSCRIPT]
        if not rows:
            return scores
        # Both are read off the same row of the softmax. Where nothing else is weighed, the second
        # is the first, so that every row has two.
        put_out, weighed = pieces[rows], self._index([wanted[row][1] for row in rows])
        both = torch.stack([put_out, torch.where(weighed == _ITSELF, put_out, weighed)], dim=1)
        scores[rows] = logits[rows].log_softmax(-1).gather(1, both).cpu().numpy()
        return scores

    def _choose_codes(
        self, group: list[Request], hidden: Tensor, pieces: Ints
    ) -> list[Ints | None]:
        speaking = [row for row, r in enumerate(group) if r.steps.has_codes]
        codes: list[Ints | None] = [None] * len(group)
        if not speaking:
            return codes
        start = perf_counter()
        last = np.cumsum([len(r.steps.masks) for r in group]) - 1  # a request's last piece
        sampling = self._config.audio_sampling
        noise = None
        if sampling.temperature > 0:
            config = self._lm.config
            shape = (config.num_codebooks, sampling.num_candidates(config.codebook_size))
            noise = draw_noise([group[row].noise for row in speaking], shape).to(self._device)
        made = self._lm.depth.generate(
            hidden[speaking, -1], self._index(pieces[last[speaking]]), sampling, noise
        )
        for row, row_codes in zip(speaking, made.cpu().numpy(), strict=True):
            codes[row] = row_codes
        self._metrics.depth_seconds += perf_counter() - start
        return codes

    def _draw(self, logits: Tensor, sampling: Sampling, noise: list[torch.Generator]) -> Tensor:
        shape = (sampling.num_candidates(logits.shape[-1]),)
        return sample(logits, sampling, draw_noise(noise, shape).to(self._device))

    def _index(self, values: Sequence[int] | Ints) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int64, device=self._device)


def _to_steps(group: list[Request], device: torch.device) -> Steps:
    blocks = [r.steps.block for r in group]
    start = np.array([[r.steps.start] for r in group])  # [n, 1]
    position = start + np.arange(len(blocks[0]))  # [n, T]
    parts = (
        np.stack([b.text for b in blocks]),
        np.stack([b.user for b in blocks]),
        np.stack([b.assistant for b in blocks]),
        np.stack([b.kind for b in blocks]),
        position,
    )
    return Steps(*(torch.from_numpy(part).to(device) for part in parts))


def _mask_table(vocabulary: TurnVocabulary, text_vocab: int) -> Tensor:
    """Return float [masks, text_vocab], to be added to logits: 0 where allowed, else -inf."""
    table = torch.full((len(Mask), text_vocab), -torch.inf)
    table[Mask.NOTHING] = 0.0
    words = slice(vocabulary.num_special, len(vocabulary.pieces))
    ends_of_transcripts = [vocabulary.reply]
    if vocabulary.is_taught_prompts:
        ends_of_transcripts.append(vocabulary.unsure)
    for mask, special in (
        (Mask.LISTEN, [vocabulary.pad, vocabulary.end]),
        (Mask.TRANSCRIPT, ends_of_transcripts),
        (Mask.REPLY, [vocabulary.speak]),
    ):
        table[mask, words] = 0.0
        table[mask, special] = 0.0
    table[Mask.SPEAK, [vocabulary.pad, vocabulary.eos]] = 0.0
    return table
