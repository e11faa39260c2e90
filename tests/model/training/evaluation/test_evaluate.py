"""The whole evaluation, with an engine whose mistakes are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.errors import ConfigError
from model.training.evaluation.conditions import CONDITIONS, VoiceSet, draw_cases
from model.training.evaluation.conversation import Wave
from model.training.evaluation.evaluate import Ears, EvalOptions, engine_config, evaluate
from model.training.evaluation.report import Report
from model.training.speech.types import SynthesisError

OPTIONS = EvalOptions(num_dialogues=30, seed=4, num_heard=12)
CASES = draw_cases(OPTIONS.num_dialogues, OPTIONS.seed, ("one", "two"))
NUM_TURNS = sum(len(case.dialogue) for case in CASES)
TABLE = {
    tuple(turn.user for turn in case.dialogue[: i + 1]): case.dialogue[i].reply
    for case in CASES
    for i in range(len(case.dialogue))
}


def keep(wave: Wave, snr_db: float, rng: np.random.Generator) -> Wave:
    """Add no noise, but see that some was asked for."""
    assert snr_db == 10.0
    assert rng.random() < 1.0
    return -wave


@pytest.fixture
def ears(users: Any, read_wave: Callable[[Wave], str]) -> Ears:
    """Give users and a recogniser that make no mistakes."""
    return Ears(users, read_wave, keep)


def figures(report: Report) -> list[dict[str, Any]]:
    """Give each condition's figures."""
    return list(report.to_json()["conditions"])


def test_perfect_engine_gets_everything(make_engine: Any, ears: Ears) -> None:
    """Every turn of every condition is exact, transcribed, heard and noticed to end."""
    engine = make_engine(TABLE)
    report = evaluate(engine, OPTIONS, ears)
    assert not engine.is_running
    assert [c["condition"] for c in figures(report)] == [c.name for c in CONDITIONS]
    for condition in figures(report):
        assert condition["turns"] == NUM_TURNS
        assert condition["reply_exact"] == 1.0
        assert condition["failures"] == 0
    for condition in figures(report)[:4]:
        assert condition["transcript_wer"] == 0.0
        assert condition["spoken_wer_intended"] == condition["spoken_wer_own"] == 0.0
        assert condition["end_of_turn"] == 1.0
        assert condition["end_of_turn_early"] == 0.0
        assert condition["end_of_turn_ms"] == 300
    assert figures(report)[4]["transcript_wer"] is None
    assert figures(report)[4]["spoken_words"] == 0


def test_wrong_sums_cost_exactly_the_sums(make_engine: Any, ears: Ears) -> None:
    """A skill that is always wrong takes its own turns from the total, and no others."""
    engine = make_engine(TABLE, misspeak=lambda t: t + " or so" if " plus " in t else t)
    first = figures(evaluate(engine, OPTIONS, ears))[0]
    wrong = sum(" plus " in turn.reply for case in CASES for turn in case.dialogue)
    assert wrong > 0
    assert first["reply_exact"] == pytest.approx(1 - wrong / NUM_TURNS, abs=1e-4)
    assert first["skills"]["small_talk"]["reply_exact"] == 1.0
    assert first["spoken_wer_own"] == 0.0
    assert first["spoken_wer_intended"] > 0.0


def test_lost_words_are_counted_as_word_errors(make_engine: Any, ears: Ears) -> None:
    """A transcript without its first word has one error a turn."""
    engine = make_engine(TABLE, mishear=lambda t: " ".join(t.split()[1:]))
    first = figures(evaluate(engine, OPTIONS, ears))[0]
    words = sum(len(turn.user.split()) for case in CASES for turn in case.dialogue)
    assert first["transcript_wer"] == pytest.approx(NUM_TURNS / words, abs=1e-4)
    assert first["reply_exact"] == 1.0


@pytest.mark.parametrize(("end_ms", "share", "early"), [(None, 0.0, 0.0), (-400, 1.0, 1.0)])
def test_end_of_turn_missed_and_early(
    make_engine: Any, ears: Ears, end_ms: int | None, share: float, early: float
) -> None:
    """A model that never notices the end, and one that cuts the user off, are told apart."""
    first = figures(evaluate(make_engine(TABLE, end_of_turn_ms=end_ms), OPTIONS, ears))[0]
    assert first["end_of_turn"] == share
    assert first["end_of_turn_early"] == early


