"""`parley usage`: add up what was used."""

import argparse
from pathlib import Path

from server.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "usage",
        help="add up what was used, by API key and model",
        description="Add up files that the setting usage.ledger made, those that were put aside "
        "included. Prints a table, then one JSON line. Also while a server writes them.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="such as usage*.jsonl")
    parser.add_argument(
        "--by",
        type=_columns,
        default=("key", "model"),
        metavar="A,B",
        help="what is told apart: key, model, day (of UTC), session (key,model)",
    )


def _run(args: argparse.Namespace) -> int:
    from server.usage import print_usage  # noqa: PLC0415

    print_usage(args.files, args.by)
    return 0


def _columns(text: str) -> tuple[str, ...]:
    from server.usage import COLUMNS  # noqa: PLC0415

    columns = tuple(text.split(","))
    if unknown := set(columns) - set(COLUMNS):
        raise argparse.ArgumentTypeError(f"there is no {min(unknown)!r}, only {', '.join(COLUMNS)}")
    return columns
