"""From a folder of weights to an engine that answers."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import numpy as np
import pytest

from model.assemble.starter import load_core, load_engine
from model.assemble.weights import save_starter, write_judgement
from model.engine.config import EngineConfig
from model.errors import WeightsError
from model.judgement import Judgement
from model.messages import (
    AppendAudio,
    AppendText,
    CheckTurn,
    Command,
    CommitAudio,
    Eagerness,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseDone,
    ResponseStarted,
    TurnChecked,
)
from model.text import Tokenizer
from model.turns.engine import TickEngine
from tests.fakes.tiny import make_codec, make_lm


def test_loaded_engine_answers(tmp_path: Path) -> None:
    """Weights, text pieces and voices of the folder are what the engine runs on."""
    tokenizer = Tokenizer.train(["hello there", "what is your name"] * 5, vocab_size=70)
    lm, codec = make_lm(text_vocab=len(tokenizer)), make_codec()
    save_starter(tmp_path, lm=lm, codec=codec, tokenizer=tokenizer, voices=("ann", "bob"))

    engine = load_engine(tmp_path, EngineConfig(max_sessions=2), name="tiny")
    assert engine.info.model == "tiny"
    assert engine.info.voices == ("ann", "bob")
    assert (engine.info.sample_rate_hz, engine.info.frame_samples) == (16_000, 1280)
    outputs = Queue[Output]()
    engine.start(outputs.put)
    try:
        engine.submit(Open("s", "bob"))
        engine.submit(AppendText("s", "u", "user", "What is your name?"))
        engine.submit(Respond("s", 1, "a", max_output_tokens=5))
        output = outputs.get(timeout=60)
        while not isinstance(output, ResponseDone):
            output = outputs.get(timeout=60)
    finally:
        engine.stop()
    # <bos> <voice1> <user> and the question's pieces.
    num_pieces = len(tokenizer.encode("what is your name"))
    assert output.usage.input_text_tokens == 3 + num_pieces


def test_engine_is_as_sure_as_the_card_says(tmp_path: Path) -> None:
    """Pictures are taken by weights that see, and thresholds are those of the card."""
    tokenizer = Tokenizer.train(["hello there", "what is your name"] * 5, vocab_size=75)
    lm = make_lm(len(tokenizer), has_end_head=1, picture_size=32)
    save_starter(tmp_path, lm=lm, codec=make_codec(), tokenizer=tokenizer, voices=("ann",))
    ends: dict[Eagerness, float] = {"low": 1.0, "medium": 1.0, "high": 0.0}
    write_judgement(tmp_path, Judgement(ends=ends, doubt_below=1.0))
    core = load_core(tmp_path, EngineConfig(max_sessions=1))
    try:
        assert core.info.image_side == 128
        told = hold(
            core,
            Open("s", "ann"),
            AppendAudio("s", np.zeros(4 * 1280, np.float32)),
            CheckTurn("s", "a", "high"),
            CheckTurn("s", "b", "low"),
            CommitAudio("s", "u"),
            Respond("s", 0, "r", audio=False, max_output_tokens=3),
        )
    finally:
        core.close()
    assert [o.is_finished for o in told if isinstance(o, TurnChecked)] == [True, False]
    # <bos>, the voice, <user>, the pieces of what was heard, and <unsure>.
    usage = next(o.usage for o in told if isinstance(o, ResponseStarted))
    heard = next(o.text for o in told if isinstance(o, InputTranscript))
    assert usage.input_text_tokens == 4 + len(tokenizer.encode(heard))


def hold(core: TickEngine, *commands: Command) -> list[Output]:
    """Carry out commands until there is nothing left to do."""
    outputs = [output for command in commands for output in core.apply(command)]
    while core.next_due_s() is not None:
        outputs += core.tick()
    return outputs


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A folder without weights says so."""
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_engine(tmp_path)