def test_same_seed_same_report(make_engine: Any, ears: Ears) -> None:
    """Neither the number of parallel sessions nor a busy engine changes a figure."""
    one = evaluate(make_engine(TABLE), OPTIONS, ears)
    busy = make_engine(TABLE, refuse_every=7)
    two = evaluate(busy, replace(OPTIONS, max_parallel=2), ears)
    assert one.turns() == two.turns()
    assert busy.most_open == 2


def test_recogniser_hears_as_many_replies_as_asked(make_engine: Any, ears: Ears) -> None:
    """Listening costs time, so it stops after the first turns."""
    report = evaluate(make_engine(TABLE), OPTIONS, ears)
    heard = [r for r in report.conditions[0].results if r.heard is not None]
    assert len(heard) == OPTIONS.num_heard
    assert (heard[0].dialogue, heard[0].turn) == (0, 0)


def test_voices_have_rows_and_missing_ones_are_named(make_engine: Any, ears: Ears) -> None:
    """Who spoke, who answered and who could not speak is in the report."""
    report = evaluate(make_engine(TABLE), OPTIONS, ears)
    known, _, held_out, *_ = figures(report)
    assert set(known["user_voices"]) == {"ann", "bob"}
    assert set(known["voices"]) == {"one", "two"}
    assert set(held_out["user_voices"]) == {"stranger one"}
    assert held_out["skipped_voices"] == ["stranger two"]
    assert "not installed: stranger two" in report.table()


def test_text_that_no_voice_can_say_is_left_out(make_engine: Any, ears: Ears) -> None:
    """The synthesiser's failure is not the model's."""
    unspeakable = CASES[0].dialogue[0].user
    others = [c for c in CASES if all(turn.user != unspeakable for turn in c.dialogue)]
    assert len(others) < len(CASES)

    class Mute(type(ears.users)):  # type: ignore[misc]
        def speak(self, voice: str, text: str) -> Any:
            if text == unspeakable:
                raise SynthesisError("cannot")
            return super().speak(voice, text)

    first = figures(evaluate(make_engine(TABLE), OPTIONS, replace(ears, users=Mute())))[0]
    assert first["turns"] == sum(len(case.dialogue) for case in others)
    assert first["reply_exact"] == 1.0


def test_unknown_voice_is_refused(make_engine: Any, ears: Ears) -> None:
    """A voice that the engine lacks is named before anything runs."""
    engine = make_engine(TABLE)
    with pytest.raises(ConfigError, match="no voice three"):
        evaluate(engine, replace(OPTIONS, voices=("one", "three")), ears)
    assert engine.offered == 0


def test_engine_is_stopped_after_a_failure(make_engine: Any, ears: Ears) -> None:
    """No thread is left behind when something breaks."""
    engine = make_engine({})
    with pytest.raises(KeyError):
        evaluate(engine, OPTIONS, ears)
    assert not engine.is_running


def test_engine_is_not_paced_by_playout() -> None:
    """Scoring must not take as long as listening to it."""
    config = engine_config(8)
    assert config.max_sessions == config.max_batch == 8
    assert config.ahead_ms >= 60_000
    assert config.horizon_ms >= 60_000


def test_condition_without_any_voice_is_left_out_by_name(make_engine: Any, ears: Ears) -> None:
    """Absent neural voices cost their own condition, and no other."""

    class NobodyNeural(type(ears.users)):  # type: ignore[misc]
        def choose(self, voices: VoiceSet, seed: int, number: int) -> str:
            if voices == "neural":
                raise SynthesisError("nobody can speak")
            return str(super().choose(voices, seed, number))

        def skipped(self, voices: VoiceSet) -> tuple[str, ...]:
            return ("af_sarah",) if voices == "neural" else ()

    report = evaluate(make_engine(TABLE), OPTIONS, replace(ears, users=NobodyNeural()))
    by_name = {c["condition"]: c for c in figures(report)}
    assert by_name["held-out neural voices, clean"]["turns"] == 0
    assert by_name["second synthesiser, clean"]["turns"] == NUM_TURNS
    assert "not installed: af_sarah" in report.table()
