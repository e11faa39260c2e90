"""Two models choice by choice: equal ones agree on everything, others less, where they differ."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.assemble.weights import Starter, save_starter
from model.codec.mel import MelCodec, MelCodecConfig
from model.config import LMConfig
from model.errors import ConfigError
from model.text import Tokenizer
from model.training.evaluation.conditions import CONDITIONS, draw_cases
from model.training.evaluation.evaluate import Ears, EvalOptions, run_comparison
from model.training.evaluation.precision import (
    Studio,
    agreement_table,
    check_comparable,
    compare_choices,
    lay_out_all,
)
from model.training.evaluation.users import Spoken
from model.training.layout import NO_TARGET, Rows
from model.training.speech.types import Phone, Speech, SynthesisError, Word
from model.transformer.lm import LM

VOICES = ("one", "two")
CASES = draw_cases(3, 5, VOICES)
TEXTS = [text for case in CASES for turn in case.dialogue for text in (turn.user, turn.reply)]
BOOKS = 3


def hum(voice: str, text: str) -> Speech:
    """Say each word as 0.2 s of noise."""
    words = [Word(word, 0.2 * i, 0.2 * i + 0.2) for i, word in enumerate(text.split())]
    rng = np.random.default_rng([len(voice), len(text)])
    pcm = rng.integers(-9000, 9000, 3200 * len(words)).astype(np.int16)
    return Speech(pcm, tuple(words), (Phone("aa", 0.0, 0.2 * len(words)),))


class HummingUsers:
    """One user, who hums."""

    def skipped(self, voices: str) -> tuple[str, ...]:
        """Everybody is here."""
        del voices
        return ()

    def choose(self, voices: str, seed: int, number: int) -> str:
        """Take the only one, who is known from training."""
        assert voices == "known"
        return f"ann {seed} {number}"

    def group(self, voice: str) -> str:
        """Everybody counts alone."""
        return voice

    def speak(self, voice: str, text: str) -> Spoken:
        """Hum with room for the last word's pieces and the end."""
        if voice.endswith(" 2"):
            raise SynthesisError("has a cold")
        hummed = (hum(voice, text).pcm / 32768).astype(np.float32)
        pcm = np.pad(hummed, (0, 24_000))
        words = tuple((w.text, w.start_s, w.end_s) for w in hum(voice, text).words)
        return Spoken(pcm, round(200 * len(words)), words)


