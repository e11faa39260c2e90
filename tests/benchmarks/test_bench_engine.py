"""The engine's benchmark: what it takes for the same conversation, and how it sums an hour up."""

import numpy as np
import pytest

from benchmarks.bench_engine import Hour, alike, main
from model.messages import InputTranscript, Output, ResponseAudio, ResponseText


def said(*words: str, level: float = 0.1, num_samples: int = 1280) -> list[Output]:
    """Return a conversation."""
    pcm = np.full(num_samples, level, dtype=np.float32)
    texts = [ResponseText("a", 0, word) for word in words]
    return [InputTranscript("a", "q", "hello"), *texts, ResponseAudio("a", 0, pcm)]


def test_conversations_are_compared_as_far_as_both_went() -> None:
    """Word for word and sample for sample; silence on one side proves nothing."""
    assert alike(said("well", "yes"), said("well", "yes"))
    assert alike(said("well", num_samples=2560), said("well", "yes"))
    assert not alike(said("well", "no"), said("well", "yes"))
    assert not alike(said("well", level=0.11), said("well"))
    assert not alike(said("well"), [ResponseText("a", 0, "hello")])
    assert not alike(said("well"), [])


def test_an_hour_is_judged_by_its_ends() -> None:
    """Memory against that after ten minutes; ticks of the last ten against the first."""
    row = Hour(900, [700.0, 701.0, 703.5], [20.0, 40.0, 21.0]).row()
    assert (row["memory_growth_mb"], row["tick_p95_ratio"]) == (3.5, 1.05)


@pytest.mark.parametrize("minutes", ["10", "25"])
def test_a_call_has_two_ends(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So it lasts twenty minutes at least, and in whole tens."""
    with pytest.raises(SystemExit):
        main(["--minutes", minutes])
    assert "multiple of 10" in capsys.readouterr().err
