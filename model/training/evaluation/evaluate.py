"""Score a model: conversations that training did not have, held through the real engine.

Everything goes the way of a live session, only faster: audio is appended, committed, answered, and
the reply's audio is given to a recogniser that knows nothing of the model. `parley eval` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from queue import SimpleQueue
from zlib import crc32

import numpy as np
from tqdm import tqdm

from model.assemble.starter import make_engine
from model.assemble.weights import Starter, load_starter
from model.engine.config import EngineConfig
from model.errors import ConfigError
from model.messages import Engine, News, Output
from model.precision import Linears, Precision
from model.training.evaluation.conditions import CONDITIONS, Case, Condition, draw_cases
from model.training.evaluation.conversation import Answer, Script, UserTurn, Wave, converse
from model.training.evaluation.precision import (
    PrecisionReport,
    SpeakReply,
    Studio,
    check_comparable,
    compare_choices,
    lay_out_all,
)
from model.training.evaluation.recordings import RecordingsReport, hold_recordings
from model.training.evaluation.report import (
    EARLY_MS,
    Comparison,
    ConditionReport,
    DoubtPoint,
    Report,
    TurnResult,
    choose_doubt,
    compare_runs,
    comparison_table,
    doubt_curve,
)
from model.training.evaluation.resynthesis import (
    Codec,
    CodecReport,
    compare_codec,
    resynthesise,
    save_spectrograms,
)
from model.training.evaluation.users import Spoken, Users
from model.training.evaluation.voices import VoiceTable, compare_voices, save_samples
from model.training.pictures.render import render
from model.training.pictures.scene import Scene
from model.training.recordings import read_recordings
from model.training.skills import Turn
from model.training.speech.spoil import spoil
from model.training.speech.types import SAMPLE_RATE_HZ, Speech, SynthesisError
from model.training.synthesis import FOREIGN

Recognise = Callable[[Wave], str]
"""Write down the words in float32 [samples] at 16 kHz."""
AddNoise = Callable[[Wave, float, np.random.Generator], Wave]
"""Add noise to float32 [samples], so many dB below the speech."""


MAX_AGREEMENT_DIALOGUES = 100
"""Conversations that two models are compared over choice by choice: some ten thousand choices."""
MAX_PARALLEL = 32
"""Conversations at once: batching makes them cheap, and more would only wait for each other."""


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to hold, and how much of it.

    Attributes:
        num_dialogues: conversations in each condition, the same ones in all.
        seed: decides the conversations, who speaks and the noise.
        voices: of the assistant; empty for all that the engine has.
        max_parallel: conversations at once, at most what the engine admits.
        num_heard: replies in each condition whose audio the recogniser hears.
        is_taught: whether the model was taught instructions and functions.
    """

    num_dialogues: int = 200
    seed: int = 0
    conditions: tuple[Condition, ...] = CONDITIONS
    voices: tuple[str, ...] = ()
    max_parallel: int = MAX_PARALLEL
    num_heard: int = 100
    is_taught: bool = False


@dataclass(frozen=True, slots=True)
class Ears:
    """Who speaks to the model and who listens to it."""

    users: Users
    recognise: Recognise
    add_noise: AddNoise


