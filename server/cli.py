"""The `parley` command.

Heavy things are imported by the subcommand that needs them: `parley --help` answers at once, and
the check for import names runs before anything of another distribution could be loaded.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from server.errors import ConfigError, EngineGoneError, ParleyError
from server.names import ROOT, check_names, parley_version

if TYPE_CHECKING:
    from server.config import Settings

# Told apart for whoever supervises: after 2 a restart changes nothing, after 3 it does.
EXIT_RUNTIME = 1
EXIT_CONFIG = 2  # what argparse uses for a wrong command line as well
EXIT_ENGINE_GONE = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

_DEFAULT_CONFIG = ROOT / "configs" / "starter.yaml"

_TLS_DIR = Path("runs") / "tls"

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

_TALK_HELP = """\
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


_CAPACITY_HELP = """\
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

_DOCTOR_HELP = """\
Look at what the configuration needs here: ports, certificate, keys, limits, clock, descriptors,
disk, weights with their hashes, memory, GPU, driver, C compiler and Triton. Nothing is changed, and
no server is started; a kernel is compiled and run where the model is for a GPU.

Each finding is ok, a warning, an error or skipped, and says how to mend what is not right. With
--json: {"parley": VERSION, "errors": N, "warnings": N, "findings": [{"check", "status", "found",
"mend"}]}. The exit code is 0 without errors, 1 with, and 2 if the configuration cannot be read.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    # Wherever it stands, also behind the arguments of a command.
    is_debug = "--debug" in words
    # Training and checkpoints have parsers of their own, in packages that take seconds to import.
    args, rest = parser.parse_known_args([word for word in words if word != "--debug"])
    if rest and args.run not in (_train, _checkpoint):
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


def _serve(args: argparse.Namespace) -> int:
    from server.config import load_settings  # noqa: PLC0415

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

    from server.app import serve  # noqa: PLC0415

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


def _talk(args: argparse.Namespace) -> int:
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


def _capacity(args: argparse.Namespace) -> int:
    from server.capacity.command import run_capacity  # noqa: PLC0415
    from server.config import load_settings  # noqa: PLC0415

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


def _key(args: argparse.Namespace) -> int:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from server.config import KeyName  # noqa: PLC0415
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


def _replay(args: argparse.Namespace) -> int:
    from server.config import load_settings  # noqa: PLC0415
    from server.replay import print_report, replay  # noqa: PLC0415

    report = replay(args.recording, load_settings(args.config, args.set))
    print_report(report, is_json=args.json)
    return 0 if report.is_same else EXIT_RUNTIME


def _doctor(args: argparse.Namespace) -> int:
    from server.config import load_settings  # noqa: PLC0415
    from server.doctor.command import run_doctor  # noqa: PLC0415

    return run_doctor(load_settings(args.config, args.set), args.config, is_json=args.json)


def _usage(args: argparse.Namespace) -> int:
    from server.usage import print_usage  # noqa: PLC0415

    print_usage(args.files, args.by)
    return 0


def _train(args: argparse.Namespace) -> int:
    from model.training.cli import main as train  # noqa: PLC0415

    train(args.rest)
    return 0


def _checkpoint(args: argparse.Namespace) -> int:
    from model.kyutai.cli import COMMANDS  # noqa: PLC0415

    return COMMANDS[args.command](args.rest)


