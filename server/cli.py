"""The `parley` command.

Each subcommand is a file of `server/commands`, with its arguments and what it runs. Heavy things
are imported when it runs: `parley --help` answers at once, and the check for import names runs
before anything of another distribution could be loaded.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from server.commands import (
    capacity,
    doctor,
    evaluation,
    key,
    replay,
    serve,
    talk,
    usage,
    weights,
)
from server.commands.common import (
    EXIT_CONFIG,
    EXIT_ENGINE_GONE,
    EXIT_INTERRUPTED,
    EXIT_RUNTIME,
)
from server.errors import ConfigError, EngineGoneError, ParleyError
from server.names import check_names, parley_version

# In the order of `parley --help`.
_COMMANDS = (serve, talk, capacity, key, replay, doctor, usage, weights, evaluation)

_EXAMPLES = """\
examples:
  parley serve --config configs/starter.yaml
      serve the starter on 127.0.0.1:8000; any Realtime client can connect
  parley serve --config configs/starter.yaml --set server.port=9000
  parley serve --config configs/starter.yaml --check
      only say whether the configuration is good
  parley talk question.wav
      start a server, ask it, print and keep the answer, stop the server
  parley talk first.wav second.wav --url ws://127.0.0.1:8000 --json
      two turns of one conversation with a server that runs already
  parley capacity
      measure how many conversations this machine holds, and keep it for the server
  parley replay runs/recordings/NAME
      do a recorded conversation again, and say whether every token is the same
  parley doctor --config configs/starter.yaml
      say what is not right for it on this machine, and how to mend it
  parley eval --dialogues 50
      score the starter on conversations that it has not seen
  parley pull moshiko
      fetch Moshi, 15 GB; parley check and parley quantize are for what was fetched
  parley train --help
      make the starter's data and train it anew

  parley serve --tls-self-signed
      serve it as wss://, with a certificate of its own, for clients that dial nothing else

exit codes: 0 all well, 1 it failed while running, 2 the command line or the configuration is wrong,
3 the model's process died too often and the server ended with it, for a supervisor to start it anew
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    # Wherever it stands, also behind the arguments of a command.
    is_debug = "--debug" in words
    args, rest = parser.parse_known_args([word for word in words if word != "--debug"])
    if rest and not args.has_own_parser:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        check_names()
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ParleyError as error:
        if is_debug:
            traceback.print_exc()
        print(f"parley: {error}", file=sys.stderr)
        match error:
            case ConfigError():
                return EXIT_CONFIG
            case EngineGoneError():
                return EXIT_ENGINE_GONE
            case _:
                return EXIT_RUNTIME
    except Exception as error:  # noqa: BLE001
        # The outermost edge: what nobody foresaw is one line too, its origin shown on request.
        # A person at a terminal is told what to do. A traceback tells where we were, which is not
        # the same.
        if is_debug:
            traceback.print_exc()
        kind = type(error).__name__
        print(f"parley: unexpected {kind}: {error} (--debug shows where)", file=sys.stderr)
        return EXIT_RUNTIME


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley",
        description="Speech in, one network, speech out: a voice model behind a Realtime API.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"parley {parley_version()}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(has_own_parser=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


def run() -> NoReturn:
    """Run the command as a program."""
    sys.exit(main())


if __name__ == "__main__":
    run()
