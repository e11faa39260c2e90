"""`parley capacity`: measure how many conversations this machine holds."""

import argparse

from server.commands.common import EXIT_RUNTIME, Commands, add_config, positive
from server.errors import ConfigError

_HELP = """\
Let more and more callers talk to the engine in real time, and find the largest number at which

  - the 99th percentile of a tick's duration stays under a frame (80 ms),
  - no more than 1 % of the frames are missed: replies that run dry, users heard too late,
  - the first audio of a reply takes no more than 500 ms, and no more than 1.5 times as long as with
    one caller (95th percentiles; less a tenth, since a few minutes must speak for days),

at that number and at every smaller one that was tried. The numbers are doubled until one is too
many, then the gap is halved down to a quarter of the answer. Each is tried three to six times, one
caller alone beside it every time; with the defaults that takes some ten minutes. The callers speak
three bundled sentences, hear the replies out, think for a moment and go on; they begin one by one.
The engine is the configured one; the gateway, which has a core of its own to run on, is left out.

The answer goes into server.capacity_file. `parley serve` admits that many sessions, unless
engine.max_sessions is set. It is believed only for the same model, configuration and machine, so
run this again when one of them changes, and on a machine that does nothing else meanwhile.

Prints a line for each number tried, then one JSON line.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "capacity",
        help="measure how many conversations this machine holds",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--seconds",
        type=positive,
        default=15,
        metavar="S",
        help="how long each number of sessions is watched every time (15)",
    )
    parser.add_argument(
        "--most", type=positive, default=256, metavar="N", help="most sessions to try (256)"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="only this one of the models; all are measured otherwise"
    )
    add_config(parser)


def _run(args: argparse.Namespace) -> int:
    from server.capacity.command import run_capacity  # noqa: PLC0415
    from server.config.load import load_settings  # noqa: PLC0415

    settings = load_settings(args.config, args.set)
    # One after the other, each as if it had the machine to itself.
    safe = [
        run_capacity(alone, seconds=args.seconds, max_sessions=args.most)
        for alone in settings.each_model
        if not args.model or alone.model.name == args.model
    ]
    if not safe:
        known = ", ".join(each.model.name for each in settings.each_model)
        raise ConfigError(f"--model {args.model}: there is no such model, only {known}")
    return 0 if all(safe) else EXIT_RUNTIME
