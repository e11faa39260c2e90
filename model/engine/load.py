"""Build an engine from shipped weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic

from torch import nn

from model.backend import use_backend
from model.dialogue.vocabulary import TurnVocabulary
from model.engine.config import EngineConfig
from model.engine.local import LocalEngine
from model.engine.tick import TickEngine
from model.text import Special
from model.weights import Starter, load_starter


def load_engine(
    directory: Path, config: EngineConfig | None = None, *, name: str = "starter"
) -> LocalEngine:
    """Read a starter directory and wire an engine to it, not yet started.

    Args:
        directory: written by `model.weights.save_starter`.
        config: capacity and pacing; the defaults if None.
        name: what the engine calls its model.

    Raises:
        WeightsError: a file is missing, broken or does not fit the others.
        TextError: the tokenizer file is not one.
        ConfigError: the model cannot be had with such linears, or such kernels cannot run here.
    """
    config = config or EngineConfig()
    return make_engine(load_starter(directory, config.linears), config, name=name)


def make_engine(starter: Starter, config: EngineConfig, *, name: str = "starter") -> LocalEngine:
    """Wire an engine to a model in memory, not yet started; arguments as `load_engine`."""
    config = use_kernels(starter.lm, config)
    starter.lm.requires_grad_(requires_grad=False)
    starter.codec.requires_grad_(requires_grad=False)
    voices = {voice: Special.VOICE0 + i for i, voice in enumerate(starter.voices)}
    vocabulary = TurnVocabulary(
        pieces=starter.tokenizer.pieces, encode=starter.tokenizer.encode, voices=voices
    )
    core = TickEngine(starter.lm, starter.codec, vocabulary, config, clock=monotonic, name=name)
    return LocalEngine(core)


def use_kernels(module: nn.Module, config: EngineConfig) -> EngineConfig:
    """Let a model's modules run on the kernels of the settings.

    Returns:
        The settings, with draws that run on them as well.

    Raises:
        ConfigError: such kernels cannot run where the model is.
    """
    use_backend(module, config.kernels)
    return replace(
        config,
        reply_sampling=replace(config.reply_sampling, backend=config.kernels),
        audio_sampling=replace(config.audio_sampling, backend=config.kernels),
    )
