"""`parley serve`: serve models until interrupted, or only check the settings."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.common import Commands, add_config
from server.errors import ConfigError
from server.names import ROOT

if TYPE_CHECKING:
    from server.config.settings import Settings

_TLS_DIR = Path("runs") / "tls"


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve a model over the Realtime API",
        description="Serve a model over the Realtime API until interrupted.",
    )
    parser.set_defaults(run=_run)
    add_config(parser)
    parser.add_argument(
        "--tls-self-signed",
        action="store_true",
        help="speak wss and https with a certificate that is made for trying it, and kept in "
        f"{_TLS_DIR}",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only check the configuration, its script included, then exit",
    )


def _run(args: argparse.Namespace) -> int:
    from server.config.load import load_settings  # noqa: PLC0415

    settings = load_settings(args.config, args.set)
    if args.tls_self_signed:
        settings = _with_own_certificate(settings)
    if args.check:
        for each in settings.each_model:
            if each.model.script is not None:
                from model.scripted.script import load_script  # noqa: PLC0415

                load_script(ROOT / each.model.script)
        print(f"{args.config}: ok")
        return 0

    from server.serve import serve  # noqa: PLC0415

    serve(settings)
    return 0


def _with_own_certificate(settings: "Settings") -> "Settings":
    """Return the settings with a certificate that is made here."""
    from server.transport.certificate import self_signed  # noqa: PLC0415

    if settings.server.tls_certificate is not None:
        raise ConfigError("--tls-self-signed: server.tls_certificate is set already")
    certificate, key = self_signed(ROOT / _TLS_DIR, settings.server.host)
    # To the error stream: what reads the output of the command gets nothing in between.
    print(f"trust this certificate in the client: {certificate}", file=sys.stderr)
    server = settings.server.model_copy(update={"tls_certificate": certificate, "tls_key": key})
    return settings.model_copy(update={"server": server})
