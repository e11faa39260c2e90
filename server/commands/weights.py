"""`parley train`, `pull`, `check` and `quantize`: commands that make or prepare weights.

They read their own arguments, in packages of the model that take seconds to import.
"""

import argparse

from server.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands, whose arguments are read when they run."""
    train = commands.add_parser("train", add_help=False, help="train the starter anew")
    train.set_defaults(run=_train, has_own_parser=True)

    for command, what in (
        ("pull", "fetch a published checkpoint, such as Moshi"),
        ("check", "say what a checkpoint is, what is missing, and the memory that it takes"),
        ("quantize", "write a checkpoint with its linears in NF4, about a third of its size"),
    ):
        checkpoint = commands.add_parser(command, add_help=False, help=what)
        checkpoint.set_defaults(run=_checkpoint, has_own_parser=True, command=command)


def _train(args: argparse.Namespace) -> int:
    from model.training.cli import main as train  # noqa: PLC0415

    train(args.rest)
    return 0


def _checkpoint(args: argparse.Namespace) -> int:
    from model.kyutai.cli import COMMANDS  # noqa: PLC0415

    return COMMANDS[args.command](args.rest)