def evaluate(engine: Engine, options: EvalOptions, ears: Ears) -> Report:
    """Hold all conversations of all conditions and score them.

    Args:
        engine: not started; it is started and stopped here.
        options: what to hold.
        ears: who speaks to the model and who listens to it.

    Raises:
        ConfigError: the engine's audio is not at the synthesisers' rate, or it lacks a voice.
        EngineError: the engine fell silent.
    """
    info = engine.info
    if info.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ConfigError(
            f"evaluation speaks at {SAMPLE_RATE_HZ} Hz, the engine listens at {info.sample_rate_hz}"
        )
    voices = options.voices or info.voices
    if unknown := set(voices) - set(info.voices):
        raise ConfigError(f"the engine has no voice {', '.join(sorted(unknown))}")
    cases = draw_cases(
        options.num_dialogues,
        options.seed,
        voices,
        is_taught=options.is_taught,
        sees=info.sees,
    )
    num_turns = len(options.conditions) * sum(len(case.dialogue) for case in cases)
    outputs: SimpleQueue[Output] = SimpleQueue()

    engine.start(_deliver_to(outputs))
    try:
        # On a terminal only (`disable=None`): in a log, a bar is a line for every update.
        with tqdm(
            total=num_turns, unit="turn", desc=f"eval {info.model}", mininterval=5.0, disable=None
        ) as bar:
            reports = []
            for condition in options.conditions:
                bar.set_postfix_str(condition.name)
                run = _ConditionRun(condition, cases, options, ears)
                reports.append(run.hold(engine, outputs, bar.update))
    finally:
        engine.stop()
    return Report(info.model, options.num_dialogues, options.seed, tuple(reports))


class _ConditionRun:
    """Holds the conversations of one condition."""

    def __init__(
        self, condition: Condition, cases: list[Case], options: EvalOptions, ears: Ears
    ) -> None:
        self._condition = condition
        self._cases = cases
        self._options = options
        self._ears = ears
        self._heard = _first_turns(cases, options.num_heard)
        # session id -> the case, who speaks, and where the words of each turn end
        self._told: dict[str, tuple[Case, str, list[Spoken]]] = {}

    def hold(
        self, engine: Engine, outputs: SimpleQueue[Output], advance: Callable[[int], object]
    ) -> ConditionReport:
        """Hold every conversation; results come out in the order of the cases."""
        results: list[TurnResult] = []
        max_parallel = min(self._options.max_parallel, engine.info.max_sessions)
        for script, answers in converse(
            engine,
            outputs,
            self._scripts(engine.info.image_side),
            max_parallel=max_parallel,
        ):
            case, voice, spoken = self._told.pop(script.session_id)
            for turn, answer in enumerate(answers):
                end_ms = spoken[turn].end_ms if spoken else 0
                results.append(self._result(case, turn, voice, answer, end_ms))
            advance(len(answers))
        results.sort(key=lambda r: (r.dialogue, r.turn))
        voices = self._condition.voices
        return ConditionReport(
            name=self._condition.name,
            is_spoken=voices is not None,
            results=tuple(results),
            skipped_voices=self._ears.users.skipped(voices) if voices else (),
        )

    def _scripts(self, image_side: int) -> Iterator[Script]:
        for case in self._cases:
            session_id = f"{self._condition.name}/{case.number}"
            results = [tuple(call.result for call in turn.calls) for turn in case.dialogue]
            if self._condition.voices is None:
                if any(turn.spoilt for turn in case.dialogue):
                    continue  # nobody types noise
                typed = zip(case.dialogue, results, strict=True)
                self._told[session_id] = (case, "", [])
                turns = [_shown(t, UserTurn(t.user, None, r), image_side) for t, r in typed]
                yield self._script(case, session_id, turns)
                continue
            try:
                voice = self._ears.users.choose(
                    self._condition.voices, self._options.seed, case.number
                )
            except SynthesisError as error:
                # Nobody to speak on this machine; the report names who is missing.
                tqdm.write(f"left out, {self._condition.name}: {error}")
                return
            try:
                spoken = [self._spoken(case, turn, voice) for turn in case.dialogue]
            except SynthesisError as error:
                # A synthesiser may fail on a text. Not the model's fault, so not its score.
                tqdm.write(f"left out, {voice} cannot say it: {error}")
                continue
            self._told[session_id] = (case, voice, spoken)
            waves = self._at_loudness([s.pcm for s in spoken], case.number)
            said = zip(case.dialogue, waves, results, strict=True)
            turns = [
                _shown(t, UserTurn(t.user, w if t.user else None, r), image_side)
                for t, w, r in said
            ]
            yield self._script(case, session_id, turns)

    def _script(self, case: Case, session_id: str, turns: Sequence[UserTurn]) -> Script:
        return Script(session_id, case.voice, tuple(turns), case.instructions, case.tools)

    def _spoken(self, case: Case, turn: Turn, voice: str) -> Spoken:
        """Speak a turn, or what nobody could understand; nothing where the assistant begins."""
        users = self._ears.users
        if not turn.user:
            return Spoken(np.zeros(0, np.float32), 0)
        if turn.spoilt.startswith(FOREIGN):
            return users.speak(turn.spoilt, turn.user)
        spoken = users.speak(voice, turn.user)
        if not turn.spoilt:
            return spoken
        rng = np.random.default_rng((self._options.seed, case.number, 1))
        crowd = [users.speak(voice, text).pcm for text in _CROWD]
        return Spoken(spoil(spoken.pcm, turn.spoilt, rng, crowd), spoken.end_ms)

    def _at_loudness(self, waves: Sequence[Wave], number: int) -> list[Wave]:
        snr_db = self._condition.snr_db
        if snr_db is None:
            return list(waves)
        # A case has the same noise under every condition and in every run: its number and the seed
        # decide, and nothing else.
        rng = np.random.default_rng((self._options.seed, number))
        return [self._ears.add_noise(wave, snr_db, rng) for wave in waves]

    def _result(self, case: Case, turn: int, voice: str, answer: Answer, end_ms: int) -> TurnResult:
        meant = case.dialogue[turn]
        heard = None
        if answer.audio and (case.number, turn) in self._heard:
            heard = self._ears.recognise(np.concatenate(answer.audio))
        elif voice and (case.number, turn) in self._heard:
            heard = ""  # a reply without audio: nothing to hear
        ends_ms = answer.ends_ms if voice and meant.user and not meant.spoilt else []
        return TurnResult(
            condition=self._condition.name,
            dialogue=case.number,
            turn=turn,
            skill=meant.skill,
            user_voice=self._ears.users.group(voice) if voice and meant.user else "",
            voice=case.voice,
            user="" if meant.spoilt else meant.user,
            reply=meant.reply,
            transcript=answer.transcript,
            text=answer.text,
            heard=heard,
            # The last report counts as the end, and the first one shows whether it came too early:
            # a model that says "finished" in the middle of a turn and again at its end did both.
            end_delay_ms=ends_ms[-1] - end_ms if ends_ms else None,
            is_early=bool(ends_ms) and ends_ms[0] < end_ms - EARLY_MS,
            failure=answer.failure,
            first=meant.first,
            said_first=answer.firsts[0] if answer.firsts else "",
            calls=tuple((call.name, call.arguments) for call in meant.calls),
            made=tuple(answer.calls),
            confidence=None if answer.score is None else exp(answer.score),
            spoilt=meant.spoilt,
        )


