"""From turns to figures."""

import json
from dataclasses import replace

import pytest

from model.training.evaluation.report import (
    ConditionReport,
    Report,
    TurnResult,
    compare_runs,
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
    figures = score([RIGHT, WRONG], is_spoken=True)
    assert figures.exact == Share(1, 2)
    assert figures.transcript == WordErrors(1, 6)
    assert figures.transcript_exact == Share(1, 2)
    assert figures.heard_intended == WordErrors(2, 10)
    assert figures.heard_own == WordErrors(1, 10)
    assert figures.end_of_turn == Share(1, 2)
    assert figures.end_delay_ms == 240


def test_missing_transcript_is_all_wrong() -> None:
    """A turn that was never transcribed must not improve the rate."""
    figures = score([replace(RIGHT, transcript=None)], is_spoken=True)
    assert figures.transcript == WordErrors(3, 3)


def test_failed_turn_is_not_exact() -> None:
    """A right text does not make up for a lost session."""
    assert not replace(RIGHT, failure="lost").is_exact
    assert score([replace(RIGHT, failure="lost")], is_spoken=True).failures == 1


def test_typed_turns_have_no_transcript_figures() -> None:
    """What was not spoken is not counted as heard."""
    figures = score([replace(RIGHT, user_voice="", transcript=None, heard=None)], is_spoken=False)
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
    comparison = compare_runs(first, second)
    assert comparison.first_exact == comparison.second_exact == Share(1, 2)
    assert (comparison.only_first, comparison.only_second) == (1, 1)
    assert comparison.same_reply == Share(0, 2)


WRONG_AT_0 = replace(WRONG, dialogue=0)
RIGHT_AT_1 = replace(RIGHT, dialogue=1)


def test_compare_runs_refuses_other_conversations() -> None:
    """Runs with different seeds cannot be paired."""
    with pytest.raises(ValueError, match="different seeds"):
        compare_runs(report(RIGHT), report(replace(RIGHT, user="two plus two"), seed=1))
