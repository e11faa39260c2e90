"""What a smaller number format costs: two exports of one model, choice by choice.

Conversations show what a user would notice, but after the first differing piece two replies cannot
be compared any more. Here both models are fed the same, right steps, so every choice counts alone:
the share of steps at which both find the same piece, or the same code, most likely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.assemble.weights import Starter
from model.cache.state import Kind, Steps
from model.errors import ConfigError
from model.text import Special
from model.training.encode_stage import CodedClip
from model.training.evaluation.conditions import Case
from model.training.evaluation.conversation import Wave
from model.training.evaluation.report import Comparison, Report, comparison_table
from model.training.evaluation.resynthesis import FRAME_SAMPLES, Codec
from model.training.evaluation.users import Users
from model.training.layout import NO_TARGET, Pieces, Rows, SpokenTurn, lay_out
from model.training.speech.types import Speech, SynthesisError
from model.transformer.lm import LM

SpeakReply = Callable[[str, str], Speech]
"""Speak a reply: the assistant's voice and the text."""

_TEXT_TITLES = {
    "live": "live transcript",
    "live_pieces": "  where a piece is due",
    "transcript": "final transcript",
    "reply": "reply",
    "spoken": "words while speaking",
    "spoken_pieces": "  where a piece is due",
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two models choose the same.

    Attributes:
        steps: choices that both had to make.
        same: those in which both chose alike.
        first_right: those in which the first chose what the dialogue has; `second_right` likewise.
    """

    steps: int
    same: int
    first_right: int
    second_right: int

    @property
    def shares(self) -> tuple[float | None, ...]:
        """Shares of same, first right and second right; None each when nothing was chosen."""
        counts = (self.same, self.first_right, self.second_right)
        return tuple(count / self.steps if self.steps else None for count in counts)

    def to_json(self) -> dict[str, Any]:
        """Give the figures under stable names."""
        names = ("same", "first_right", "second_right")
        rounded = [None if share is None else round(share, 5) for share in self.shares]
        return {"steps": self.steps, **dict(zip(names, rounded, strict=True))}


@dataclass(slots=True)
class _Tally:
    """Counts choices by kind."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, name: str, first: Tensor, second: Tensor, right: Tensor) -> None:
        """Count choices int64 [N] of both models against the right ones."""
        counter = self.counts.setdefault(name, Counter())
        counter["steps"] += len(right)
        counter["same"] += int((first == second).sum())
        counter["first_right"] += int((first == right).sum())
        counter["second_right"] += int((second == right).sum())

    def agreements(self) -> dict[str, Agreement]:
        """Give what was counted."""
        names = ("steps", "same", "first_right", "second_right")
        return {
            name: Agreement(*(counter[part] for part in names))
            for name, counter in self.counts.items()
        }


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """Two models over the same conversations, and choice by choice.

    Attributes:
        first: scores of the reference, called A; `second` of the model in question, called B.
        comparisons: of the scores, one for each condition and one over all.
        agreements: by kind of choice: `live`, `live_pieces` (where a piece is due), `transcript`,
            `reply`, `spoken`, `spoken_pieces`, `semantic`, `acoustic` and `acoustic_1`...
        num_dialogues: that `agreements` were counted over.
    """

    first: Report
    second: Report
    comparisons: tuple[Comparison, ...]
    agreements: dict[str, Agreement]
    num_dialogues: int

    def table(self) -> str:
        """Lay the comparison out for reading."""
        return comparison_table(self.comparisons) + "\n\n" + agreement_table(self.agreements)

    def to_json(self) -> dict[str, Any]:
        """Give all figures, for one JSON line."""
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "comparison": [pair.to_json() for pair in self.comparisons],
            "agreement": {name: a.to_json() for name, a in self.agreements.items()},
            "agreement_dialogues": self.num_dialogues,
        }


