"""Turn results into figures: per condition, per skill, per voice, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from model.training.evaluation.scoring import (
    Share,
    WordErrors,
    normalise,
    word_errors,
)

EARLY_MS = 200
"""A turn called finished more than this long before its last word's end was cut off."""


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn of one conversation: what was meant, and what came of it.

    Attributes:
        condition: name of the condition.
        dialogue: number of the conversation, the same under every condition.
        turn: position in the conversation, from zero.
        transcript: what the model heard; None for typed turns, and when it never said.
        text: the model's reply; `reply` is the right one.
        heard: what the recogniser heard in the reply's audio; None where it was not asked.
        end_delay_ms: from the end of the user's last word to the last report that the turn sounds
            finished; None when there was none, or nothing was spoken.
        is_early: the turn was called finished while the user was still speaking.
        failure: why the turn has no proper end; empty when all is well.
    """

    condition: str
    dialogue: int
    turn: int
    skill: str
    user_voice: str
    voice: str
    user: str
    reply: str
    transcript: str | None
    text: str
    heard: str | None = None
    end_delay_ms: int | None = None
    is_early: bool = False
    failure: str = ""

    @property
    def is_exact(self) -> bool:
        """Say whether the whole reply is right, word for word."""
        return not self.failure and normalise(self.text) == normalise(self.reply)


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a group of turns."""

    exact: Share
    transcript: WordErrors
    transcript_exact: Share
    heard_intended: WordErrors
    heard_own: WordErrors
    end_of_turn: Share
    end_early: Share
    end_delay_ms: float | None
    failures: int

    def to_json(self) -> dict[str, Any]:
        """Give the figures under stable names; None where nothing was counted."""
        low, high = self.exact.interval
        return {
            "turns": self.exact.total,
            "reply_exact": _rounded(self.exact.value),
            "reply_exact_low": _rounded(low),
            "reply_exact_high": _rounded(high),
            "transcript_wer": _rounded(self.transcript.rate),
            "transcript_exact": _rounded(self.transcript_exact.value),
            "spoken_wer_intended": _rounded(self.heard_intended.rate),
            "spoken_wer_own": _rounded(self.heard_own.rate),
            "spoken_words": self.heard_intended.words,
            "end_of_turn": _rounded(self.end_of_turn.value),
            "end_of_turn_early": _rounded(self.end_early.value),
            "end_of_turn_ms": self.end_delay_ms,
            "failures": self.failures,
        }


def score(results: Sequence[TurnResult], *, is_spoken: bool) -> Score:
    """Count over a group of turns; of typed turns nothing is transcribed and none sounds finished.

    A spoken turn without a transcript counts as heard not at all: every word of it is an error.
    """
    spoken = results if is_spoken else []
    heard = [(r.reply, r.text, r.heard) for r in results if r.heard is not None]
    delays = [r.end_delay_ms for r in spoken if r.end_delay_ms is not None]
    return Score(
        exact=Share(sum(r.is_exact for r in results), len(results)),
        transcript=word_errors((r.user, r.transcript or "") for r in spoken),
        transcript_exact=Share(
            sum(normalise(r.transcript or "") == normalise(r.user) for r in spoken), len(spoken)
        ),
        heard_intended=word_errors((reply, words) for reply, _, words in heard),
        heard_own=word_errors((text, words) for _, text, words in heard),
        end_of_turn=Share(len(delays), len(spoken)),
        end_early=Share(sum(r.is_early for r in spoken), len(spoken)),
        end_delay_ms=median(delays) if delays else None,
        failures=sum(bool(r.failure) for r in results),
    )