def _shown(turn: Turn, does: UserTurn, image_side: int) -> UserTurn:
    """Let the user show the picture of a turn, if it has one, as large as it may be."""
    if not turn.picture:
        return does
    scene = Scene.read(turn.picture)
    picture = render(scene, image_side)
    return replace(does, images=(picture,), is_shown_last=scene.is_shown_last)


_CROWD = ("what is the capital of france", "count from three to nine", "my name is anna")


def _first_turns(cases: Sequence[Case], num_turns: int) -> frozenset[tuple[int, int]]:
    """Name the first turns in the order of the cases, whatever order they finish in."""
    turns = [(case.number, turn) for case in cases for turn in range(len(case.dialogue))]
    return frozenset(turns[:num_turns])


def engine_config(max_parallel: int = MAX_PARALLEL, *, linears: Linears = "dense") -> EngineConfig:
    """Configure an engine for scoring: nobody listens, so nothing is paced by playout."""
    # An hour ahead: all replies are made as fast as the machine can, and deadlines never keep
    # anybody waiting.
    unpaced_ms = 3_600_000
    return EngineConfig(
        max_sessions=max_parallel,
        max_batch=max_parallel,
        ahead_ms=unpaced_ms,
        horizon_ms=unpaced_ms,
        linears=linears,
    )


