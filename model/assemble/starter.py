"""Build an engine from shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic

from kernels.packed import use_packed
from model.assemble.weights import Starter, load_starter
from model.engine.config import EngineConfig
from model.engine.local import LocalEngine
from model.text import voice_piece
from model.turns.engine import TickEngine
from model.turns.steps import TurnLimits
from model.vocabulary import TurnVocabulary


def load_engine(
    directory: Path, config: EngineConfig | None = None, *, name: str = "starter"
) -> LocalEngine:
    """Read a starter directory and wire an engine to it, not yet started.

    Args:
        directory: written by `model.assemble.weights.save_starter`.
        config: capacity and pacing; the defaults if None.
        name: what the engine calls its model.

    Raises:
        WeightsError: a file is missing, broken or does not fit the others.
        TextError: the tokenizer file is not one.
        ConfigError: the model cannot be had with such linears.
    """
    return LocalEngine(load_core(directory, config or EngineConfig(), name=name))


def load_core(
    directory: Path,
    config: EngineConfig,
    *,
    name: str = "starter",
    clock: Callable[[], float] = monotonic,
) -> TickEngine:
    """Read a starter directory and wire an engine's core to it; arguments as `make_core`."""
    return make_core(load_starter(directory, config.linears), config, name=name, clock=clock)


def make_engine(starter: Starter, config: EngineConfig, *, name: str = "starter") -> LocalEngine:
    """Wire an engine to a model in memory, not yet started; arguments as `load_engine`."""
    return LocalEngine(make_core(starter, config, name=name))


def make_core(
    starter: Starter,
    config: EngineConfig,
    *,
    name: str = "starter",
    clock: Callable[[], float] = monotonic,
) -> TickEngine:
    """Wire an engine's core to a model in memory.

    Args:
        starter: the model.
        config: capacity and pacing.
        name: what the engine calls it.
        clock: returns seconds, never going back.
    """
    # No gradient is ever wanted here. Without this line PyTorch would keep what a backward pass
    # needs wherever inference mode is not on.
    starter.lm.requires_grad_(requires_grad=False)
    starter.codec.requires_grad_(requires_grad=False)
    # What is in int8 is packed already.
    use_packed(starter.lm)
    use_packed(starter.codec)
    # The voices' pieces follow one another: the first name is `<voice0>`, and so on. Which sound
    # belongs to which was learned in training, so the order is part of the weights.
    voices = {voice: voice_piece(i) for i, voice in enumerate(starter.voices)}
    vocabulary = TurnVocabulary(
        pieces=starter.tokenizer.pieces,
        encode=starter.tokenizer.encode,
        voices=voices,
        num_special=starter.tokenizer.num_special,
        is_taught_prompts=starter.tokenizer.is_taught_prompts,
    )
    limits = TurnLimits(
        max_prefix_steps=starter.lm.config.prefix_steps,
        doubt_below=starter.judgement.doubt_score,
        ends=starter.judgement.ends,
    )
    return TickEngine(
        starter.lm, starter.codec, vocabulary, config, clock=clock, name=name, limits=limits
    )
