"""Carry out `parley eval`: which measure is asked for, and what it needs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from model.assemble.starter import make_engine
from model.assemble.weights import Starter, load_starter, write_judgement
from model.errors import ConfigError
from model.judgement import Judgement
from model.precision import Linears
from model.training.evaluation import evaluate
from model.training.evaluation.conditions import STRANGERS, Condition
from model.training.evaluation.ends import run_ends


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for.

    Attributes:
        args: of the command line; see its help.
        directory: of the weights.
        linears: how the settings keep them.
        conditions: by name, all there are.
    """

    args: argparse.Namespace
    directory: Path
    linears: Linears
    conditions: dict[str, Condition]

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ConfigError: it cannot be done with these weights, or is no whole wish.
        """
        args = self.args
        if args.calibrate and not (args.ends or args.doubt):
            raise ConfigError("--calibrate: goes with --ends or --doubt")
        if args.against is not None:
            self._compare()
        elif args.forms:
            options = self._options(is_taught=self._load("dense").tokenizer.is_taught_prompts)
            load = partial(load_starter, self.directory)
            evaluate.run_forms(load, options, linears=self.linears, out=args.out)
        elif args.codec:
            starter = self._load("dense")
            evaluate.run_codec_eval(
                starter.codec,
                starter.voices,
                num_texts=args.dialogues,
                seed=args.seed,
                picture=args.picture,
            )
        elif args.ends or args.doubt:
            judgement = self._judge(self._load(self.linears))
            if args.calibrate:
                write_judgement(self.directory, judgement)
        else:
            self._talk(self._load(self.linears))

    def _load(self, linears: Linears) -> Starter:
        return load_starter(self.directory, linears)

    def _options(self, *, is_taught: bool = False) -> evaluate.EvalOptions:
        return evaluate.EvalOptions(
            num_dialogues=self.args.dialogues,
            seed=self.args.seed,
            conditions=tuple(
                self.conditions[name] for name in self.args.condition or self.conditions
            ),
            is_taught=is_taught,
        )

    def _compare(self) -> None:
        other: Path = self.args.against
        if not other.is_dir():
            raise ConfigError(f"--against {other}: no such directory")
        evaluate.run_comparison(other, self.directory, self._options(), out=self.args.out)

    def _talk(self, starter: Starter) -> None:
        """Let the model answer, and score that."""
        args = self.args
        config = evaluate.engine_config(linears=self.linears)
        engine = make_engine(starter, config, name=self.directory.name)
        if args.voices:
            samples = args.samples
            evaluate.run_voices(engine, num_texts=args.dialogues, seed=args.seed, samples=samples)
        elif args.recordings is not None:
            evaluate.run_recordings(engine, args.recordings, out=args.out)
        else:
            is_taught = starter.tokenizer.is_taught_prompts
            options = self._options(is_taught=is_taught)
            evaluate.run_eval(
                engine,
                num_dialogues=options.num_dialogues,
                seed=options.seed,
                conditions=options.conditions,
                is_taught=is_taught,
                out=args.out,
            )

    def _judge(self, starter: Starter) -> Judgement:
        """Find out how far the model's own judgement is to be trusted."""
        args, is_taught = self.args, starter.tokenizer.is_taught_prompts
        if args.ends:
            if args.calibrate and not starter.lm.config.has_end_head:
                raise ConfigError("--calibrate: these weights have no head for ends of turns")
            ears = evaluate.default_ears()
            points = run_ends(
                starter,
                ears.users,
                ears.add_noise,
                num_turns=args.dialogues,
                seed=args.seed,
                out=args.out,
            )
            return replace(starter.judgement, ends={p.name: p.threshold for p in points})
        if args.calibrate and not is_taught:
            raise ConfigError("--calibrate: these weights were not taught to ask again")
        names = args.condition or STRANGERS
        options = replace(
            self._options(is_taught=is_taught),
            conditions=tuple(self.conditions[name] for name in names),
            num_heard=0,
        )
        point = evaluate.run_doubt(starter, options, linears=self.linears, out=args.out)
        return replace(starter.judgement, doubt_below=point.threshold)
