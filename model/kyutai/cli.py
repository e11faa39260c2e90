"""`parley pull`, `parley check` and `parley quantize`: checkpoints of the Kyutai family."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from model.errors import ConfigError
from model.kyutai.catalogue import catalogue, entry
from model.kyutai.check import Checkpoint, check_directory
from model.kyutai.memory import SESSIONS, WEIGHTS, Memory
from model.kyutai.pull import pull
from model.kyutai.quantize import quantize_checkpoint
from model.kyutai.voices import VOICES_ARCHIVE, convert_voices

_FOLDER = Path("models")

_PULL = """\
Fetch a known checkpoint from the hub into a folder, as published.

One commit of each repository is fetched. Which one is written to parley-pull.json in the folder,
with size and sha256 of every file, and later pulls into that folder keep to it. A pull that broke
off goes on where it was. Voices of PersonaPlex are converted, without running what is in them.

The hub is asked as huggingface_hub is set up: HF_TOKEN, `hf auth login`, HF_ENDPOINT.
"""
_PULL_EXAMPLES = """\
examples:
  parley pull --list
      the checkpoints that are known, their licences and kinds
  parley pull moshiko
      Moshi into models/moshiko
  parley pull personaplex --dir /data/personaplex
      accept its licence on the hub first, and log in
"""
_CHECK = """\
Say what a folder with a checkpoint is: its family, its layout, its codec and text pieces, what is
missing or wrong, how many parameters it has, and what serving it takes in memory. Only headers are
read. The exit code is 1 if it cannot be served.

Memory is what is there before anything runs: weights, codec, and the state of the sessions.
"""
_CHECK_EXAMPLES = """\
examples:
  parley check models/moshiko
  parley check models/moshiko --sessions 16 --window 750
      16 sessions that remember a minute each
"""
_QUANTIZE = """\
Write a checkpoint whose linears are in NF4: four bits a weight and a scale for every 64. It is read
tensor by tensor, so a model much larger than memory can be converted, and it appears under its
name only when it is whole. The keys are those of bitsandbytes. What is looked up by row, the norms
and the text head stay as they are; codec, text pieces and voices are copied.
"""
_QUANTIZE_EXAMPLES = """\
examples:
  parley quantize models/moshiko models/moshiko-nf4
  parley check models/moshiko-nf4