def default_ears(*, is_taught: bool = False) -> Ears:
    """Give the synthesisers, the noise and the recogniser of the training recipe.

    Args:
        is_taught: whether the model heard all that the recipe has now, Kokoro's voices among it.
    """
    # Here, because only a real evaluation needs them: they bring programs that may be missing.
    from model.training.evaluation.users import (  # noqa: PLC0415
        HEARD_BY_TAUGHT,
        HEARD_IN_TRAINING,
        SynthesisedUsers,
    )
    from model.training.speech.augment import add_noise  # noqa: PLC0415
    from model.training.speech.recogniser import Recogniser  # noqa: PLC0415

    users = SynthesisedUsers(HEARD_BY_TAUGHT if is_taught else HEARD_IN_TRAINING)
    return Ears(users, Recogniser().recognise, add_noise)


def run_eval(
    engine: Engine,
    *,
    num_dialogues: int = 200,
    seed: int = 0,
    conditions: tuple[Condition, ...] = CONDITIONS,
    is_taught: bool = False,
    out: Path | None = None,
) -> Report:
    """Score with the synthesisers and the recogniser of the training recipe, and print.

    Prints a table, then one JSON line last.

    Args:
        engine: not started, best made with `engine_config`; it is started and stopped here.
        num_dialogues: conversations in each condition.
        seed: decides the conversations, who speaks and the noise.
        conditions: how the user's turns reach the model.
        is_taught: whether the model was taught instructions and functions.
        out: also write all figures and every turn to this file, as JSON.
    """
    options = EvalOptions(num_dialogues, seed, conditions, is_taught=is_taught)
    report = evaluate(engine, options, default_ears(is_taught=is_taught))
    print(report.table())
    if out is not None:
        out.write_text(json.dumps(report.to_json() | {"results": report.turns()}, indent=1) + "\n")
    print(json.dumps(report.to_json()))
    return report


def run_doubt(
    starter: Starter,
    options: EvalOptions,
    *,
    linears: Linears = "dense",
    out: Path | None = None,
    ears: Ears | None = None,
) -> DoubtPoint:
    """Find below which confidence a model had better ask again, and print.

    Prints what each threshold would mean, then the chosen one, then one JSON line. Meanwhile the
    model relies on every transcript.

    Args:
        starter: the model.
        options: what to hold; the turns of all its conditions count together.
        linears: how the model's linears are kept.
        out: also write all figures and every turn to this file, as JSON.
        ears: who speaks and who listens; those of the training recipe if None.

    Returns:
        The threshold at which the more frequent of the two faults is as rare as it can be: to be
        wrong and confident, and to ask needlessly.

    Raises:
        ConfigError: no turn was spoken.
    """
    trusting = replace(starter, judgement=replace(starter.judgement, doubt_below=0.0))
    engine = make_engine(trusting, engine_config(linears=linears))
    report = evaluate(engine, options, ears or default_ears(is_taught=options.is_taught))
    results = [result for condition in report.conditions for result in condition.results]
    chosen = choose_doubt(results)
    if chosen is None:
        raise ConfigError("nothing was spoken of which the model said how sure it is")
    curve = doubt_curve(results)
    print("\n".join([*(point.line() for point in curve), f"chosen: {chosen.line()}"]))
    figures = {"doubt": [point.to_json() for point in curve], "chosen": chosen.to_json()}
    if out is not None:
        out.write_text(json.dumps(figures | {"results": report.turns()}, indent=1) + "\n")
    print(json.dumps(figures))
    return chosen


