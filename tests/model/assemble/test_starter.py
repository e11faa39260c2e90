"""From a folder of weights to an engine that answers."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import pytest

from model.assemble.starter import load_engine
from model.assemble.weights import save_starter
from model.engine.config import EngineConfig
from model.errors import WeightsError
from model.messages import AppendText, Open, Output, Respond, ResponseDone
from model.text import Tokenizer
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


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A folder without weights says so."""
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_engine(tmp_path)