@dataclass(frozen=True, slots=True)
class ConditionReport:
    """The scores of one condition."""

    name: str
    is_spoken: bool
    results: tuple[TurnResult, ...]
    skipped_voices: tuple[str, ...] = ()

    @property
    def score(self) -> Score:
        """Score all turns."""
        return score(self.results, is_spoken=self.is_spoken)

    def by(self, key: Callable[[TurnResult], str]) -> dict[str, Score]:
        """Score the turns of each value of `key` by themselves."""
        return {
            value: score([r for r in self.results if key(r) == value], is_spoken=self.is_spoken)
            for value in sorted({key(r) for r in self.results} - {""})
        }

    def to_json(self) -> dict[str, Any]:
        """Give all figures of the condition."""
        return {
            "condition": self.name,
            **self.score.to_json(),
            "skills": _to_json(self.by(lambda r: r.skill)),
            "user_voices": _to_json(self.by(lambda r: r.user_voice)),
            "voices": _to_json(self.by(lambda r: r.voice)),
            "skipped_voices": list(self.skipped_voices),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of a model under all conditions."""

    model: str
    num_dialogues: int
    seed: int
    conditions: tuple[ConditionReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Give all figures, for one JSON line."""
        return {
            "model": self.model,
            "dialogues": self.num_dialogues,
            "seed": self.seed,
            "conditions": [condition.to_json() for condition in self.conditions],
        }

    def turns(self) -> list[dict[str, Any]]:
        """List every turn with what was meant and what came of it, to see where it went wrong."""
        return [
            asdict(result) | {"is_exact": result.is_exact}
            for condition in self.conditions
            for result in condition.results
        ]

    def table(self) -> str:
        """Lay the figures out for reading."""
        lines = [_HEADER, "-" * len(_HEADER)]
        for condition in self.conditions:
            lines.append(_row(condition.name, condition.score))
            lines += [_row(f"  {k}", s) for k, s in condition.by(lambda r: r.skill).items()]
            voices = condition.by(lambda r: r.user_voice)
            lines += [_row(f"  user {k}", s) for k, s in voices.items()]
            if condition.is_spoken:
                voices = condition.by(lambda r: r.voice)
                lines += [_row(f"  reply by {k}", s) for k, s in voices.items()]
            if condition.skipped_voices:
                lines.append(f"  not installed: {', '.join(condition.skipped_voices)}")
        return "\n".join(lines)


_COLUMNS = (
    "turns",
    "reply exact",
    "95 %",
    "heard WER",
    "said WER",
    "own WER",
    "end",
    "early",
    "ms",
)
_WIDTHS = (6, 11, 9, 9, 8, 8, 6, 6, 6)
_HEADER = f"{'':36}" + " ".join(f"{c:>{w}}" for c, w in zip(_COLUMNS, _WIDTHS, strict=True))


def _row(name: str, figures: Score) -> str:
    low, high = figures.exact.interval
    cells = (
        str(figures.exact.total),
        _percent(figures.exact.value),
        f"{100 * low:.0f}-{100 * high:.0f}",
        _percent(figures.transcript.rate),
        _percent(figures.heard_intended.rate),
        _percent(figures.heard_own.rate),
        _percent(figures.end_of_turn.value),
        _percent(figures.end_early.value),
        "" if figures.end_delay_ms is None else f"{figures.end_delay_ms:.0f}",
    )
    return f"{name:36.36}" + " ".join(f"{c:>{w}}" for c, w in zip(cells, _WIDTHS, strict=True))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _to_json(scores: dict[str, Score]) -> dict[str, Any]:
    return {name: figures.to_json() for name, figures in scores.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs over the same conversations, such as full precision and NF4.

    Attributes:
        turns: turns that both runs had.
        first_exact: of the first run, and `second_exact` of the second.
        same_reply: turns in which both said the same, right or wrong.
        only_first: turns that only the first got right, `only_second` the other way round.
    """

    turns: int
    first_exact: Share
    second_exact: Share
    same_reply: Share
    only_first: int
    only_second: int


def compare_runs(first: Report, second: Report) -> Comparison:
    """Pair the turns of two reports with the same seed; the pairing makes small changes visible."""

    def keyed(report: Report) -> dict[tuple[str, int, int], TurnResult]:
        results: Iterable[TurnResult] = (r for c in report.conditions for r in c.results)
        return {(r.condition, r.dialogue, r.turn): r for r in results}

    one, two = keyed(first), keyed(second)
    pairs = [(one[key], two[key]) for key in one if key in two]
    if any(a.user != b.user for a, b in pairs):
        raise ValueError("the runs were held with different seeds: their turns do not match")
    total = len(pairs)
    return Comparison(
        turns=total,
        first_exact=Share(sum(a.is_exact for a, _ in pairs), total),
        second_exact=Share(sum(b.is_exact for _, b in pairs), total),
        same_reply=Share(sum(normalise(a.text) == normalise(b.text) for a, b in pairs), total),
        only_first=sum(a.is_exact and not b.is_exact for a, b in pairs),
        only_second=sum(b.is_exact and not a.is_exact for a, b in pairs),
    )
