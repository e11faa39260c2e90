"""`parley key`: make an API key."""

import argparse
import json

from server.commands.common import Commands
from server.errors import ConfigError


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "key",
        help="make an API key, and the hash that the configuration has in its place",
        description="Make an API key. Prints it, and what to put into the configuration: its "
        "name and its SHA-256. Scopes and limits can be added there; see docs/deploy.md.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "name", metavar="NAME", help="of the key, in metrics: letters, digits, . _ -"
    )


def _run(args: argparse.Namespace) -> int:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from server.config.server import KeyName  # noqa: PLC0415
    from server.transport.api_keys import hashed, made_key  # noqa: PLC0415

    try:
        TypeAdapter(KeyName).validate_python(args.name)
    except ValidationError:
        message = f"{args.name!r}: a name has 1 to 64 letters, digits, '.', '_' or '-'"
        raise ConfigError(message) from None
    key = made_key()
    # The configuration holds the hash alone, so nobody who reads it can use the key.
    print(f"# The key, which is shown this once:\n#   {key}\n# For the configuration:")
    print(f"server:\n  keys:\n    - name: {json.dumps(args.name)}\n      sha256: {hashed(key)}")
    return 0
