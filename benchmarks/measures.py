"""Measure how the code reads: its size, its tails, its comments, its circles, a reply's way.

The question is "what does a newcomer meet?". It is answered from the text of the sources and, for
the last table, by letting one spoken question be answered and noting every file that did something.

    python -m benchmarks.measures                  # this checkout
    python -m benchmarks.measures --root PATH      # another one, say of an older commit
    python -m benchmarks.measures --no-reply       # only what can be read off the text

What is counted:

- comment lines: lines that hold a comment and nothing else; directives to tools (noqa, mypy) do not
  count. Trailing comments and docstrings are counted apart.
- sources: comments and docstrings that say where something comes from, one for each line that does:
  "Source:", an RFC, a section, an equation, a paper, a page of the Realtime reference.
- shapes: notes such as [B, T, K] in comments and docstrings; trailing ones stand behind code.
- echoes: docstrings that say nothing but the name of what they describe.
- circles: pairs of packages that import each other.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tokenize
import wave
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("kernels", "model", "server", "benchmarks")
_QUESTION = _ROOT / "tests" / "assets" / "two_plus_two.wav"

_DIRECTIVE = re.compile(r"#\s*(noqa|ruff:|mypy:|type:|fmt:|!)")
# A pair of brackets without quotes in it: [B, T, K], and not ["a", "b"].
_SHAPE = re.compile(r"\[[^\[\]\"'`=]*\]")
# B, head_dim, 2 * dim, 4 S, ceil(size / 64), ...; no prose.
_DIMENSION = re.compile(r"\.\.\.|\*?(\d+ )?[\w.]+(\([^)]*\))?( ?[*+/-] ?[\w.()]+)*( each)?")
_SOURCE = re.compile(
    r"\bSource:|\bRFC ?\d|§|\b[Ss]ection \d|\b[Ee]quation \d|\bet al\.|\barXiv|https?://"
    r"|\bITU-T\b|\bRealtime (API|reference|guide)|\b(19|20)\d\d, [\"A-Z]"
)
# Words of a docstring that add nothing to a name.
_FILLERS = frozenset({"a", "an", "the", "of", "it", "its", "this", "that", "to", "is", "are", "in"})


@dataclass(slots=True)
class Room:
    """What was counted in one package, or in some of its files.

    Attributes:
        files: with at least one line.
        lines: all of them.
        comment_lines: with a comment only.
        trailing: comments behind code.
        docstring_lines: of docstrings.
        shapes: notes of shapes, anywhere.
        trailing_shapes: those of them behind code.
        sources: lines that say where something comes from.
        echoes: docstrings that repeat a name, as `path:line name`.
        lengths: lines of each function, docstring left out.
    """

    files: int = 0
    lines: int = 0
    comment_lines: int = 0
    trailing: int = 0
    docstring_lines: int = 0
    shapes: int = 0
    trailing_shapes: int = 0
    sources: int = 0
    echoes: list[str] = field(default_factory=list)
    lengths: list[tuple[int, str]] = field(default_factory=list)

    def per_1000(self, count: int) -> float:
        """Return a count for each 1,000 lines."""
        return 1000 * count / max(self.lines, 1)

    @property
    def comment_percent(self) -> float:
        """Comment lines, in percent of all lines."""
        return self.per_1000(self.comment_lines) / 10


def has_shape(text: str) -> bool:
    """Say whether a comment or a line of a docstring notes a shape, such as [B, T] or [rows]."""
    # What is subscripted, as in `list[int]`, has a letter before its bracket.
    for match in _SHAPE.finditer(text):
        before = text[match.start() - 1 : match.start()]
        is_subscript = before.isalnum() or before in ("_", "]", ")")
        parts = [part.strip() for part in match.group()[1:-1].split(",")]
        if any(parts) and not is_subscript and all(map(_DIMENSION.fullmatch, filter(None, parts))):
            return True
    return False


def has_source(text: str) -> bool:
    """Say whether a comment or a line of a docstring says where something comes from."""
    return _SOURCE.search(text) is not None


def is_echo(name: str, owner: str, docstring: str) -> bool:
    """Say whether a docstring holds no word that is not in the name, or in its class's name."""
    # For example, `def open_session` with "Open the session." says nothing that its name does not.
    said = {_stem(word) for word in re.findall(r"[a-z0-9]+", docstring.lower())} - _FILLERS
    return bool(said) and said <= {_stem(word) for word in _words(name) + _words(owner)}


def _words(name: str) -> list[str]:
    # For example, "HTTPServer_open" becomes "HTTP Server open".
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[a-z0-9]+", spaced.replace("_", " ").lower())


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.Constant]]:
    """Yield each node with a docstring, the class it stands in, and the docstring."""

    def visit(node: ast.AST, owner: str) -> Iterator[tuple[ast.AST, str, ast.Constant]]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body[:1]:
                case [ast.Expr(ast.Constant(str()) as docstring)]:
                    yield node, owner, docstring
        for child in ast.iter_child_nodes(node):
            yield from visit(child, node.name if isinstance(node, ast.ClassDef) else owner)

    yield from visit(tree, "")


