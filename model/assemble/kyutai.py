"""Put a model of the Kyutai family together for the engine, from a directory or from memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from model.arrays import Ints
from model.codec.mimi import Mimi, load_mimi
from model.duplex.accelerate import use_kernels
from model.duplex.driver import DuplexConfig
from model.duplex.engine import DuplexParts
from model.duplex.program import DuplexTraits, Manner
from model.duplex.prompt import (
    PUBLISHED_TONES,
    Prompt,
    Tones,
    Voice,
    empty_prompt,
    make_prompt,
    wrapped,
)
from model.duplex.runner import DuplexModel
from model.errors import ConfigError, EngineError
from model.kyutai.check import Checkpoint, sound_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.load import load_lm
from model.kyutai.memory import REACH_FRAMES
from model.kyutai.voices import load_voice
from model.pieces import PAD, TextPieces
from model.precision import Linears
from model.sampling import Sampling
from model.transformer.lm import LM

# 1,000 pieces are 80 s of frames that nobody hears, out of a window of 240 s.
# Most pieces of instructions; each takes a frame of the model's memory.
MAX_PROMPT_PIECES = 1_000

# How Kyutai samples where a checkpoint does not say: audio, text.
_AUDIO_SAMPLING = Sampling(temperature=0.8, top_k=250)
_TEXT_SAMPLING = Sampling(temperature=0.7, top_k=25)
# What Hibiki is told of the audio that its training data was, and what guidance leads away from.
_GOOD, _BAD = {"description": "very_good"}, {"description": "very_bad"}
_TEXT_END = 2  # the piece with which Hibiki ends
# The first frames of silence after a reset still carry the beginning in their context. After eight,
# 640 ms, the codes stay the same.
_SETTLED_FRAMES = 8  # after which silence is coded as it is from then on
_SINE_HZ = 440.0


@dataclass(frozen=True, slots=True)
class Voices:
    """Voices that sessions may ask for.

    Attributes:
        load: returns one by its name.
        names: the default first.
    """

    load: Callable[[str], Voice | None]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """A model that is in memory.

    Attributes:
        config: what it consists of.
        lm: its language model.
        mimi: its codec.
        pieces: of its text.
        tones: sounds as the codec codes them.
        voices: that it can speak in.
    """

    config: KyutaiConfig
    lm: LM
    mimi: Mimi
    pieces: TextPieces
    tones: Tones
    voices: Voices


def make_parts(
    driven: Driven,
    name: str,
    *,
    guidance: float = 1.0,
    sampling: tuple[Sampling, Sampling] | None = None,
    note: str = "",
    make_manner: Callable[[], Manner] | None = None,
) -> DuplexParts:
    """Describe a model to the engine.

    Args:
        driven: the model.
        name: what the engine calls it.
        guidance: how far a model that takes conditions goes towards them; 1 for as far as they
            say. More doubles the work and the memory of a session.
        sampling: of audio and text; None for what the checkpoint says.
        note: for those who use it.
        make_manner: see `DuplexParts`.

    Raises:
        ConfigError: guidance for a model that takes no conditions.
    """
    config, lm = driven.config, driven.lm
    is_told = bool(config.conditioners)
    if guidance != 1.0 and not is_told:
        raise ConfigError(f"model.guidance: {config.kind} takes no conditions, got {guidance}")
    audio, text = sampling or sampling_of(config.options.get("lm_gen_config") or {})
    # PersonaPlex is one frame further behind its user than the others.
    lag = 1 if config.kind == "personaplex" else 0
    drive = DuplexConfig(
        delays=config.delays,
        lag=lag,
        text_sampling=text,
        audio_sampling=audio,
        guidance=guidance,
    )
    is_translator = config.kind == "hibiki"
    traits = DuplexTraits(
        frame_samples=driven.mimi.frame_samples,
        frame_ms=driven.mimi.frame_samples * 1000 // driven.mimi.sample_rate_hz,
        longest_delay=max(config.delays),
        lag=lag,
        num_user=config.num_codebooks - config.num_made,
        pieces=driven.pieces,
        silence=driven.tones.silence,
        # Hibiki is told that the input is over by a code that no sound has, one past the last entry
        # of a codebook.
        input_end=config.card if is_translator else None,
        text_end=_TEXT_END if is_translator else None,
    )
    return DuplexParts(
        name=name,
        model=DuplexModel(
            lm,
            driven.mimi,
            drive,
            lm.config.rewind_steps,
            # With guidance each session also runs with the opposite said, and goes away from that:
            # see `model.transformer.sampling.guide`.
            lm.conditioners(_GOOD) if is_told else None,
            lm.conditioners(_BAD) if is_told and guidance != 1.0 else None,
        ),
        traits=traits,
        voices=driven.voices.names,
        prompt=_prompter(driven),
        make_manner=make_manner,
        note=note,
    )


def sampling_of(options: Mapping[str, Any]) -> tuple[Sampling, Sampling]:
    """Return how audio and text are chosen, as `lm_gen_config` of a checkpoint says."""
    audio, text = _AUDIO_SAMPLING, _TEXT_SAMPLING
    return (
        Sampling(options.get("temp", audio.temperature), options.get("top_k", audio.top_k)),
        Sampling(options.get("temp_text", text.temperature), options.get("top_k_text", text.top_k)),
    )


def _prompter(driven: Driven) -> Callable[[str, str], Prompt]:
    """Return what makes the prompts of a model's sessions; only PersonaPlex takes any."""
    config = driven.config
    if config.kind != "personaplex":
        nothing = empty_prompt(config.num_made, config.num_codebooks - config.num_made)
        return lambda _voice, _instructions: nothing

    # A prompt is made when a session opens, since a wrong voice or instructions that are too long
    # must be told then, and not in the first frame.
    def prompt(voice: str, instructions: str) -> Prompt:
        pieces = driven.pieces.encode(wrapped(instructions)) if instructions.strip() else []
        if len(pieces) > MAX_PROMPT_PIECES:
            raise EngineError(
                f"the instructions are {len(pieces)} pieces of text long, the model takes at most "
                f"{MAX_PROMPT_PIECES}"
            )
        return make_prompt(driven.voices.load(voice), pieces, driven.tones)

    return prompt