"""

Main = Callable[[Sequence[str]], int]


def main_pull(argv: Sequence[str], out: TextIO | None = None) -> int:
    """Run `parley pull`; raises `ParleyError` for what the user can mend."""
    out = out or sys.stdout
    parser = _parser("pull", _PULL, _PULL_EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a known checkpoint, see --list")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where its files go (models/NAME)")
    parser.add_argument(
        "--revision",
        metavar="COMMIT",
        help="commit or branch of its repository, in place of the one that is pinned or was taken "
        "before",
    )
    parser.add_argument("--list", action="store_true", help="list the known checkpoints")
    args = parser.parse_args(argv)
    if args.list:
        _print_list(out)
        return 0
    if args.name is None:
        raise ConfigError("parley pull: expected the name of a checkpoint, or --list")
    known = entry(args.name)
    directory = args.dir or _FOLDER / known.name
    print(f"{known.name}: {known.about}; licence: {known.licence}", file=out)
    # Whatever was fetched, what counts is whether the folder can be served: the same check that
    # `parley check` makes has the last word, and decides the exit code.
    pull(known, directory, revision=args.revision, report=lambda line: print(f"  {line}", file=out))
    found = check_directory(directory)
    _print_problems(found, out)
    if not found.problems:
        print(f"{directory}: whole. `parley check {directory}` says what it takes", file=out)
    return 1 if found.problems else 0


def main_check(argv: Sequence[str], out: TextIO | None = None) -> int:
    """Run `parley check`; the exit code is 1 if the folder cannot be served."""
    out = out or sys.stdout
    parser = _parser("check", _CHECK, _CHECK_EXAMPLES)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument(
        "--sessions",
        type=_positive,
        metavar="N",
        help=f"sessions to work memory out for ({', '.join(map(str, SESSIONS))})",
    )
    parser.add_argument(
        "--window",
        type=_positive,
        metavar="W",
        help="steps of 80 ms that a session remembers (as many as the model was trained to)",
    )
    parser.add_argument(
        "--convert-voices",
        action="store_true",
        help=f"first convert {VOICES_ARCHIVE}, as a pull does",
    )
    args = parser.parse_args(argv)
    if args.convert_voices:
        names = convert_voices(args.directory)
        print(f"{len(names)} voices converted", file=out)
    found = check_directory(args.directory)
    # Without a configuration nothing is known of the model, and the problems below are all there is
    # to tell.
    if found.config is not None:
        _print_report(args.directory, found, out)
    if found.memory is not None:
        sessions = (args.sessions,) if args.sessions else SESSIONS
        _print_memory(found.memory, sessions, args.window, out)
    _print_problems(found, out)
    return 1 if found.problems else 0


def main_quantize(argv: Sequence[str], out: TextIO | None = None) -> int:
    """Run `parley quantize`; raises `ParleyError` for what the user can mend."""
    out = out or sys.stdout
    parser = _parser("quantize", _QUANTIZE, _QUANTIZE_EXAMPLES)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of a whole checkpoint")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write, not there yet")
    parser.add_argument(
        "--format", choices=["nf4"], default="nf4", help="how the linears are stored (nf4)"
    )
    args = parser.parse_args(argv)
    # A model of 7 billion parameters takes minutes: the bar shows the tensor that was written last,
    # and is left out where the output goes into a file.
    with tqdm(unit=" tensors", leave=False, disable=None) as bar:  # None: where nobody looks

        def progress(name: str, done: int, count: int) -> None:
            bar.total = count
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)

        quantize_checkpoint(args.source, args.target, progress)
    found = check_directory(args.target)
    _print_problems(found, out)
    print(f"{args.target}: {_folder_size(args.target)}, from {_folder_size(args.source)}", file=out)
    return 1 if found.problems else 0


COMMANDS: Mapping[str, Main] = {
    "pull": main_pull, "check": main_check, "quantize": main_quantize,
}  # fmt: skip


def _parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"parley {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _print_list(out: TextIO) -> None:
    width = max(map(len, catalogue()))
    for known in catalogue().values():
        gated = ", to be accepted on the hub first" if known.is_gated else ""
        print(f"{known.name:{width}}  {known.about}", file=out)
        print(f"{'':{width}}  {known.licence}{gated}; {known.sources[0].repo}", file=out)


def _print_report(directory: Path, found: Checkpoint, out: TextIO) -> None:
    config = found.config
    assert config is not None
    stack, files = config.backbone, found.files
    layout = found.layout or "none that is known"
    print(f"{directory}: {config.kind}, layout: {layout}", file=out)
    print(
        f"  {'parameters':12}{found.num_parameters / 1e9:.3f} billion, {stack.num_layers} layers "
        f"{stack.dim} wide, window {stack.context} steps",
        file=out,
    )
    used = f", {config.num_mimi_codebooks} of {found.mimi.num_codebooks} codebooks used"
    for what, name, more in (
        ("lm", "weights", ""),
        ("mimi", "codec", used),
        ("tokenizer", "text pieces", f", at most {config.text_card:,}"),
    ):
        print(f"  {name:12}{files[what].name + more if what in files else 'missing'}", file=out)
    if config.kind == "personaplex" and not found.voices:
        print(f"  {'voices':12}none: it speaks as it happens to", file=out)
    if found.voices:
        print(f"  {'voices':12}{', '.join(found.voices)}", file=out)


def _print_memory(memory: Memory, sessions: Sequence[int], window: int | None, out: TextIO) -> None:
    # A step is a frame of 80 ms, so 3,000 steps are four minutes.
    steps = window or memory.context
    print(
        f"memory in GB, keys and values of {steps} steps ({steps * 0.08:.0f} s) in 16 / 8 bits:",
        file=out,
    )
    heads = "".join(f"{f'{n} sessions':>18}" for n in sessions)
    print(f"  {'linears':8}{'weights':>10}{heads}", file=out)
    for kind in WEIGHTS:
        cells = "".join(
            f"{' / '.join(gigabytes(memory.total(kind, n, window, bits)) for bits in (16, 8)):>18}"
            for n in sessions
        )
        print(f"  {kind:8}{gigabytes(memory.weights[kind]):>10}{cells}", file=out)


def _print_problems(found: Checkpoint, out: TextIO) -> None:
    if found.problems:
        print("cannot be served:", file=out)
    for problem in found.problems:
        print(f"  {problem}", file=out)


def gigabytes(num_bytes: int) -> str:
    """Write a size in units of 10^9 bytes, to the first decimal."""
    return f"{num_bytes / 1e9:.1f}"


def _folder_size(directory: Path) -> str:
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return f"{size / 1e9:.2f} GB"
