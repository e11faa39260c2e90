"""`parley train` from its command line: every stage in miniature, one after another, and again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model.assemble.weights import load_starter
from model.training.cli import STAGES, main
from model.training.speech.types import Phone, Speech, Word
from model.training.store import write_shard
from model.training.synthesis import reply_key, user_key, write_scripts

if TYPE_CHECKING:
    from pathlib import Path

NUM_DIALOGUES = 14
SIZES = {
    "codec.codebook_size": 1024, "codec.num_acoustic": 7, "codec.semantic_dim": 8,
    "codec.acoustic_dim": 12, "codec.channels": 16, "codec.hop_channels": 8,
    "codec.encoder_blocks": 1, "codec.decoder_blocks": 1, "codec.hop_blocks": 1,
    "lm.dim": 64, "lm.num_layers": 2, "lm.num_heads": 2, "lm.num_kv_heads": 2, "lm.ff_dim": 64,
    "lm.audio_rank": 12, "lm.audio_entry_layer": 1, "lm.depth_dim": 64, "lm.depth_layers": 1,
    "lm.depth_heads": 2, "lm.depth_ff": 64, "lm.prefix_steps": 128, "lm.has_end_head": 1,
    "lm.picture_size": 32, "dialogues": NUM_DIALOGUES, "seed": 3, "passes": 1, "text_pieces": 400,
    "codec_steps": 4, "vocoder_steps": 2, "adversary_steps": 3, "lm_steps": 3,
}  # fmt: skip


def hummed(text: str) -> Speech:
    """Hum `text`: every word a tone of its own, 0.2 s long."""
    words, pcm, at = [], [], 0.0
    for word in text.split():
        hertz = 100 + sum(map(ord, word)) % 150
        tone = np.sign(np.sin(np.arange(3200) * 2 * np.pi * hertz / 16000))
        pcm.append((6000 * tone).astype(np.int16))
        words.append(Word(word, at, at + 0.2))
        at += 0.2
    phones = tuple(Phone("aa", w.start_s, w.end_s) for w in words)
    return Speech(np.concatenate(pcm), tuple(words), phones)


def hum_everything(directory: Path) -> None:
    """Write the dialogues and, in the place of speech, their tones."""
    scripts = write_scripts(directory / "scripts.jsonl", NUM_DIALOGUES, 3)
    turns = [(s, i, t) for s in scripts for i, t in enumerate(s.turns)]
    users = [(user_key(s, i), t.user, "hum", hummed(t.user)) for s, i, t in turns if t.user]
    said = {reply_key(s.voice, t.reply, t.style): t.reply for s, _, t in turns if t.reply}
    said |= {reply_key(s.voice, t.first): t.first for s, _, t in turns if t.first}
    write_shard(directory / "speech" / "users" / "0000", users)
    replies = [(key, text, "hum", hummed(text)) for key, text in sorted(said.items())]
    write_shard(directory / "speech" / "replies" / "0000", replies)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.training.cli.CORPUS_LINES", 300)
    monkeypatch.setattr("model.training.cli.fetch_voices", lambda: None)
    monkeypatch.setattr("model.training.codec_stage.UNQUANTISED_STEPS", 2)
    monkeypatch.setattr("model.training.codec_stage.BATCH", 8)
    monkeypatch.setattr("model.training.vocoder_stage.BATCH", 2)
    monkeypatch.setattr("model.training.adversary_stage.BATCH", 2)
    monkeypatch.setattr("model.training.adversary_stage.LEARNING_STEPS", 1)
    monkeypatch.setattr("model.training.lm_stage.STEPS_PER_BATCH", 600)


def run(directory: Path, *stage: str, workers: int = 1, **changes: int) -> None:
    """Run `parley train` as a user would."""
    values = SIZES | changes
    options = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    chosen = ["--stage", *stage] if stage else []
    main(["--dir", str(directory), "--workers", str(workers), *chosen, *options])


def test_every_stage_runs_and_resumes(tmp_path: Path) -> None:
    """One after another they end with weights that load; again, they have nothing left to do."""
    hum_everything(tmp_path)
    for stage in STAGES:
        run(tmp_path, stage)
    starter = load_starter(tmp_path / "export")
    assert starter.tokenizer.is_taught_prompts
    assert starter.voices[0] == "alloy"
    assert len(starter.voices) == 8
    assert starter.lm.config.has_end_head
    assert starter.lm.config.picture_size == 32

    steps = {
        stage: torch.load(tmp_path / f"{stage}.pt", weights_only=True)["step"]
        for stage in ("codec", "vocoder", "adversary", "lm")
    }
    assert steps == {"codec": 4, "vocoder": 2, "adversary": 3, "lm": 3}
    exported = json.loads((tmp_path / "export" / "config.json").read_text())
    coded = (tmp_path / "codes" / "users-0.npz").stat().st_mtime_ns
    run(tmp_path)
    assert json.loads((tmp_path / "export" / "config.json").read_text()) == exported
    assert (tmp_path / "codes" / "users-0.npz").stat().st_mtime_ns == coded


def test_workers_share_the_codes(tmp_path: Path) -> None:
    """Two processes make the same codes as one, each some of the files."""
    hum_everything(tmp_path)
    run(tmp_path, "codec")
    made = []
    for workers in (2, 1):
        run(tmp_path, "codes", workers=workers, passes=2)
        files = {path.name: path for path in (tmp_path / "codes").iterdir()}
        assert sorted(files) == ["replies.npz", "users-0.npz", "users-1.npz"]
        made.append({name: path.read_bytes() for name, path in files.items()})
        for path in files.values():
            path.unlink()
    assert made[0] == made[1]


def test_a_longer_plan_goes_on_where_the_shorter_ended(tmp_path: Path) -> None:
    """More steps than before are the steps that are missing."""
    hum_everything(tmp_path)
    for stage in ("speech", "codec", "vocoder", "adversary", "codes", "lm"):
        run(tmp_path, stage)
    run(tmp_path, "lm", lm_steps=5)
    assert torch.load(tmp_path / "lm.pt", weights_only=True)["step"] == 5
