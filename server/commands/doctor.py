"""`parley doctor`: say what is not right for a server here."""

import argparse

from server.commands.common import Commands, add_config

_HELP = """\
Look at what the configuration needs here: ports, certificate, keys, limits, clock, descriptors,
disk, weights with their hashes, memory, GPU, driver, C compiler and Triton. Nothing is changed, and
no server is started; a kernel is compiled and run where the model is for a GPU.

Each finding is ok, a warning, an error or skipped, and says how to mend what is not right. With
--json: {"parley": VERSION, "errors": N, "warnings": N, "findings": [{"check", "status", "found",
"mend"}]}. The exit code is 0 without errors, 1 with, and 2 if the configuration cannot be read.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what is not right for a server here, and how to mend it",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_config(parser)


def _run(args: argparse.Namespace) -> int:
    from server.config.load import load_settings  # noqa: PLC0415
    from server.doctor.command import run_doctor  # noqa: PLC0415

    return run_doctor(load_settings(args.config, args.set), args.config, is_json=args.json)
