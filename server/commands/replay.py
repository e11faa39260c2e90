"""`parley replay`: do a recording again."""

import argparse
from pathlib import Path

from server.commands.common import EXIT_RUNTIME, Commands, add_config


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "replay",
        help="do a recording again, and say whether every token is the same",
        description="Feed an engine what a recording says that it was told, step by step, and "
        "compare what comes out. Exits with 0 if every token is the same, else with 1; the first "
        "difference is named by its turn.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "recording", type=Path, metavar="RECORDING", help="its folder, or its engine.log"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    add_config(parser)


def _run(args: argparse.Namespace) -> int:
    from server.config.load import load_settings  # noqa: PLC0415
    from server.replay import print_report, replay  # noqa: PLC0415

    report = replay(args.recording, load_settings(args.config, args.set))
    print_report(report, is_json=args.json)
    return 0 if report.is_same else EXIT_RUNTIME