def run_voices(
    engine: Engine, *, num_texts: int = 20, seed: int = 0, samples: Path | None = None
) -> VoiceTable:
    """Let every voice of a model answer the same typed questions, compare them, and print.

    Prints a table, then one JSON line last.

    Args:
        engine: not started, best made with `engine_config`; it is started and stopped here.
        num_texts: questions; at least two, since halves are compared as well.
        seed: decides the questions.
        samples: a folder in which each voice's first reply is written, as `NAME.wav`.

    Raises:
        ConfigError: there are too few questions.
        EngineError: the engine fell silent.
    """
    if num_texts < 2:
        raise ConfigError(f"--voices: expected at least two texts, got {num_texts}")
    cases = draw_cases(num_texts, seed, ("any",))
    voices = engine.info.voices
    scripts = [
        Script(
            f"{voice}/{case.number}",
            voice,
            (UserTurn(case.dialogue[0].user, is_answered_aloud=True),),
        )
        for voice in voices
        for case in cases
    ]
    outputs: SimpleQueue[Output] = SimpleQueue()
    engine.start(_deliver_to(outputs))
    try:
        said: dict[str, dict[int, Wave]] = {voice: {} for voice in voices}
        most = min(MAX_PARALLEL, engine.info.max_sessions)
        for script, (answer,) in converse(engine, outputs, scripts, max_parallel=most):
            number = int(script.session_id.rpartition("/")[2])
            said[script.voice][number] = np.concatenate([np.zeros(0, np.float32), *answer.audio])
    finally:
        engine.stop()
    ordered = {voice: [said[voice][case.number] for case in cases] for voice in voices}
    table = compare_voices(ordered)
    print(table.table())
    if samples is not None:
        save_samples(samples, {voice: waves[0] for voice, waves in ordered.items()})
    print(json.dumps(table.to_json()))
    return table


def _deliver_to(outputs: SimpleQueue[Output]) -> Callable[[Output | News], None]:
    """Keep outputs; an engine that was lost has fallen silent, and is reported as that."""

    def keep(output: Output | News) -> None:
        if not isinstance(output, News):
            outputs.put(output)

    return keep


def run_forms(
    starter: Callable[[Linears], Starter],
    options: EvalOptions,
    *,
    linears: Linears,
    out: Path | None = None,
    ears: Ears | None = None,
) -> dict[str, tuple[Comparison, ...]]:
    """Hold the same conversations with a model's weights and memory in other forms, and print.

    Prints a comparison with full precision for each form, then one JSON line last.

    Args:
        starter: loads the model with its linears kept in some way.
        options: what to hold.
        linears: how a server would keep them.
        out: also write all figures to this file, as JSON.
        ears: who speaks and who listens; those of the training recipe if None.

    Returns:
        By the name of the form, full precision being the first of each pair.
    """
    ears = ears or default_ears(is_taught=options.is_taught)
    forms: dict[str, tuple[Linears, Precision]] = {
        "dense linears": ("dense", "full"),
        f"{linears} linears": (linears, "full"),
        f"{linears} linears, int8 keys and values": (linears, "int8"),
    }
    reports = {
        name: evaluate(
            make_engine(starter(kept), replace(engine_config(linears=kept), kv=kv), name=name),
            options,
            ears,
        )
        for name, (kept, kv) in forms.items()
    }
    full, *others = reports.values()
    compared = {report.model: compare_runs(full, report) for report in others}
    for name, comparisons in compared.items():
        print(f"A: {full.model}\nB: {name}\n{comparison_table(comparisons)}\n")
    figures = {name: [pair.to_json() for pair in pairs] for name, pairs in compared.items()}
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))
    return compared


def run_recordings(engine: Engine, directory: Path, *, out: Path | None = None) -> RecordingsReport:
    """Score how the model hears a folder of recordings, and print.

    Prints a line for each recording, then one JSON line last.

    Args:
        engine: not started, best made with `engine_config`; it is started and stopped here.
        directory: wav files and their `transcripts.tsv`; see `model.training.recordings`.
        out: also write all figures and every recording to this file, as JSON.

    Raises:
        ConfigError: naming a file and what is wrong with it.
    """
    clips, replies = read_recordings(directory, longest_s=None)
    report = hold_recordings(engine, clips, replies, max_parallel=MAX_PARALLEL)
    print(report.table())
    if out is not None:
        out.write_text(json.dumps(report.to_json() | {"results": report.turns()}, indent=1) + "\n")
    print(json.dumps(report.to_json()))
    return report