@pytest.fixture(scope="module")
def starter() -> Starter:
    """Make a tiny random model."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(TEXTS, vocab_size=120)
    codec = MelCodec(
        MelCodecConfig(
            codebook_size=16, num_acoustic=BOOKS - 1, semantic_dim=4, acoustic_dim=8, channels=16,
            encoder_blocks=1, decoder_blocks=1, hop_channels=16, hop_blocks=1,
        )
    )  # fmt: skip
    config = LMConfig(
        dim=32, num_layers=2, num_heads=2, num_kv_heads=2, ff_dim=48, text_vocab=len(tokenizer),
        num_codebooks=BOOKS, codebook_size=16, audio_rank=8, delays=(0, 1, 1), depth_dim=32,
        depth_layers=1, depth_heads=2, depth_ff=48,
    )  # fmt: skip
    lm = LM(config)
    lm.set_codebook_vectors(codec.codebook_vectors())
    lm.requires_grad_(requires_grad=False)
    return Starter(lm.eval(), codec.eval(), tokenizer, VOICES)


@pytest.fixture(scope="module")
def studio(starter: Starter) -> Studio:
    """Make what lays the dialogues out."""
    return Studio(starter.codec, BOOKS, starter.tokenizer, VOICES, HummingUsers(), hum)


@pytest.fixture(scope="module")
def dialogues(studio: Studio) -> list[Rows]:
    """Lay two dialogues out; the user of the third has a cold."""
    rows = list(lay_out_all(studio, CASES, 0))
    assert len(rows) == 2
    return rows


def test_equal_models_agree_on_everything(starter: Starter, dialogues: list[Rows]) -> None:
    """All choices of the dialogues are counted, and all are the same."""
    agreements, num_dialogues = compare_choices(starter.lm, deepcopy(starter.lm), dialogues)
    assert num_dialogues == 2
    assert all(a.same == a.steps > 0 for a in agreements.values())
    assert all(a.first_right == a.second_right for a in agreements.values())
    text = sum(agreements[name].steps for name in ("live", "transcript", "reply", "spoken"))
    assert text == sum(target != NO_TARGET for rows in dialogues for target in rows.target)


def test_steps_are_counted_by_what_they_say(starter: Starter, dialogues: list[Rows]) -> None:
    """Pieces of questions and replies, and codes of frames, are as many as were spoken."""
    agreements, _ = compare_choices(starter.lm, starter.lm, dialogues)
    encode = starter.tokenizer.encode
    turns = [turn for case in CASES[:2] for turn in case.dialogue]
    words = [word for turn in turns for word in turn.user.split()]
    # What was asked is closed by the reply's mark, the reply by the one that starts its audio.
    assert agreements["transcript"].steps == sum(len(encode(t.user)) + 1 for t in turns)
    assert agreements["reply"].steps == sum(len(encode(t.reply)) + 1 for t in turns)
    assert agreements["live_pieces"].steps == sum(len(encode(w)) for w in words) + len(turns)
    frames = sum(-(-len(hum("", t.reply).pcm) // 1280) for t in turns)
    assert agreements["spoken"].steps == frames + len(turns)
    assert agreements["semantic"].steps == agreements["acoustic_1"].steps == frames
    assert agreements["acoustic"].steps == (BOOKS - 1) * frames


def test_perturbed_model_agrees_less(starter: Starter, dialogues: list[Rows]) -> None:
    """Small changes of the weights cost some agreement, large ones more."""
    shares = []
    for size in (0.05, 1.0):
        other = deepcopy(starter.lm)
        torch.manual_seed(1)
        for parameter in other.parameters():
            parameter.add_(size * parameter.std() * torch.randn_like(parameter))
        agreements, _ = compare_choices(starter.lm, other, dialogues)
        shares.append((agreements["live"].same, agreements["acoustic"].same))
        assert agreements["live"].same < agreements["live"].steps
    assert shares[0] > shares[1]
    assert shares[0][1] > shares[1][1]


def test_only_what_differs_is_counted_as_different(starter: Starter, dialogues: list[Rows]) -> None:
    """Another head of one codebook leaves the pieces and the other codebooks alone."""
    other = deepcopy(starter.lm)
    other.depth.heads[2].weight.neg_()
    agreements, _ = compare_choices(starter.lm, other, dialogues)
    differing = {name for name, a in agreements.items() if a.same < a.steps}
    assert differing == {"acoustic", "acoustic_2"}
    lost = {agreements[n].steps - agreements[n].same for n in differing}
    assert len(lost) == 1


def test_right_choices_are_told_apart(starter: Starter, dialogues: list[Rows]) -> None:
    """A model that always says the same piece is right where that piece is due, and only there."""
    other = deepcopy(starter.lm)
    other.text_head.weight.zero_()  # all alike: the first piece, which is the empty one, wins
    agreements, _ = compare_choices(starter.lm, other, dialogues)
    live, pieces = agreements["live"], agreements["live_pieces"]
    assert live.second_right == live.steps - pieces.steps
    assert pieces.second_right == 0
    assert "where a piece is due" in agreement_table(agreements)


def test_other_models_are_refused(starter: Starter) -> None:
    """Figures of two different models would look like a loss of precision."""
    check_comparable(starter, starter)
    with pytest.raises(ConfigError, match="different voices"):
        check_comparable(starter, replace(starter, voices=("two", "one")))
    retrained = Tokenizer.train([text[::-1] for text in TEXTS], vocab_size=120)
    with pytest.raises(ConfigError, match="different text pieces"):
        check_comparable(starter, replace(starter, tokenizer=retrained))


def test_two_exports_are_compared_end_to_end(
    starter: Starter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From two directories to two tables, a comparison and one JSON line."""
    parts: dict[str, Any] = {
        "lm": starter.lm, "codec": starter.codec, "tokenizer": starter.tokenizer, "voices": VOICES
    }  # fmt: skip
    save_starter(tmp_path / "full", **parts, quantised=False)
    save_starter(tmp_path / "nf4", **parts)
    typed = tuple(c for c in CONDITIONS if c.voices is None)
    options = EvalOptions(num_dialogues=2, seed=5, conditions=typed)
    ears = Ears(HummingUsers(), lambda _: "", lambda wave, _snr, _rng: wave)
    out = tmp_path / "out.json"
    run_comparison(tmp_path / "full", tmp_path / "nf4", options, ears=ears, speak=hum, out=out)
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert [figures[run]["model"] for run in ("first", "second")] == ["full", "nf4"]
    assert [c["name"] for c in figures["comparison"]] == ["typed", "all"]
    assert figures["agreement_dialogues"] == 2
    assert 0.3 < figures["agreement"]["semantic"]["same"] < 1.0
    assert sum(line.startswith(("A: ", "B: ")) for line in lines) == 4
    assert len(json.loads(out.read_text())["second_results"]) == figures["comparison"][0]["turns"]
