"""From turns to figures."""

import json
from dataclasses import replace

import pytest

from model.training.evaluation.report import (
    ConditionReport,
    Report,
    TurnResult,
    choose_doubt,
    compare_runs,
    comparison_table,
    doubt_curve,
    score,
)
from model.training.evaluation.scoring import Share, WordErrors

RIGHT = TurnResult(
    condition="clean",
    dialogue=0,
    turn=0,
    skill="sums",
    user_voice="ann",
    voice="one",
    user="one plus two",
    reply="one plus two is three",
    transcript="one plus two",
    text="one plus two is three",
    heard="one plus two is tree",
    end_delay_ms=240,
)
WRONG = replace(
    RIGHT,
    dialogue=1,
    user_voice="bob",
    voice="two",
    transcript="one plus too",
    text="one plus two is four",
    heard="one plus two is four",
    end_delay_ms=None,
)


def report(*results: TurnResult, seed: int = 0) -> Report:
    """Put results into a report of one spoken condition."""
    return Report("table", 2, seed, (ConditionReport("clean", True, results),))


def test_score_counts_turns_and_words() -> None:
    """Replies and transcripts count whole and by the word; hearing counts against both texts."""
    figures = score([RIGHT, WRONG])
    assert figures.exact == Share(1, 2)
    assert figures.transcript == WordErrors(1, 6)
    assert figures.transcript_exact == Share(1, 2)
    assert figures.heard_intended == WordErrors(2, 10)
    assert figures.heard_own == WordErrors(1, 10)
    assert figures.end_of_turn == Share(1, 2)
    assert figures.end_delay_ms == 240


def test_missing_transcript_is_all_wrong() -> None:
    """A turn that was never transcribed must not improve the rate."""
    figures = score([replace(RIGHT, transcript=None)])
    assert figures.transcript == WordErrors(3, 3)


def test_failed_turn_is_not_exact() -> None:
    """A right text does not make up for a lost session."""
    assert not replace(RIGHT, failure="lost").is_exact
    assert score([replace(RIGHT, failure="lost")]).failures == 1


def test_typed_turns_have_no_transcript_figures() -> None:
    """What was not spoken is not counted as heard."""
    figures = score([replace(RIGHT, user_voice="", transcript=None, heard=None)])
    assert figures.exact == Share(1, 1)
    assert figures.transcript.rate is None
    assert figures.end_of_turn.value is None
    assert figures.heard_own.rate is None


def test_groups_by_skill_and_voice() -> None:
    """Each value of the key is scored by itself."""
    condition = report(RIGHT, WRONG).conditions[0]
    voices = condition.by(lambda r: r.user_voice)
    assert {name: s.exact for name, s in voices.items()} == {"ann": Share(1, 1), "bob": Share(0, 1)}


def test_json_is_one_line_with_all_figures() -> None:
    """Figures travel by stable names; what was not counted is null."""
    line = json.dumps(report(RIGHT, WRONG).to_json())
    condition = json.loads(line)["conditions"][0]
    assert condition["reply_exact"] == 0.5
    assert condition["reply_exact_low"] < 0.5 < condition["reply_exact_high"]
    assert condition["user_voices"]["bob"]["end_of_turn_ms"] is None
    assert set(condition["skills"]) == {"sums"}


def test_table_has_a_row_for_each_group() -> None:
    """The table names the condition, the skills, who spoke and who answered."""
    rows = [
        row.split("  ")[0] or row.strip().split("  ")[0]
        for row in report(RIGHT, WRONG).table().splitlines()
    ]
    assert {"clean", "sums", "user ann", "user bob", "reply by one"} <= set(rows)


def test_compare_runs_pairs_the_turns() -> None:
    """Gains and losses show one by one, not only in the sum."""
    first, second = report(RIGHT, WRONG), report(WRONG_AT_0, RIGHT_AT_1)
    clean, everything = compare_runs(first, second)
    assert (clean.name, everything.name) == ("clean", "all")
    assert clean.first.exact == clean.second.exact == Share(1, 2)
    assert (clean.only_first, clean.only_second) == (1, 1)
    assert clean.same_reply == Share(0, 2)
    assert clean.change == 0.0
    assert replace(everything, name="clean") == clean


