"""The whole recipe in miniature: it runs, it learns, and a resumed run is the same run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from model.assemble.weights import load_starter, save_starter
from model.cache.state import Kind
from model.codec.mel import MelCodec, MelCodecConfig
from model.config import LMConfig
from model.text import Special, Tokenizer
from model.training.adversary_stage import train_adversary
from model.training.cli import begin_with
from model.training.codec_stage import CropSampler, train_codec
from model.training.encode_stage import encode_store
from model.training.layout import NO_TARGET
from model.training.lm_stage import DialogueSampler, Recordings, new_lm, train_lm
from model.training.recipe import Recipe
from model.training.snap import snap_encoder
from model.training.speech.types import Phone, Speech, Word
from model.training.store import Clip, read_store, write_shard
from model.training.synthesis import read_scripts, reply_key, user_key, write_scripts
from model.training.vocoder_stage import train_vocoder
from model.transformer.lm import LM

if TYPE_CHECKING:
    from pathlib import Path

    from model.training.synthesis import Script

CODEC = MelCodecConfig(
    codebook_size=1024, num_acoustic=7, semantic_dim=8, acoustic_dim=12, channels=16,
    hop_channels=8, encoder_blocks=1, decoder_blocks=1, hop_blocks=1,
)  # fmt: skip
SIZES = LMConfig(
    dim=32, num_layers=2, num_heads=2, num_kv_heads=2, ff_dim=48, audio_rank=12,
    audio_entry_layer=1, depth_dim=32, depth_layers=1, depth_heads=2, depth_ff=48,
    prefix_steps=128, has_end_head=1, picture_size=32,
)  # fmt: skip
CPU = torch.device("cpu")


def spoken(text: str) -> Speech:
    """Hum `text`: every word a tone of its own, 0.2 s long."""
    words, pcm, at = [], [], 0.0
    for word in text.split():
        hertz = 100 + sum(map(ord, word)) % 150
        pcm.append(
            (6000 * np.sign(np.sin(np.arange(3200) * 2 * np.pi * hertz / 16000))).astype(np.int16)
        )
        words.append(Word(word, at, at + 0.2))
        at += 0.2
    phones = tuple(Phone("aa", w.start_s, w.end_s) for w in words)
    return Speech(np.concatenate(pcm), tuple(words), phones)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Script], list[Clip], list[Clip], MelCodec]:
    """Scripts, hummed clips and a codec trained for a few steps."""
    base = tmp_path_factory.mktemp("train")
    scripts = write_scripts(base / "scripts.jsonl", 12, 1)
    assert read_scripts(base / "scripts.jsonl") == scripts
    users = [
        (user_key(s, i), t.user, "hum", spoken(t.user))
        for s in scripts
        for i, t in enumerate(s.turns)
        if t.user
    ]
    replies = sorted({(s.voice, t.reply) for s in scripts for t in s.turns})
    write_shard(base / "users" / "0000", users)
    write_shard(
        base / "replies" / "0000", [(reply_key(v, r), r, "hum", spoken(r)) for v, r in replies]
    )
    clips = read_store(base / "users"), read_store(base / "replies")
    codec = train_codec(*clips, base / "a", num_steps=62, seed=1, config=CODEC, device=CPU)
    snap_encoder(codec)
    return scripts, *clips, codec


def test_vocoder_stage_leaves_the_codes_alone(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec], tmp_path: Path
) -> None:
    """Training the vocoder changes what is heard of the codes, never the codes."""
    _, users, replies, codec = made
    pcm = torch.from_numpy(users[0].pcm[: 1280 * 3] / np.float32(32768))[None]
    before, wave = codec.encode(pcm), codec.decode(codec.encode(pcm))
    train_vocoder(codec, users, replies, tmp_path, num_steps=2, seed=1, device=CPU)
    assert torch.equal(codec.encode(pcm), before)
    assert not torch.equal(codec.decode(before), wave)


def test_adversary_stage_changes_the_wave_and_resumes(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The codes stay, the wave changes, the critics learn, and a stopped run goes on the same."""
    _, users, replies, codec = made
    monkeypatch.setattr("model.training.adversary_stage.LEARNING_STEPS", 1)
    monkeypatch.setattr("model.training.adversary_stage.BATCH", 2)
    pcm = torch.from_numpy(users[0].pcm[: 1280 * 3] / np.float32(32768))[None]
    before = codec.encode(pcm)

    def train(name: str, num_steps: int) -> MelCodec:
        fresh = MelCodec(CODEC)
        fresh.load_state_dict(codec.state_dict())
        return train_adversary(
            fresh, users, replies, tmp_path / name, num_steps=num_steps, seed=1, device=CPU
        )

    whole = train("whole", 4)
    assert torch.equal(whole.encode(pcm), before)
    assert not torch.equal(whole.decode(before), codec.decode(before))
    with monkeypatch.context() as patch:
        patch.setattr("model.training.loop.CHECKPOINT_EVERY_S", -1.0)
        draws = iter(range(2))
        draw = CropSampler.draw

        def draw_until_stopped(self: CropSampler, *args: object) -> object:
            if next(draws, None) is None:
                raise KeyboardInterrupt
            return draw(self, *args)  # type: ignore[arg-type]

        patch.setattr(CropSampler, "draw", draw_until_stopped)
        with pytest.raises(KeyboardInterrupt):
            train("parts", 4)
    parts = train("parts", 4)
    assert torch.equal(whole.decode(before), parts.decode(before))


