"""Count the words that the starter hears wrongly in recordings."""

from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

from benchmarks.interruption_sounds import Wave
from model.assemble.starter import load_engine
from model.engine.config import EngineConfig
from model.messages import (
    AppendAudio,
    Close,
    CommitAudio,
    InputTranscript,
    News,
    Open,
    Output,
)
from model.training.evaluation.conditions import draw_cases
from model.training.evaluation.users import SynthesisedUsers
from model.training.speech.wer import word_errors

_TIMEOUT_S = 120.0
_PIECE_SAMPLES = 6_400


class Listener:
    """Hold the starter, which is asked for nothing but what it heard.

    Args:
        model_dir: of its weights.
    """

    def __init__(self, model_dir: Path) -> None:
        self._engine = load_engine(model_dir, EngineConfig(max_sessions=1))
        self._outputs: SimpleQueue[Output | News] = SimpleQueue()
        self._engine.start(self._outputs.put)

    def stop(self) -> None:
        """Let go of it."""
        self._engine.stop()

    def word_error_rate(self, texts: Sequence[str], recordings: Sequence[Wave]) -> float:
        """Return the percentage of words that are heard wrongly, one recording after the other."""
        num_errors = num_words = 0
        for text, pcm in zip(texts, recordings, strict=True):
            errors, words = word_errors(text, self._heard(pcm))
            num_errors, num_words = num_errors + errors, num_words + words
        return round(100 * num_errors / num_words, 1)

    def _heard(self, pcm: Wave) -> str:
        # A session for each recording: what was said before would help with what is said now.
        self._engine.submit(Open("s", self._engine.info.voices[0]))
        # 0.4 s at a time: a command has a largest size.
        for start in range(0, len(pcm), _PIECE_SAMPLES):
            self._engine.submit(AppendAudio("s", pcm[start : start + _PIECE_SAMPLES]))
        self._engine.submit(CommitAudio("s", "i"))
        while True:
            output = self._outputs.get(timeout=_TIMEOUT_S)
            if isinstance(output, InputTranscript):
                self._engine.submit(Close("s"))
                return output.text


def utterances(num: int) -> list[tuple[str, Wave]]:
    """Return what users say in evaluations, half of them in voices that training did not have."""
    users, said = SynthesisedUsers(), []
    for case in draw_cases(num, 0, ("slt", "rms")):
        text = case.dialogue[0].user
        # A cleaner that suits only the voices of training would show on the other half.
        voices = users.choose("held out" if case.number % 2 else "known", 0, case.number)
        said.append((text, users.speak(voices, text).pcm))
    return said
