"""Score how a model hears recordings: a folder of wav files and what is said in each.

Every recording is a conversation of one turn with the real engine, as in `evaluate`. What the model
writes down is compared with what was said; its reply is compared only where the right one is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from model.errors import ConfigError
from model.messages import Engine, News, Output
from model.training.evaluation.conversation import Script, UserTurn, converse
from model.training.evaluation.scoring import Share, WordErrors, normalise, word_errors
from model.training.evaluation.users import LEAD_S, TAIL_S
from model.training.speech.types import SAMPLE_RATE_HZ
from model.training.store import Clip


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """One recording: what was said in it, and what the model made of it.

    Attributes:
        key: as `read_recordings` names it, by its file.
        said: what is said in it.
        transcript: what the model heard; empty when it never said.
        reply: the right reply; None when none was given.
        text: the model's reply.
        failure: why the turn has no proper end; empty when all is well.
    """

    key: str
    said: str
    transcript: str
    reply: str | None
    text: str
    failure: str = ""

    @property
    def errors(self) -> WordErrors:
        """Count the words heard wrongly."""
        return word_errors([(self.said, self.transcript)])

    @property
    def is_exact(self) -> bool | None:
        """Say whether the reply is right, word for word; None when the right one is not known."""
        if self.reply is None:
            return None
        return not self.failure and normalise(self.text) == normalise(self.reply)


@dataclass(frozen=True, slots=True)
class RecordingsReport:
    """The scores of a folder, in the order of its index."""

    model: str
    results: tuple[RecordingResult, ...]

    @property
    def transcript(self) -> WordErrors:
        """Count the words heard wrongly in all recordings."""
        return word_errors((r.said, r.transcript) for r in self.results)

    @property
    def transcript_exact(self) -> Share:
        """Count the recordings of which every word was heard."""
        return Share(sum(r.errors.errors == 0 for r in self.results), len(self.results))

    @property
    def reply_exact(self) -> Share:
        """Count the right replies, of those recordings whose right reply is given."""
        known = [r.is_exact for r in self.results if r.is_exact is not None]
        return Share(sum(known), len(known))

    def to_json(self) -> dict[str, Any]:
        """Give all figures under the names that `Score.to_json` uses, for one JSON line."""
        (low, high), errors = self.reply_exact.interval, self.transcript
        return {
            "model": self.model,
            "recordings": len(self.results),
            "words": errors.words,
            "transcript_wer": errors.rate,
            "transcript_exact": self.transcript_exact.value,
            "replies": self.reply_exact.total,
            "reply_exact": self.reply_exact.value,
            "reply_exact_low": low if self.reply_exact.total else None,
            "reply_exact_high": high if self.reply_exact.total else None,
            "failures": sum(bool(r.failure) for r in self.results),
        }

    def turns(self) -> list[dict[str, Any]]:
        """List every recording with what was said and what came of it."""
        return [
            asdict(r) | {"word_errors": r.errors.errors, "is_exact": r.is_exact}
            for r in self.results
        ]

    def table(self) -> str:
        """Lay the results out for reading: what was said, what was heard, what was answered."""
        lines = []
        for result in self.results:
            wrong = result.errors
            lines.append(f"{result.key}: {wrong.errors} of {wrong.words} words wrong")
            lines.append(f"  said    {result.said}")
            lines.append(f"  heard   {result.transcript}")
            verdict = {None: "", True: "  (right)", False: f"  (wrong: {result.reply})"}
            lines.append(f"  answer  {result.text}{verdict[result.is_exact]}")
            if result.failure:
                lines.append(f"  failed  {result.failure}")
        errors, exact = self.transcript, self.reply_exact
        lines.append(
            f"{len(self.results)} recordings: {errors.errors} of {errors.words} words wrong "
            f"({100 * (errors.rate or 0):.1f} %)"
        )
        if exact.total:
            low, high = exact.interval
            lines.append(
                f"replies exact: {exact.hits} of {exact.total} "
                f"({100 * (exact.value or 0):.1f} %, 95 %: {100 * low:.0f} to {100 * high:.0f})"
            )
        return "\n".join(lines)


def hold_recordings(
    engine: Engine, clips: Sequence[Clip], replies: Mapping[str, str], *, max_parallel: int
) -> RecordingsReport:
    """Let the model hear every recording and answer it.

    Args:
        engine: not started; it is started and stopped here.
        clips: what `read_recordings` returns, of any length.
        replies: right replies by the key of the clip, where they are known.
        max_parallel: conversations at once, at most what the engine admits.

    Raises:
        ConfigError: the engine's audio is not at the recordings' rate.
        EngineError: the engine fell silent.
    """
    info = engine.info
    if info.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ConfigError(
            f"recordings are read at {SAMPLE_RATE_HZ} Hz, the engine listens at "
            f"{info.sample_rate_hz}"
        )
    outputs: SimpleQueue[Output] = SimpleQueue()

    def keep(output: Output | News) -> None:
        if not isinstance(output, News):
            outputs.put(output)

    by_key = {clip.key: clip for clip in clips}
    results: dict[str, RecordingResult] = {}
    engine.start(keep)
    try:
        for script, (answer,) in converse(
            engine,
            outputs,
            _scripts(clips, info.voices),
            max_parallel=min(max_parallel, info.max_sessions),
        ):
            key = script.session_id
            results[key] = RecordingResult(
                key=key,
                said=by_key[key].text,
                transcript=answer.transcript or "",
                reply=replies.get(key),
                text=answer.text,
                failure=answer.failure,
            )
    finally:
        engine.stop()
    return RecordingsReport(info.model, tuple(results[clip.key] for clip in clips))


def _scripts(clips: Sequence[Clip], voices: Sequence[str]) -> Iterator[Script]:
    # Recordings may begin with the first sample of a word. A little silence on both sides is what a
    # gateway would leave.
    lead, tail = (round(seconds * SAMPLE_RATE_HZ) for seconds in (LEAD_S, TAIL_S))
    for number, clip in enumerate(clips):
        pcm = np.pad(clip.pcm.astype(np.float32) / np.float32(32768), (lead, tail))
        voice = voices[number % len(voices)]
        yield Script(clip.key, voice, (UserTurn(clip.text, pcm),))
