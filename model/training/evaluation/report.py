"""Turn results into figures: per condition, per skill, per voice, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from model.training.evaluation.scoring import (
    Share,
    WordErrors,
    normalise,
    paired_interval,
    word_errors,
)

EARLY_MS = 200
"""A turn called finished more than this long before its last word's end was cut off."""


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn of one conversation: what was right, and what the model did.

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
        first: what is to be said before a call, `said_first` what was.
        calls: names and arguments of the calls that are right, `made` of those that were made.
        confidence: probability that the model gave to its transcript; None if it did not say.
        spoilt: what was done so that nobody could understand the recording; empty for nothing.
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
    first: str = ""
    said_first: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    made: tuple[tuple[str, str], ...] = ()
    confidence: float | None = None
    spoilt: str = ""

    @property
    def is_call_right(self) -> bool:
        """Say whether the functions that were called are the right ones, with their arguments."""
        # Arguments are compared as values: {"a": 1, "b": 2} and {"b":2,"a":1} are the same call.
        return [(n, _read(a)) for n, a in self.calls] == [(n, _read(a)) for n, a in self.made]

    @property
    def is_spoken(self) -> bool:
        """Say whether the user spoke; typed turns have no voice."""
        return bool(self.user_voice)

    @property
    def is_exact(self) -> bool:
        """Say whether the whole reply is right, word for word, and so are all calls before it."""
        said = (self.text, self.said_first)
        meant = (self.reply, self.first)
        is_said = all(normalise(a) == normalise(b) for a, b in zip(said, meant, strict=True))
        return not self.failure and is_said and self.is_call_right


def _read(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


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
    calls: Share

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
            "calls_right": _rounded(self.calls.value),
            "calls": self.calls.total,
        }


def score(results: Sequence[TurnResult]) -> Score:
    """Count over a group of turns; of typed turns nothing is transcribed and none sounds finished.

    A spoken turn without a transcript counts as heard not at all: every word of it is an error.
    """
    spoken = [r for r in results if r.is_spoken]
    # Two questions are asked of a reply's sound. Compared with the right reply, it tells whether a
    # user would hear the right thing. Compared with the model's own text, it tells whether the
    # voice is clear, right or wrong.
    heard = [(r.reply, r.text, r.heard) for r in results if r.heard is not None]
    delays = [r.end_delay_ms for r in spoken if r.end_delay_ms is not None]
    return Score(
        exact=Share(sum(r.is_exact for r in results), len(results)),
        # A turn of which nothing was heard counts with all of its words. Left out, a model that
        # says nothing would have no errors.
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
        calls=Share(sum(r.is_call_right for r in results if r.calls), sum(map(_calls, results))),
    )


def _calls(result: TurnResult) -> bool:
    return bool(result.calls)


@dataclass(frozen=True, slots=True)
class DoubtPoint:
    """What it would mean to ask again below a confidence.

    Attributes:
        threshold: a transcript that the model gives less is not relied on.
        mistaken: turns that are answered, and wrongly, of all that can be understood.
        needless: turns that are asked about though the reply was right, of the same.
        caught: turns that nobody could understand and that are asked about.
    """

    threshold: float
    mistaken: Share
    needless: Share
    caught: Share

    def to_json(self) -> dict[str, Any]:
        """Give the figures under stable names."""
        return {
            "threshold": self.threshold,
            "mistaken": _rounded(self.mistaken.value),
            "needless": _rounded(self.needless.value),
            "caught": _rounded(self.caught.value),
        }

    def line(self) -> str:
        """Write the point for reading."""
        caught = f", of the spoilt {_percent(self.caught.value)} % caught"
        return (
            f"below {self.threshold:.2f} asked again: {_percent(self.mistaken.value)} % wrong and "
            f"confident, {_percent(self.needless.value)} % asked needlessly"
            + (caught if self.caught.total else "")
        )


DOUBT_THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_ASKED_AGAIN = normalise("sorry i did not catch that")