def test_resumed_training_is_the_same_training(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec], tmp_path: Path
) -> None:
    """Four steps at once and two after two give the same weights; another seed does not."""
    scripts, users, replies, codec = made
    tokenizer = Tokenizer.train((t.user for s in scripts for t in s.turns), 300)
    config = replace(SIZES, text_vocab=len(tokenizer))
    coded = encode_store(codec, users, tmp_path / "users.npz", seed=1, is_user=True)
    said = encode_store(codec, replies, tmp_path / "replies.npz", seed=1, is_user=False)
    sampler = DialogueSampler(scripts, [coded], said, tokenizer, config)

    def train(name: str, steps: int, seed: int = 1) -> dict[str, torch.Tensor]:
        lm = new_lm(config, codec.codebook_vectors(), seed)
        lm = train_lm(sampler, lm, tmp_path / name, num_steps=steps, seed=seed, device=CPU)
        return {k: v.clone() for k, v in lm.state_dict().items()}

    whole = train("whole", 4)
    # The rate depends on the planned length, so the interrupted run plans four steps as well.
    interrupted = pytest.MonkeyPatch()
    with interrupted.context() as patch:
        patch.setattr("model.training.loop.CHECKPOINT_EVERY_S", -1.0)
        sampler_draw = sampler.draw
        calls = iter(range(3))

        def draw_until_stopped(generator: torch.Generator) -> object:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return sampler_draw(generator)

        patch.setattr(sampler, "draw", draw_until_stopped)
        with pytest.raises(KeyboardInterrupt):
            train("parts", 4)
    parts = train("parts", 4)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    other = train("other", 4, seed=2)
    assert not all(torch.equal(whole[k], other[k]) for k in whole)


def test_recordings_are_mixed_in(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec], tmp_path: Path
) -> None:
    """A user's recordings take their share; without a reply they teach the transcript alone."""
    scripts, users, replies, codec = made
    tokenizer = Tokenizer.train((t.user for s in scripts for t in s.turns), 300)
    said = encode_store(codec, replies, tmp_path / "replies.npz", seed=1, is_user=False)
    coded = encode_store(codec, users, tmp_path / "users.npz", seed=1, is_user=True)
    mine = Clip("recording:1", "zzz", "recording", users[0].pcm, (), users[0].phones)
    heard = encode_store(codec, [mine], tmp_path / "recordings.npz", seed=1, is_user=True)
    recordings = Recordings({"recording:1": "zzz"}, {}, [heard], share=1.0)
    sampler = DialogueSampler(scripts, [coded], said, tokenizer, SIZES, recordings)
    batch = sampler.draw(torch.Generator().manual_seed(1))
    spoken = (batch.steps.kind == Kind.LISTEN).any(1)
    last = batch.steps.text[spoken][:, len(heard["recording:1"].codes) + 2 :]
    expected = [Special.USER, *tokenizer.encode("zzz")]
    assert last[0, : len(expected)].tolist() == expected
    assert not (batch.steps.kind[spoken] == Kind.SPEAK).any()
    assert (batch.target[spoken][batch.steps.kind[spoken] == Kind.LISTEN] == NO_TARGET).all()


def test_snapped_encoder_survives_its_weight_file(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec], tmp_path: Path
) -> None:
    """The codes of the shipped file are the codes that the language model was trained on."""
    _, users, _, codec = made
    tokenizer = Tokenizer.train(("a b c", "d e f"), 300)
    lm = LM(replace(SIZES, text_vocab=len(tokenizer)))
    lm.set_codebook_vectors(codec.codebook_vectors())
    save_starter(tmp_path, lm=lm.eval(), codec=codec, tokenizer=tokenizer, voices=("slt",))
    loaded = load_starter(tmp_path).codec
    pcm = torch.from_numpy(users[1].pcm[: 1280 * 4] / np.float32(32768))[None]
    assert torch.equal(loaded.encode(pcm), codec.encode(pcm))


def test_training_goes_on_from_exported_weights(
    made: tuple[list[Script], list[Clip], list[Clip], MelCodec], tmp_path: Path
) -> None:
    """Pieces, codec and sizes are those of the weights, and so is what the model says at first."""
    _, users, _, codec = made
    tokenizer = Tokenizer.train(("a b c", "d e f"), 300)
    lm = LM(replace(SIZES, text_vocab=len(tokenizer)))
    lm.set_codebook_vectors(codec.codebook_vectors())
    start, run = tmp_path / "start", tmp_path / "run"
    run.mkdir()
    save_starter(start, lm=lm.eval(), codec=codec, tokenizer=tokenizer, voices=("slt",))
    recipe = begin_with(start, run, Recipe(lm_steps=3))
    assert (recipe.lm, recipe.codec, recipe.lm_steps) == (lm.config, CODEC, 3)
    assert Tokenizer.load(run / "tokenizer.model").pieces == tokenizer.pieces
    again = MelCodec(recipe.codec)
    again.load_state_dict(torch.load(run / "codec-snapped.pt", weights_only=True))
    pcm = torch.from_numpy(users[1].pcm[: 1280 * 4] / np.float32(32768))[None]
    assert torch.equal(again.encode(pcm), codec.encode(pcm))