def _eval(args: argparse.Namespace) -> int:
    from model.training.evaluation.conditions import CONDITIONS  # noqa: PLC0415
    from server.config import load_settings  # noqa: PLC0415

    settings = load_settings(args.config, args.set).each_model[0]
    directory = ROOT / settings.model.dir
    conditions = {condition.name: condition for condition in CONDITIONS}
    if unknown := set(args.condition) - set(conditions):
        raise ConfigError(f"no condition {unknown.pop()!r}: there are {', '.join(conditions)}")

    from model.training.evaluation.command import Command  # noqa: PLC0415

    Command(args, directory, settings.engine.linears, conditions).run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley",
        description="Speech in, one network, speech out: a voice model behind a Realtime API.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"parley {parley_version()}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="serve a model over the Realtime API",
        description="Serve a model over the Realtime API until interrupted.",
    )
    serve.set_defaults(run=_serve)
    _add_config(serve)
    serve.add_argument(
        "--tls-self-signed",
        action="store_true",
        help="speak wss and https with a certificate that is made for trying it, and kept in "
        f"{_TLS_DIR}",
    )
    serve.add_argument(
        "--check",
        action="store_true",
        help="only check the configuration, its script included, then exit",
    )

    talk = commands.add_parser(
        "talk",
        help="play sound files to a server and keep its answers",
        description=_TALK_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    talk.set_defaults(run=_talk)
    talk.add_argument("files", nargs="+", type=Path, metavar="FILE", help="wav, flac, mp3, ogg, …")
    talk.add_argument(
        "--url", help="a server that runs already, such as ws://127.0.0.1:8000; else one is started"
    )
    talk.add_argument("--voice", help="who replies; the server's default otherwise")
    talk.add_argument("--key", help="API key, for a server that wants one")
    talk.add_argument(
        "--out",
        type=Path,
        default=Path("replies"),
        metavar="DIR",
        help="where the replies' wav files go (default: replies)",
    )
    talk.add_argument(
        "--truncate-ms",
        type=_milliseconds,
        metavar="N",
        help="cut each reply short, as if it had been interrupted when N ms of it had been heard",
    )
    talk.add_argument("--json", action="store_true", help="print one JSON line a file")
    _add_config(talk)

    capacity = commands.add_parser(
        "capacity",
        help="measure how many conversations this machine holds",
        description=_CAPACITY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    capacity.set_defaults(run=_capacity)
    capacity.add_argument(
        "--seconds",
        type=_positive,
        default=15,
        metavar="S",
        help="how long each number of sessions is watched every time (15)",
    )
    capacity.add_argument(
        "--most", type=_positive, default=256, metavar="N", help="most sessions to try (256)"
    )
    capacity.add_argument(
        "--model", metavar="NAME", help="only this one of the models; all are measured otherwise"
    )
    _add_config(capacity)

    key = commands.add_parser(
        "key",
        help="make an API key, and the hash that the configuration has in its place",
        description="Make an API key. Prints it, and what to put into the configuration: its "
        "name and its SHA-256. Scopes and limits can be added there; see docs/deploy.md.",
    )
    key.set_defaults(run=_key)
    key.add_argument("name", metavar="NAME", help="of the key, in metrics: letters, digits, . _ -")

    _add_replay(commands)

    doctor = commands.add_parser(
        "doctor",
        help="say what is not right for a server here, and how to mend it",
        description=_DOCTOR_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    _add_config(doctor)

    usage = commands.add_parser(
        "usage",
        help="add up what was used, by API key and model",
        description="Add up files that the setting usage.ledger made, those that were put aside "
        "included. Prints a table, then one JSON line. Also while a server writes them.",
    )
    usage.set_defaults(run=_usage)
    usage.add_argument("files", nargs="+", type=Path, metavar="FILE", help="such as usage*.jsonl")
    usage.add_argument(
        "--by",
        type=_columns,
        default=("key", "model"),
        metavar="A,B",
        help="what is told apart: key, model, day (of UTC), session (key,model)",
    )

    train = commands.add_parser("train", add_help=False, help="train the starter anew")
    train.set_defaults(run=_train)

    for command, what in (
        ("pull", "fetch a published checkpoint, such as Moshi"),
        ("check", "say what a checkpoint is, what is missing, and the memory that it takes"),
        ("quantize", "write a checkpoint with its linears in NF4, about a third of its size"),
    ):
        # Their own parsers have the rest.
        checkpoint = commands.add_parser(command, add_help=False, help=what)
        checkpoint.set_defaults(run=_checkpoint, command=command)

    score = commands.add_parser(
        "eval",
        help="score the starter",
        description="Hold conversations that training did not have, and score the replies, the "
        "transcripts and the words that a recogniser hears in the reply audio. Prints a table, "
        "then one JSON line.",
    )
    score.set_defaults(run=_eval)
    _add_config(score)
    score.add_argument(
        "--dialogues", type=int, default=200, metavar="N", help="conversations a condition (200)"
    )
    score.add_argument("--seed", type=int, default=0, help="decides what is said and by whom (0)")
    score.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, such as 'typed' or 'held-out voices, clean'; may be repeated",
    )
    score.add_argument(
        "--out", type=Path, metavar="FILE", help="also write every turn to this file, as JSON"
    )
    other = score.add_mutually_exclusive_group()
    other.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="also score another export of the same model, such as runs/starter/export-fp16, and "
        "compare: replies, transcripts, words heard in the audio, and each choice of piece or code",
    )
    other.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="score the wav files of DIR instead, by its transcripts.tsv: a line "
        "'file.wav<TAB>what is said[<TAB>the right reply]' for each",
    )
    other.add_argument(
        "--codec",
        action="store_true",
        help="score the audio tokenizer alone: words heard before and after it, on N replies",
    )
    other.add_argument(
        "--ends",
        action="store_true",
        help="measure how soon N turns with pauses inside are taken for over, and how often too "
        "soon",
    )
    other.add_argument(
        "--doubt",
        action="store_true",
        help="find below which confidence the model had better ask again, with the voices that it "
        "never heard, or those of --condition",
    )
    other.add_argument(
        "--forms",
        action="store_true",
        help="compare replies with the linears in full precision and as they are served, and with "
        "keys and values in 8 bits",
    )
    other.add_argument(
        "--voices",
        action="store_true",
        help="say how far apart the assistant's voices are, by N replies of each",
    )
    score.add_argument(
        "--samples",
        type=Path,
        metavar="DIR",
        help="with --voices: write a reply of each voice to DIR, as NAME.wav",
    )
    score.add_argument(
        "--calibrate",
        action="store_true",
        help="with --ends or --doubt: write the thresholds into the weights' config.json, where "
        "the server reads them; take another --seed than for scores",
    )
    score.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="with --codec: draw its spectrograms"
    )
    return parser


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command that does a recording again."""
    again = commands.add_parser(
        "replay",
        help="do a recording again, and say whether every token is the same",
        description="Feed an engine what a recording says that it was told, step by step, and "
        "compare what comes out. Exits with 0 if every token is the same, else with 1; the first "
        "difference is named by its turn.",
    )
    again.set_defaults(run=_replay)
    again.add_argument(
        "recording", type=Path, metavar="RECORDING", help="its folder, or its engine.log"
    )
    again.add_argument("--json", action="store_true", help="print one JSON line")
    _add_config(again)


def _milliseconds(text: str) -> int:
    if (milliseconds := int(text)) < 0:
        raise argparse.ArgumentTypeError("a time in milliseconds is not negative")
    return milliseconds


def _columns(text: str) -> tuple[str, ...]:
    from server.usage import COLUMNS  # noqa: PLC0415

    columns = tuple(text.split(","))
    if unknown := set(columns) - set(COLUMNS):
        raise argparse.ArgumentTypeError(f"there is no {min(unknown)!r}, only {', '.join(COLUMNS)}")
    return columns


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected a number from 1")
    return number


def _add_config(parser: argparse.ArgumentParser) -> None:
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


def run() -> NoReturn:
    """Run the command as a program."""
    sys.exit(main())


if __name__ == "__main__":
    run()