def choose_doubt(results: Sequence[TurnResult]) -> DoubtPoint | None:
    """Choose the threshold at which the more frequent of the two faults is rarest.

    Returns:
        None without a turn that counts for `doubt_curve`.
    """
    # With the threshold, needless questions become more and confident mistakes fewer. Where they
    # meet, neither can become rarer without the other becoming more frequent. Between two
    # confidences that occurred nothing changes, so only those are tried.
    seen = {r.confidence for r in results if r.is_spoken and r.confidence is not None}
    points = doubt_curve(results, [0.0, *sorted(seen)])

    def faults(point: DoubtPoint) -> tuple[float, float]:
        mistaken, needless = point.mistaken.value or 0.0, point.needless.value or 0.0
        return max(mistaken, needless), point.threshold

    return min(points, key=faults, default=None)


def doubt_curve(
    results: Sequence[TurnResult], thresholds: Sequence[float] = DOUBT_THRESHOLDS
) -> list[DoubtPoint]:
    """Say for each threshold how often the model would be wrong and sure, or ask for nothing.

    Only spoken turns count of which the model said how sure it is; a model that asks again by
    itself does so at every threshold.
    """
    sure = [r for r in results if r.is_spoken and r.confidence is not None]
    clear, spoilt = ([r for r in sure if bool(r.spoilt) == s] for s in (False, True))
    if not clear:
        return []

    def asks(result: TurnResult, threshold: float) -> bool:
        assert result.confidence is not None
        return result.confidence < threshold or normalise(result.text) == _ASKED_AGAIN

    return [
        # A worked example: at a threshold of 0.3 a turn with the confidence 0.2 is asked about
        # again. If its transcript was right after all, that was needless. A turn with 0.6 is
        # answered; if the answer is wrong, the model was mistaken and sure, which is the worst a
        # user can meet.
        DoubtPoint(
            threshold,
            Share(sum(not asks(r, threshold) and not r.is_exact for r in clear), len(clear)),
            Share(sum(asks(r, threshold) and _heard_right(r) for r in clear), len(clear)),
            Share(sum(asks(r, threshold) for r in spoilt), len(spoilt)),
        )
        for threshold in thresholds
    ]


def _heard_right(result: TurnResult) -> bool:
    return result.is_exact or normalise(result.transcript or "") == normalise(result.user)


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
        return score(self.results)

    def by(self, key: Callable[[TurnResult], str]) -> dict[str, Score]:
        """Score the turns of each value of `key` by themselves."""
        # Typed turns have no user's voice, and an empty name is no row of the table.
        return {
            value: score([r for r in self.results if key(r) == value])
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
            "doubt": [point.to_json() for point in doubt_curve(self.results)],
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
            lines += [f"  {point.line()}" for point in doubt_curve(condition.results)]
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
    "calls",
    "end",
    "early",
    "ms",
)
_WIDTHS = (6, 11, 9, 9, 8, 8, 6, 6, 6, 6)
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
        _percent(figures.calls.value),
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
        name: of the condition, or "all".
        first: figures of the first run over the turns that both had, `second` of the second.
        same_reply: turns in which both said the same, right or wrong.
        only_first: turns that only the first got right, `only_second` the other way round.
        change_interval: bounds of the 95 % confidence interval of `change`.
    """

    name: str
    first: Score
    second: Score
    same_reply: Share
    only_first: int
    only_second: int
    change_interval: tuple[float, float]

    @property
    def turns(self) -> int:
        """How many turns both runs had."""
        return self.same_reply.total

    @property
    def change(self) -> float | None:
        """How much larger the second run's share of exact replies is; None without a turn."""
        return (self.only_second - self.only_first) / self.turns if self.turns else None

    def to_json(self) -> dict[str, Any]:
        """Give the figures under stable names; a change is that of a share, not in points."""
        low, high = self.change_interval
        return {
            "name": self.name,
            "turns": self.turns,
            "reply_exact_change": _rounded(self.change),
            "reply_exact_change_low": _rounded(low),
            "reply_exact_change_high": _rounded(high),
            "only_first_exact": self.only_first,
            "only_second_exact": self.only_second,
            "same_reply": _rounded(self.same_reply.value),
            "first": self._figures(self.first),
            "second": self._figures(self.second),
        }

    @staticmethod
    def _figures(run: Score) -> dict[str, Any]:
        names = ("reply_exact", "transcript_wer", "spoken_wer_intended", "spoken_wer_own")
        return {name: figure for name, figure in run.to_json().items() if name in names}


