"""One more voice: what is learned is its row, and the others speak as they did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.assemble.weights import Starter, load_starter, save_starter, write_judgement
from model.codec.mel import MelCodec
from model.errors import ConfigError
from model.judgement import Judgement
from model.text import MORE_VOICES, NUM_VOICES, Special, Tokenizer, voice_piece
from model.training.skills import corpus
from model.training.speech.types import Phone, Speech, SynthesisError, Word
from model.training.speech.voices import Voice
from model.training.voice_cli import voice_main
from model.transformer.lm import LM
from tests.fakes.tiny import CODEC_CONFIG, LM_CONFIG

VOICES = ("ann", "bob")


def speak(voice: Voice, text: str) -> Speech:
    """Say each word as a tone of 100 ms."""
    assert (voice.name, voice.engine_voice) == ("nova", "af_bella*0.6+bm_daniel*0.4")
    words = [Word(word, 0.1 * i, 0.1 * i + 0.1) for i, word in enumerate(text.split())]
    tone = np.sin(np.arange(1600 * len(words)) * 0.2) * 9_000
    return Speech(tone.astype(np.int16), tuple(words), (Phone("ah", 0.0, 0.1 * len(words)),))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Return exported weights with two voices and room for more."""
    tokenizer = Tokenizer.train(corpus(300, 1), 200)
    torch.manual_seed(0)
    books = {"num_codebooks": 8, "delays": (0, *(1,) * 7)}
    config = replace(LM_CONFIG, text_vocab=len(tokenizer), has_end_head=1, **books)  # type: ignore[arg-type]
    lm, codec = LM(config).eval(), MelCodec(replace(CODEC_CONFIG, num_acoustic=7)).eval()
    lm.set_codebook_vectors(torch.randn(8, 16, 8))
    save_starter(tmp_path / "start", lm=lm, codec=codec, tokenizer=tokenizer, voices=VOICES)
    write_judgement(tmp_path / "start", Judgement(doubt_below=0.25))
    return tmp_path / "start"


def run(start: Path, directory: Path, *more: str, **settings: Any) -> Starter:
    """Teach the weights a voice, quickly."""
    arguments = ["nova", "--speaker", "af_bella*0.6+bm_daniel*0.4", "--from", str(start)]
    arguments += ["--dir", str(directory), "--replies", "5", *more]
    voice_main(arguments, settings.get("speak", speak))
    return load_starter(directory / "export")


def test_only_the_row_of_the_new_voice_changes(start: Path, tmp_path: Path) -> None:
    """The others are what they were, bit for bit, and so is what was found out about them."""
    before, after = load_starter(start), run(start, tmp_path / "run", "--steps", "3")
    assert after.voices == (*VOICES, "nova")
    assert after.judgement == before.judgement
    row = voice_piece(2)
    for name, weight in before.lm.state_dict().items():
        changed = (after.lm.state_dict()[name] != weight).nonzero()
        assert set(changed[:, 0].tolist()) == ({row} if name == "text_emb.weight" else set()), name


def test_learning_goes_on_where_it_was_stopped(start: Path, tmp_path: Path) -> None:
    """Speech and codes are made once; more steps begin at the last ones."""
    first = run(start, tmp_path / "run", "--steps", "2")

    def silent(_voice: Voice, _text: str) -> Speech:
        raise AssertionError("everything was said before")

    further = run(start, tmp_path / "run", "--steps", "4", speak=silent)
    torch.manual_seed(0)
    assert not torch.equal(first.lm.text_emb.weight, further.lm.text_emb.weight)  # type: ignore[arg-type]


def test_refuses_what_cannot_be(start: Path, tmp_path: Path) -> None:
    """A voice that is there, weights without room, and a speaker who is missing."""
    with pytest.raises(ConfigError, match="there is a voice 'ann' already"):
        voice_main(["ann", "--speaker", "x", "--from", str(start), "--dir", str(tmp_path)])

    def missing(_voice: Voice, _text: str) -> Speech:
        raise SynthesisError("kokoro is not installed")

    with pytest.raises(SynthesisError, match="not installed"):
        run(start, tmp_path / "run", speak=missing)
    starter = load_starter(start)
    most = tuple(f"v{i}" for i in range(NUM_VOICES + MORE_VOICES))
    save_starter(
        start, lm=starter.lm, codec=starter.codec, tokenizer=starter.tokenizer, voices=most
    )
    with pytest.raises(ConfigError, match="has 16 voices and no room for another one"):
        run(start, tmp_path / "run")


def test_voices_have_pieces_of_their_own() -> None:
    """The first eight where they always were, the others behind what came later."""
    numbers = [voice_piece(i) for i in range(NUM_VOICES + MORE_VOICES)]
    assert numbers[:8] == list(range(Special.VOICE0, Special.TOOL))
    assert numbers[8:] == list(range(Special.VOICE8, Special.VOICE8 + 8))
    tokenizer = Tokenizer.train(["hello there"] * 9, 70)
    assert [tokenizer.pieces[n] for n in numbers] == [f"<voice{i}>" for i in range(16)]
    assert tokenizer.num_special == Special.VOICE8 + MORE_VOICES