def run_comparison(
    first: Path,
    second: Path,
    options: EvalOptions,
    *,
    out: Path | None = None,
    ears: Ears | None = None,
    speak: SpeakReply | None = None,
) -> PrecisionReport:
    """Score two exports of one model on the same conversations, compare them, and print.

    Prints both tables, the comparison, then one JSON line last.

    Args:
        first: directory of the reference, such as the one in full precision; A in the tables.
        second: directory of the model in question; B in the tables.
        options: what to hold.
        out: also write all figures and every turn of both to this file, as JSON.
        ears: who speaks and who listens; those of the training recipe if None.
        speak: the assistant's voices; those of the training recipe if None.

    Raises:
        WeightsError: a file is missing, broken or does not fit the others.
        ConfigError: these are not exports of the same model.
    """
    starters = load_starter(first), load_starter(second)
    check_comparable(*starters)
    ears = ears or default_ears()
    reports = []
    for letter, directory, starter in zip("AB", (first, second), starters, strict=True):
        engine = make_engine(starter, engine_config(), name=directory.name)
        reports.append(evaluate(engine, options, ears))
        # At once: each takes long, and the first is worth having if the second fails.
        print(f"{letter}: {directory}\n{reports[-1].table()}\n", flush=True)
    voices = options.voices or starters[0].voices
    cases = draw_cases(min(options.num_dialogues, MAX_AGREEMENT_DIALOGUES), options.seed, voices)
    studio = Studio(
        codec=starters[0].codec,
        num_codebooks=starters[0].lm.config.num_codebooks,
        pieces=starters[0].tokenizer,
        voices=starters[0].voices,
        users=ears.users,
        speak=speak or _speak_reply,
    )
    agreements, num_dialogues = compare_choices(
        starters[0].lm, starters[1].lm, lay_out_all(studio, cases, options.seed)
    )
    report = PrecisionReport(
        first=reports[0],
        second=reports[1],
        comparisons=compare_runs(reports[0], reports[1]),
        agreements=agreements,
        num_dialogues=num_dialogues,
    )
    print(f"A: {first}\nB: {second}\n{report.table()}")
    if out is not None:
        turns = {"first_results": reports[0].turns(), "second_results": reports[1].turns()}
        out.write_text(json.dumps(report.to_json() | turns, indent=1) + "\n")
    print(json.dumps(report.to_json()))
    return report


def _speak_reply(voice: str, text: str) -> Speech:
    from model.training.speech.voices import VOICE_BY_NAME, synthesise  # noqa: PLC0415

    return synthesise(VOICE_BY_NAME[voice], text)


def run_codec_eval(
    codec: Codec,
    voices: Sequence[str],
    *,
    num_texts: int = 80,
    seed: int = 0,
    picture: Path | None = None,
) -> CodecReport:
    """Compare the assistant's voices before and after the codec, and print.

    What is said are replies of conversations that training did not have. Prints a line for each
    voice, then one JSON line last.

    Args:
        codec: the tokenizer and vocoder.
        voices: names of the assistant's voices.
        num_texts: replies, each spoken in every voice.
        seed: decides the replies.
        picture: also draw spectrograms of one reply in each voice into this file.
    """
    from model.training.speech.recogniser import Recogniser  # noqa: PLC0415

    def speak(voice: str, text: str) -> Wave:
        return (_speak_reply(voice, text).pcm / 32768).astype(np.float32)

    replies = {t.reply for c in draw_cases(num_texts, seed, ("any",)) for t in c.dialogue}
    # Sorted by a hash, the first 80 are a mixture of all skills, and the same ones each time.
    texts = sorted(replies, key=lambda text: (crc32(text.encode()), text))[:num_texts]
    report = compare_codec(codec, Recogniser().recognise, texts, voices, speak)
    print(report.table())
    if picture is not None:
        waves = [(voice, speak(voice, texts[0])) for voice in voices]
        save_spectrograms(picture, [(v, wave, resynthesise(codec, wave)) for v, wave in waves])
    print(json.dumps(report.to_json()))
    return report