def silence_of(mimi: Mimi) -> Ints:
    """Return the codes of a frame of silence, int64 [codebooks], when it has lasted a while."""
    return _settled(mimi, torch.zeros(_SETTLED_FRAMES * mimi.frame_samples))


def sound_of(mimi: Mimi) -> Ints:
    """Return the codes of a frame of a tone, int64 [codebooks], when it has lasted a while."""
    time_s = torch.arange(_SETTLED_FRAMES * mimi.frame_samples) / mimi.sample_rate_hz
    return _settled(mimi, 0.5 * torch.sin(2 * torch.pi * _SINE_HZ * time_s))


def _settled(mimi: Mimi, pcm: torch.Tensor) -> Ints:
    weight = next(mimi.parameters())
    state = mimi.init_encoder_state(1)
    codes: Ints = mimi.encode_step(pcm[None].to(weight), state)[0, -1].cpu().numpy()
    return codes


def load_parts(
    directory: Path,
    name: str,
    *,
    linears: Linears = "dense",
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
    guidance: float = 1.0,
) -> DuplexParts:
    """Read a checkpoint, ready to be served.

    Args:
        directory: in any of the layouts of `model.kyutai.check`.
        name: what the engine calls it.
        linears: how the language model's linears are held, as in `model.kyutai.load.load_lm`.
        dtype: of its other weights; Mimi stays in float32.
        device: where both go.
        guidance: as `make_parts`.

    Raises:
        WeightsError: a file is missing, broken or does not fit; every problem is named.
        ConfigError: the device cannot be used, or there is no such guidance or form of linears.
    """
    # Everything is checked before the first weight is read: a missing codec after five minutes of
    # loading would be no help.
    found = sound_directory(directory)
    config = found.config
    assert config is not None, "a sound directory has one"
    _check_device(device)
    lm = load_lm(
        found.files["lm"],
        config,
        getattr(torch, dtype),
        linears=linears,
        device=device,
        rewind_steps=REACH_FRAMES,
    )
    if config.kind == "hibiki":
        # When served, the model hears the piece that ends its text as padding. So the row is
        # changed here; `load_lm` gives the weights as they were published.
        table = lm.get_parameter("text_emb.weight")
        table[_TEXT_END] = table[PAD]
    mimi = load_mimi(
        found.files["mimi"],
        found.mimi,
        num_codebooks=config.num_mimi_codebooks,
        prefix=found.mimi_prefix,
    ).to(device)
    use_kernels(lm, mimi)
    silence = silence_of(mimi)[: config.num_made]
    # PersonaPlex was trained with exactly these codes in its prompts. For the others they are
    # worked out with the codec that is there, and only its silence is ever used.
    tones = PUBLISHED_TONES if config.kind == "personaplex" else Tones(silence, silence)
    pieces = TextPieces.load(found.files["tokenizer"])
    driven = Driven(config, lm, mimi, pieces, tones, _voices_of(found))
    return make_parts(driven, name, guidance=guidance)


def _check_device(device: str) -> None:
    """Refuse a device that is not there, before anything is read."""
    try:
        # The only way to know that a device can be used is to use it.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"engine.device: {device!r} cannot be used: {reason}") from error


def _voices_of(found: Checkpoint) -> Voices:
    """Return the voices of a checkpoint: PersonaPlex has several, in files; the others have one."""
    config, files = found.config, found.voices
    assert config is not None, "a sound directory has one"
    if config.kind != "personaplex" or not files:
        return Voices(lambda _name: None, (config.kind,))

    @functools.lru_cache(maxsize=len(files))
    def load(name: str) -> Voice:
        voice = load_voice(files[name], config)
        return Voice(embedded=voice.embeddings, ring=voice.cache)

    return Voices(load, tuple(files))