def agreement_table(agreements: dict[str, Agreement]) -> str:
    """Lay agreements out for reading; the first model is A, the second B."""
    header = f"{'same choice, step by step':36}{'steps':>8}{'same':>9}{'A right':>9}{'B right':>9}"
    lines = [header, "-" * len(header)]
    for name, agreement in agreements.items():
        title = _TEXT_TITLES.get(name, f"codes, {name.replace('_', ' ')}")
        cells = "".join(f"{100 * share:9.2f}" for share in agreement.shares if share is not None)
        lines.append(f"{title:36}{agreement.steps:>8}{cells}")
    return "\n".join(lines)


def check_comparable(first: Starter, second: Starter) -> None:
    """Refuse models that are not exports of the same one.

    Raises:
        ConfigError: naming what differs.
    """
    for what, one, two in (
        ("text pieces", first.tokenizer.pieces, second.tokenizer.pieces),
        ("voices", first.voices, second.voices),
        ("codes", _code_space(first), _code_space(second)),
    ):
        if one != two:
            raise ConfigError(f"the models to compare have different {what}")


def _code_space(starter: Starter) -> tuple[int, int, tuple[int, ...]]:
    config = starter.lm.config
    return config.num_codebooks, config.codebook_size, tuple(config.delays)


@dataclass(frozen=True, slots=True)
class Studio:
    """What turns a conversation's texts into steps.

    Attributes:
        codec: encodes what both sides say.
        num_codebooks: K.
        pieces: the tokenizer.
        voices: of the assistant, in the order of their pieces.
        users: who speaks to the model.
        speak: the assistant's voices, as training had them.
    """

    codec: Codec
    num_codebooks: int
    pieces: Pieces
    voices: tuple[str, ...]
    users: Users
    speak: SpeakReply

    def lay_out(self, case: Case, seed: int) -> Rows:
        """Lay a conversation out as training would, spoken by a voice known from training.

        Raises:
            SynthesisError: a voice cannot say it.
        """
        user = self.users.choose("known", seed, case.number)
        turns = []
        for turn in case.dialogue:
            asked = self.users.speak(user, turn.user)
            answer = self.speak(case.voice, turn.reply)
            words = tuple((w.text, w.start_s, w.end_s) for w in answer.words)
            said = self._encode(answer.pcm.astype(np.float32) / np.float32(32768), words)
            heard = self._encode(asked.pcm, asked.words)
            turns.append(SpokenTurn(turn.user, turn.reply, heard, said))
        voice = self.voices.index(case.voice)
        return lay_out(turns, voice, self.pieces, self.num_codebooks, [0] * len(turns))

    def _encode(self, wave: Wave, words: tuple[tuple[str, float, float], ...]) -> CodedClip:
        padded = np.pad(wave, (0, -len(wave) % FRAME_SAMPLES)).astype(np.float32)
        codes = self.codec.encode(torch.from_numpy(padded)[None])[0]
        return CodedClip(codes.numpy().astype(np.int16), words)


def lay_out_all(studio: Studio, cases: Sequence[Case], seed: int) -> Iterator[Rows]:
    """Lay out conversations one by one; one that a synthesiser cannot say is left out."""
    for case in tqdm(cases, desc="agreement", unit="dialogue", mininterval=5.0, disable=None):
        try:
            yield studio.lay_out(case, seed)
        except SynthesisError as error:
            tqdm.write(f"left out: {error}")


