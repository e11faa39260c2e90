"""`parley eval`: score the starter."""

import argparse
from pathlib import Path

from server.commands.common import Commands, add_config
from server.errors import ConfigError
from server.names import ROOT


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "eval",
        help="score the starter",
        description="Hold conversations that training did not have, and score the replies, the "
        "transcripts and the words that a recogniser hears in the reply audio. Prints a table, "
        "then one JSON line.",
    )
    parser.set_defaults(run=_run)
    add_config(parser)
    parser.add_argument(
        "--dialogues", type=int, default=200, metavar="N", help="conversations a condition (200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides what is said and by whom (0)")
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, such as 'typed' or 'held-out voices, clean'; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also write every turn to this file, as JSON"
    )
    _add_measures(parser)
    _add_options(parser)


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """Add what is measured in place of the scores, one at a time."""
    measures = parser.add_mutually_exclusive_group()
    measures.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="also score another export of the same model, such as runs/starter/export-fp16, and "
        "compare: replies, transcripts, words heard in the audio, and each choice of piece or code",
    )
    measures.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="score the wav files of DIR instead, by its transcripts.tsv: a line "
        "'file.wav<TAB>what is said[<TAB>the right reply]' for each",
    )
    measures.add_argument(
        "--codec",
        action="store_true",
        help="score the audio tokenizer alone: words heard before and after it, on N replies",
    )
    measures.add_argument(
        "--ends",
        action="store_true",
        help="measure how soon N turns with pauses inside are taken for over, and how often too "
        "soon",
    )
    measures.add_argument(
        "--doubt",
        action="store_true",
        help="find below which confidence the model had better ask again, with the voices that it "
        "never heard, or those of --condition",
    )
    measures.add_argument(
        "--forms",
        action="store_true",
        help="compare replies with the linears in full precision and as they are served, and with "
        "keys and values in 8 bits",
    )
    measures.add_argument(
        "--voices",
        action="store_true",
        help="say how far apart the assistant's voices are, by N replies of each",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add what goes with one of the measures only."""
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="DIR",
        help="with --voices: write a reply of each voice to DIR, as NAME.wav",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="with --ends or --doubt: write the thresholds into the weights' config.json, where "
        "the server reads them; take another --seed than for scores",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="with --codec: draw its spectrograms"
    )


def _run(args: argparse.Namespace) -> int:
    from model.training.evaluation.conditions import CONDITIONS  # noqa: PLC0415
    from server.config.load import load_settings  # noqa: PLC0415

    settings = load_settings(args.config, args.set).each_model[0]
    directory = ROOT / settings.model.dir
    conditions = {condition.name: condition for condition in CONDITIONS}
    if unknown := set(args.condition) - set(conditions):
        raise ConfigError(f"no condition {unknown.pop()!r}: there are {', '.join(conditions)}")

    from model.training.evaluation.command import Command  # noqa: PLC0415

    Command(args, directory, settings.engine.linears, conditions).run()
    return 0
