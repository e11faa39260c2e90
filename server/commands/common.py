"""What several commands share: exit codes, `--config` and `--set`, numbers."""

import argparse
from pathlib import Path
from typing import TypeAlias

from server.names import ROOT

# Told apart for whoever supervises: after 2 a restart changes nothing, after 3 it does.
EXIT_RUNTIME = 1
EXIT_CONFIG = 2  # what argparse uses for a wrong command line as well
EXIT_ENGINE_GONE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

# A command is a file with two functions. `add` gives the parser its name, its help and its
# arguments, and names `_run` as what runs. `_run` imports what the command needs, does it, and
# returns the exit code. For example, `parley key web` parses to Namespace(run=_run, name="web").
#
# argparse has no public name for what `add_subparsers` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001
"""Where a command is added."""

_DEFAULT_CONFIG = ROOT / "configs" / "starter.yaml"


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which settings a command works with."""
    parser.add_argument(
        "--config",
        type=Path,
        default=_DEFAULT_CONFIG,
        metavar="FILE",
        help="YAML file with the settings (default: configs/starter.yaml)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="change one setting of the file; may be given several times",
    )


def positive(text: str) -> int:
    """Read a whole number from 1.

    Raises:
        ArgumentTypeError: it is less.
        ValueError: it is none.
    """
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected a number from 1")
    return number
