"""`parley talk`: play sound files to a server, and keep its answers."""

import argparse
from pathlib import Path

from server.commands.common import Commands, add_config

_HELP = """\
Play sound files (wav of any kind, flac, mp3, ogg) to a server in real time and print what it
understood and replied. Several files are several turns of one conversation; the next one starts
when the last reply has been heard out. The replies are kept as wav files (24 kHz).

With --json, one line a file:
  file            the file that was played
  transcript      what the server understood
  reply           the words of the reply
  reply_wav       where its audio is
  first_audio_ms  from the server's end-of-turn decision to the reply's first audio, both as seen
                  by this client; null for a reply without audio
  speech_end_ms   where in the file the server placed the end of the turn, the silence that it
                  waited for included
  audio_ms        length of the reply's audio
  truncated       with --truncate-ms: the reply's item_id, its audio_end_ms, and the words heard,
                  which are all that the model remembers; null for a reply heard to its end
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "talk",
        help="play sound files to a server and keep its answers",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="wav, flac, mp3, ogg, …"
    )
    parser.add_argument(
        "--url", help="a server that runs already, such as ws://127.0.0.1:8000; else one is started"
    )
    parser.add_argument("--voice", help="who replies; the server's default otherwise")
    parser.add_argument("--key", help="API key, for a server that wants one")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("replies"),
        metavar="DIR",
        help="where the replies' wav files go (default: replies)",
    )
    parser.add_argument(
        "--truncate-ms",
        type=_milliseconds,
        metavar="N",
        help="cut each reply short, as if it had been interrupted when N ms of it had been heard",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line a file")
    add_config(parser)


def _run(args: argparse.Namespace) -> int:
    from server.client.talk import TalkOptions, talk  # noqa: PLC0415

    talk(
        TalkOptions(
            files=tuple(args.files),
            out=args.out,
            is_json=args.json,
            url=args.url,
            voice=args.voice,
            key=args.key,
            truncate_ms=args.truncate_ms,
            config=args.config,
            overrides=tuple(args.set),
        )
    )
    return 0


def _milliseconds(text: str) -> int:
    if (milliseconds := int(text)) < 0:
        raise argparse.ArgumentTypeError("a time in milliseconds is not negative")
    return milliseconds