_PAIR_COLUMNS = (
    ("turns", 6),
    ("exact A", 8),
    ("exact B", 8),
    ("B - A", 7),
    ("95 %", 13),
    ("same", 6),
    ("heard A", 8),
    ("heard B", 8),
    ("said A", 7),
    ("said B", 7),
    ("own A", 6),
    ("own B", 6),
)
_PAIR_HEADER = f"{'':28}" + " ".join(f"{name:>{width}}" for name, width in _PAIR_COLUMNS)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Lay comparisons out for reading: the first run is A, the second B; changes are in points."""
    lines = [_PAIR_HEADER, "-" * len(_PAIR_HEADER)]
    for pair in comparisons:
        low, high = pair.change_interval
        cells = (
            str(pair.turns),
            _percent(pair.first.exact.value),
            _percent(pair.second.exact.value),
            "" if pair.change is None else f"{100 * pair.change:+.1f}",
            f"{100 * low:+.1f}..{100 * high:+.1f}",
            _percent(pair.same_reply.value),
            _percent(pair.first.transcript.rate),
            _percent(pair.second.transcript.rate),
            _percent(pair.first.heard_intended.rate),
            _percent(pair.second.heard_intended.rate),
            _percent(pair.first.heard_own.rate),
            _percent(pair.second.heard_own.rate),
        )
        columns = zip(cells, _PAIR_COLUMNS, strict=True)
        lines.append(f"{pair.name:28.28}" + " ".join(f"{c:>{w}}" for c, (_, w) in columns))
    return "\n".join(lines)


def compare_runs(first: Report, second: Report) -> tuple[Comparison, ...]:
    """Pair the turns of two reports with the same seed; the pairing makes small changes visible.

    Returns:
        A comparison for each condition that both reports have, then one over all conditions.

    Raises:
        ValueError: the reports are of different conversations.
    """
    conditions = {condition.name: condition for condition in second.conditions}
    paired = {
        condition.name: _pair(condition.results, conditions[condition.name].results)
        for condition in first.conditions
        if condition.name in conditions
    }
    everything = [pair for pairs in paired.values() for pair in pairs]
    return (*(_compare(*item) for item in paired.items()), _compare("all", everything))


_Pairs = Sequence[tuple[TurnResult, TurnResult]]


def _pair(first: Iterable[TurnResult], second: Iterable[TurnResult]) -> _Pairs:
    others = {(r.dialogue, r.turn): r for r in second}
    # Turns are matched by conversation and place. One that only one of the runs could hold, because
    # a synthesiser failed, is in neither count.
    pairs = [(r, others[r.dialogue, r.turn]) for r in first if (r.dialogue, r.turn) in others]
    if any(a.user != b.user for a, b in pairs):
        raise ValueError("the runs were held with different seeds: their turns do not match")
    return pairs


def _compare(name: str, pairs: _Pairs) -> Comparison:
    # A worked example: A and B hold 100 turns. A alone is right in 6, B alone in 4, the others are
    # alike. The change is (4 - 6) / 100 = -2 points. Only the ten turns that differ say anything,
    # which is why the same conversations are held twice.
    changes: dict[int, list[int]] = {}  # by conversation, which is the same under all conditions
    for a, b in pairs:
        changes.setdefault(a.dialogue, []).append(b.is_exact - a.is_exact)
    each = [change for turns in changes.values() for change in turns]
    return Comparison(
        name=name,
        first=score([a for a, _ in pairs]),
        second=score([b for _, b in pairs]),
        same_reply=Share(sum(normalise(a.text) == normalise(b.text) for a, b in pairs), len(pairs)),
        only_first=each.count(-1),
        only_second=each.count(1),
        change_interval=paired_interval(list(changes.values())),
    )