@torch.inference_mode()
def compare_choices(
    first: LM, second: LM, dialogues: Iterable[Rows]
) -> tuple[dict[str, Agreement], int]:
    """Feed both models the same dialogues and count where they choose the same.

    Args:
        first: the reference, in evaluation mode.
        second: the model in question, of the same pieces and codes.
        dialogues: spoken on both sides.

    Returns:
        Agreements as in `PrecisionReport`, and the number of dialogues.
    """
    tally, num_dialogues = _Tally(), 0
    for rows in dialogues:
        num_dialogues += 1
        steps, codes = _to_steps(rows), _stack(rows.codes, rows.num_codebooks)
        target = torch.tensor(rows.target)
        names = np.array(_text_names(rows))
        speaking = (codes >= 0).any(dim=-1)
        # Both models are fed the right steps, so that an early difference does not make all that
        # follows differ. What is compared is each choice by itself.
        pieces, frames = zip(
            *(_choose(lm, steps, target, codes, speaking) for lm in (first, second)), strict=True
        )
        for name in _TEXT_TITLES:
            # "live" counts every frame, and most of them rightly say nothing. "live_pieces" counts
            # those in which a word is due: there a model that says nothing is found out.
            is_asked = torch.from_numpy(names == name.removesuffix("_pieces"))
            is_asked &= target != NO_TARGET
            if name.endswith("_pieces"):
                is_asked &= target != Special.PAD
            tally.add(name, pieces[0][is_asked], pieces[1][is_asked], target[is_asked])
        _add_codes(tally, frames, codes[speaking])
    return tally.agreements(), num_dialogues


def _add_codes(tally: _Tally, frames: Sequence[Tensor], right: Tensor) -> None:
    """Count the codes int64 [N, K] that both chose, by codebook; -1 in `right` asks for none."""
    books = right.shape[1]
    for name, group in (
        ("semantic", [0]),
        ("acoustic", list(range(1, books))),
        *((f"acoustic_{k}", [k]) for k in range(1, books)),
    ):
        # -1 in the codes that are right means that the frame has none there: the first frame of a
        # reply has no acoustic codes yet.
        is_asked = right[:, group] >= 0
        first, second = (chosen[:, group][is_asked] for chosen in frames)
        tally.add(name, first, second, right[:, group][is_asked])


def _choose(
    lm: LM, steps: Steps, target: Tensor, codes: Tensor, speaking: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the most likely piece of every step, [T], and code of every spoken one, [N, K]."""
    hidden = lm(steps)[0]
    pieces = lm.text_logits(hidden).argmax(dim=-1)
    # The depth transformer is fed the true piece and the true codes before each code: one pass
    # tells all choices of a frame.
    logits = lm.depth(hidden[speaking], target[speaking].clamp(min=0), codes[speaking])
    return pieces, logits.argmax(dim=-1)


def _to_steps(rows: Rows) -> Steps:
    """Make a dialogue a batch of one, clean: nothing hidden and nothing fed back wrong."""
    position = np.arange(len(rows)) + np.cumsum(rows.jumps)
    return Steps(
        text=torch.tensor(rows.text)[None],
        user=_stack(rows.user, rows.num_codebooks)[None],
        assistant=_stack(rows.assistant, rows.num_codebooks)[None],
        kind=torch.tensor(rows.kind)[None],
        position=torch.from_numpy(position)[None],
    )


def _stack(column: Sequence[np.ndarray | None], books: int) -> Tensor:
    """Make a column of codes int64 [T, K], -1 where there are none."""
    absent = np.full(books, -1)
    codes = np.stack([absent if frame is None else frame for frame in column])
    return torch.from_numpy(codes.astype(np.int64))


def _text_names(rows: Rows) -> list[str]:
    """Name what the text of every step is: `live`, `transcript`, `reply`, `spoken` or nothing."""
    names, written = [], ""
    # A worked example: <user> what is <reply> four <speak> SPEAK ... The steps from <user> on are
    # "transcript", from <reply> on "reply", and the SPEAK steps "spoken" whatever was written
    # before.
    for kind, piece in zip(rows.kind, rows.text, strict=True):
        if kind == Kind.TEXT:
            written = {int(Special.USER): "transcript", int(Special.REPLY): "reply"}.get(
                piece, written
            )
        names.append({int(Kind.LISTEN): "live", int(Kind.SPEAK): "spoken"}.get(kind, written))
    return names