def measure(path: Path, room: Room, shown: str) -> None:
    """Count a file into a room; `shown` is how the file is called where it is named."""
    text = path.read_text(encoding="utf-8")
    if not text:
        return
    tree, lines = ast.parse(text), text.splitlines()
    room.files += 1
    room.lines += len(lines)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        # Anything but spaces before it on its line.
        is_trailing = bool(token.line[: token.start[1]].strip())
        room.trailing += is_trailing
        room.comment_lines += not is_trailing
        room.shapes += has_shape(token.string)
        room.trailing_shapes += is_trailing and has_shape(token.string)
        room.sources += has_source(token.string)
    documented = {}
    for node, owner, docstring in _docstrings(tree):
        first, last = docstring.lineno, docstring.end_lineno or docstring.lineno
        documented[node] = last - first + 1
        room.docstring_lines += documented[node]
        room.shapes += sum(map(has_shape, lines[first - 1 : last]))
        room.sources += sum(map(has_source, lines[first - 1 : last]))
        name = getattr(node, "name", "")
        if name and is_echo(name, owner, str(docstring.value)):
            room.echoes.append(f"{shown}:{first} {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            room.lengths.append((length - documented.get(node, 0), f"{shown} {node.name}"))


def sources_of(root: Path) -> Iterator[Path]:
    """Yield the Python files of the packages, tests left out."""
    for package in _PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the package of a file by its first two names, `model/turns`; `model/*.py` on top."""
    return "/".join(path.parts[:2]) if len(path.parts) > 2 else f"{path.parts[0]}/*.py"


def circles(root: Path) -> list[str]:
    """Return the pairs of packages that import each other, each with its counts of imports.

    A module on top of a package, such as `server/cli.py`, is a room of its own here.
    """
    arrows: Counter[tuple[str, str]] = Counter()
    names = {path.relative_to(root).with_suffix("") for path in sources_of(root)}
    for path in sources_of(root):
        here = _place(path.relative_to(root).with_suffix(""))
        for name in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            target = Path(*name.split("."))
            if target in names or target / "__init__" in names:
                # Adds nothing within a package, but makes an entry; only pairs of different names
                # are told.
                arrows[here, _place(target)] += here != _place(target)
    pairs = [pair for pair in arrows if pair[::-1] in arrows and pair[0] < pair[1]]
    return [f"{a} ↔ {b} {arrows[a, b]}/{arrows[b, a]}" for a, b in sorted(pairs)]


def _place(module: Path) -> str:
    return "/".join(module.parts[:2])


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# Runs inside the server's process. The first signal begins the noting, the second one ends it.
_TRACED_SERVER = """
import json, os, runpy, signal, sys, threading
root, out, *sys.argv = sys.argv[1:]
seen, on = set(), False
def note(frame, event, _):
    if on and event == "call" and frame.f_code.co_name != "<module>":
        seen.add(frame.f_code.co_filename)
def begin(*_):
    global on
    on = True
def end(*_):
    global on
    on = False
    with open(out, "w") as file:
        json.dump(sorted(name for name in seen if name.startswith(root)), file)
signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, end)
threading.setprofile(note)
sys.setprofile(note)
# This checkout's packages are not the measured one's.
sys.path = [root, *(path for path in sys.path if not os.path.isdir(os.path.join(path, "server")))]
runpy.run_module("server.cli", run_name="__main__")
"""


def files_of_a_reply(root: Path, timeout_s: float = 120.0) -> list[Path]:
    """Return the files in which a function ran from a question's first sample to its reply's last.

    The starter answers a recorded question over a WebSocket. Gateway and engine share a process
    here, so that one list has both; loading, and opening and closing the session, are not in it.

    Raises:
        TimeoutError: if there is no reply in time.
    """
    with tempfile.TemporaryDirectory() as place:
        port, out = _free_port(), Path(place) / "files.json"
        settings = (f"server.port={port}", "engine.placement=thread", "engine.max_sessions=1")
        command = [sys.executable, "-c", _TRACED_SERVER, f"{root}/", str(out), "parley", "serve"]
        command += ["--config", "configs/starter.yaml"]
        command += [part for setting in settings for part in ("--set", setting)]
        with (Path(place) / "log.txt").open("w+") as log:
            server = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
            try:
                _hold_a_conversation(f"ws://127.0.0.1:{port}/v1/realtime", server, timeout_s)
                _wait_for(out.exists, timeout_s)
                time.sleep(0.2)  # until it is written as a whole
                found = json.loads(out.read_text())
            except (OSError, TimeoutError) as error:
                log.seek(0)
                raise TimeoutError(f"no reply: {error}\n{log.read()[-2000:]}") from error
            finally:
                server.kill()
                server.wait()
    return sorted(Path(name).relative_to(root) for name in found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _hold_a_conversation(url: str, server: subprocess.Popen[bytes], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            connection = connect(f"{url}?model=starter", open_timeout=timeout_s)
            break
        except (OSError, TimeoutError) as error:
            if time.monotonic() > until or server.poll() is not None:
                raise TimeoutError("the server did not start") from error
            time.sleep(0.2)
    with connection:
        _read_until(connection, "session.created", timeout_s)
        server.send_signal(signal.SIGUSR1)
        with wave.open(str(_QUESTION)) as question:
            # A second of silence after the question, so that voice detection ends the turn.
            audio = question.readframes(question.getnframes()) + bytes(2 * 24_000)
        frames = range(0, len(audio), 4_800)  # 100 ms of 24 kHz, 16 bits
        for start in frames:
            piece = b64encode(audio[start : start + 4_800]).decode()
            connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
        _read_until(connection, "response.done", timeout_s)
        # Before the connection is closed: what ends a session is no part of a reply.
        server.send_signal(signal.SIGUSR2)


def _read_until(connection: Any, kind: str, timeout_s: float) -> None:
    while json.loads(connection.recv(timeout=timeout_s))["type"] != kind:
        pass


def _wait_for(is_so: Any, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError("nothing was written")
        time.sleep(0.05)


def rooms_of(root: Path) -> dict[str, Room]:
    """Return what there is to count in each package."""
    rooms: dict[str, Room] = {}
    for path in sources_of(root):
        name = path.relative_to(root)
        key = name.parts[0] if name.parts[0] in ("kernels", "benchmarks") else room_of(name)
        measure(path, rooms.setdefault(key, Room()), str(name))
    return rooms


def total(rooms: Iterable[Room]) -> Room:
    """Add rooms up."""
    whole = Room()
    for room in rooms:
        for name, value in asdict(room).items():
            setattr(whole, name, getattr(whole, name) + value)
    return whole


def _row(name: str, room: Room) -> str:
    lengths = sorted(length for length, _ in room.lengths) or [0]
    middle, high = lengths[len(lengths) // 2], lengths[int(len(lengths) * 0.95)]
    return (
        f"{name:19} {room.files:5} {room.lines:7,} {room.comment_percent:6.1f} {room.trailing:6} "
        f"{room.docstring_lines:7,} {room.per_1000(room.shapes):7.1f} "
        f"{room.per_1000(room.trailing_shapes):8.1f} {room.per_1000(room.sources):8.1f} "
        f"{len(room.echoes):6}  {middle}/{high}/{lengths[-1]}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--root", type=Path, default=_ROOT, help="the checkout to measure")
    parser.add_argument("--no-reply", action="store_true", help="do not trace a reply")
    options = parser.parse_args()
    root = options.root.resolve()
    rooms = rooms_of(root)
    whole = total(rooms.values())

    print(
        "room                files   lines  cmt % trail. docstr. shapes/k trail./k sources/k "
        "echoes  function med/p95/max"
    )
    for name, room in rooms.items():
        print(_row(name, room))
    print(_row("all", whole))

    print("\nlongest functions (lines, docstring left out)")
    for length, name in sorted(whole.lengths, reverse=True)[:12]:
        print(f"{length:5}  {name}")
    lengths = [length for length, _ in whole.lengths]
    over = {limit: sum(length > limit for length in lengths) for limit in (40, 60)}
    print(f"over 40: {over[40]} of {len(lengths)}, over 60: {over[60]}")

    found = circles(root)
    print(f"\npairs of packages that import each other: {len(found)}")
    for pair in found:
        print(f"  {pair}")
    if whole.echoes:
        print("\ndocstrings that repeat a name")
        for echo in whole.echoes:
            print(f"  {echo}")

    result: dict[str, Any] = {
        "files": whole.files,
        "lines": whole.lines,
        "comment_percent": round(whole.comment_percent, 2),
        "shapes_kernels": round(rooms["kernels"].per_1000(rooms["kernels"].shapes), 1),
        "sources_kernels": round(rooms["kernels"].per_1000(rooms["kernels"].sources), 1),
        "circles": len(found),
        "echoes": len(whole.echoes),
        "functions_over_60": over[60],
    }
    if not options.no_reply:
        files = files_of_a_reply(root)
        num_lines = sum(len((root / path).read_text().splitlines()) for path in files)
        print(f"\nfiles of one spoken reply: {len(files)}, {num_lines:,} lines")
        for package, paths in _by_room(files):
            print(f"  {package:19} {', '.join(paths)}")
        result |= {"reply_files": len(files), "reply_lines": num_lines}
    print(json.dumps(result))


def _by_room(files: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
    rooms: dict[str, list[str]] = {}
    for path in files:
        rooms.setdefault(room_of(path), []).append(path.stem)
    yield from rooms.items()


if __name__ == "__main__":
    main()