def test_compare_runs_counts_only_turns_of_both() -> None:
    """A turn that one run left out says nothing about the other."""
    (clean, _) = compare_runs(report(RIGHT, WRONG), report(WRONG_AT_0))
    assert clean.turns == 1
    assert clean.change == -1.0
    assert clean.first.transcript == WordErrors(0, 3)
    assert clean.second.transcript == WordErrors(1, 3)


def test_compared_figures_are_in_the_table_and_in_json() -> None:
    """A reader finds the change in points, a program finds the same shares."""
    comparisons = compare_runs(report(RIGHT, WRONG), report(RIGHT, RIGHT_AT_1))
    table = comparison_table(comparisons).splitlines()
    assert table[2].split()[:5] == ["clean", "2", "50.0", "100.0", "+50.0"]
    figures = json.loads(json.dumps([c.to_json() for c in comparisons]))[1]
    assert figures["name"] == "all"
    assert figures["reply_exact_change"] == 0.5
    assert figures["reply_exact_change_low"] < 0.5 < figures["reply_exact_change_high"]
    assert figures["first"]["transcript_wer"] == pytest.approx(1 / 6, abs=1e-4)
    assert figures["second"]["spoken_wer_own"] == 0.2


WRONG_AT_0 = replace(WRONG, dialogue=0)
RIGHT_AT_1 = replace(RIGHT, dialogue=1)


def test_compare_runs_refuses_other_conversations() -> None:
    """Runs with different seeds cannot be paired."""
    with pytest.raises(ValueError, match="different seeds"):
        compare_runs(report(RIGHT), report(replace(RIGHT, user="two plus two"), seed=1))


def test_doubt_trades_mistakes_for_questions() -> None:
    """The higher the threshold, the fewer answers are wrong and the more questions are needless."""
    base = TurnResult(
        condition="c", dialogue=0, turn=0, skill="sums", user_voice="ann", voice="one", user="a",
        reply="b", transcript="a", text="b", confidence=0.95,
    )  # fmt: skip
    turns = [
        base,
        replace(base, confidence=0.45),
        replace(base, transcript="x", text="y", confidence=0.25),
        replace(base, transcript="x", text="y", confidence=0.85),
        replace(base, user="", spoilt="noise", transcript="x", text="y", confidence=0.15),
        replace(base, confidence=None),
    ]
    points = {point.threshold: point for point in doubt_curve(turns)}
    figures = {t: (p.mistaken.hits, p.needless.hits, p.caught.hits) for t, p in points.items()}
    assert figures[0.0] == (2, 0, 0)
    assert figures[0.2] == (2, 0, 1)
    assert figures[0.3] == (1, 0, 1)
    assert figures[0.5] == (1, 1, 1)
    assert figures[0.9] == (0, 1, 1)
    assert points[0.5].mistaken.total == 4
    assert doubt_curve([replace(base, confidence=None)]) == []
    # At 0.45 and below one of the two mistakes is left, and nothing is asked needlessly; one or the
    # other fault once in four turns is the best there is.
    chosen = choose_doubt(turns)
    assert chosen is not None
    assert (chosen.threshold, chosen.mistaken.hits, chosen.needless.hits) == (0.45, 1, 0)
    assert choose_doubt([replace(base, confidence=None)]) is None


def test_a_reply_is_exact_if_its_calls_are() -> None:
    """Names and arguments count, however the JSON is written; so do the words before."""
    right = TurnResult(
        condition="c", dialogue=0, turn=0, skill="functions", user_voice="", voice="one", user="a",
        reply="b", transcript=None, text="b", first="wait", said_first="wait",
        calls=(("f", '{"x": 1, "y": "z"}'),), made=(("f", '{"y":"z","x":1}'),),
    )  # fmt: skip
    assert right.is_exact
    assert not replace(right, made=(("f", '{"x":2,"y":"z"}'),)).is_exact
    assert not replace(right, made=()).is_exact
    assert not replace(right, said_first="").is_exact
    assert score([right, replace(right, made=())]).calls.value == 0.5
