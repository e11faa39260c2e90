"""How the code is measured, and the bars that the hard rooms have reached."""

from pathlib import Path

import pytest

from benchmarks.measures import Room, circles, has_shape, has_source, is_echo, measure, rooms_of

_ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# [B, T, K]", True),
        ("# [rows]", True),
        ("x: float32 [batch, samples], 24 kHz", True),
        ("# [...]", True),
        ("values: list[int]", False),
        ("see [the README]", False),
        ("uint8 [ceil(size / 64)], or [2 * dim, 4 S]", True),
        ('# ["a", "b"]', False),
        ("# nothing here", False),
    ],
)
def test_shapes_are_noted_in_brackets(text: str, *, expected: bool) -> None:
    """A note of a shape is a bracket of dimensions, not what a type is subscripted with."""
    assert has_shape(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Source: Realtime API reference, input_audio_buffer.commit", True),
        ("# RFC 8445, section 7.3.1", True),
        ("Dao et al. 2022", True),
        ("# as the source says", False),
    ],
)
def test_sources_are_named(text: str, *, expected: bool) -> None:
    """A source is a name to look up, not a word of praise."""
    assert has_source(text) is expected


@pytest.mark.parametrize(
    ("name", "owner", "docstring", "expected"),
    [
        ("close", "Session", "Close the session.", True),
        ("num_pages", "", "Num pages.", True),
        ("close", "Session", "Close the session and release its slot.", False),
        ("free_port", "", "Return a port that nobody listens on.", False),
    ],
)
def test_an_echo_says_nothing_but_the_name(
    name: str, owner: str, docstring: str, *, expected: bool
) -> None:
    """A docstring whose words are all in the name is an echo."""
    assert is_echo(name, owner, docstring) is expected


def test_a_file_is_counted(tmp_path: Path) -> None:
    """Comment lines, trailing comments and docstrings are told apart; directives do not count."""
    path = tmp_path / "one.py"
    path.write_text(
        '"""A module.\n\nSource: RFC 1.\n"""\n'
        "# ruff: noqa: ANN001\n"
        "# why\n"
        "x = 1  # [B, T]\n"
        "def f():\n"
        '    """F."""\n'
        "    return x\n"
    )
    room = Room()
    measure(path, room, "one.py")
    assert (room.files, room.lines, room.comment_lines, room.trailing) == (1, 10, 1, 1)
    assert (room.docstring_lines, room.shapes, room.trailing_shapes, room.sources) == (5, 1, 1, 1)
    assert room.echoes == ["one.py:9 f"]
    assert room.lengths == [(2, "one.py f")]


def test_packages_that_import_each_other_are_found(tmp_path: Path) -> None:
    """A pair is a circle only if there are imports both ways."""
    for name, text in (
        ("model/a/one.py", "from model.b import two\n"),
        ("model/b/two.py", "import model.a.one\nfrom model.c import three\n"),
        ("model/c/three.py", ""),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert circles(tmp_path) == ["model/a ↔ model/b 1/1"]


def test_the_code_keeps_the_bars() -> None:
    """No circles, no echoes; kernels and protocol say where what they do comes from."""
    rooms = rooms_of(_ROOT)
    assert circles(_ROOT) == []
    assert [echo for room in rooms.values() for echo in room.echoes] == []
    for name in ("kernels", "server/protocol"):
        room = rooms[name]
        assert room.comment_percent >= 5, name
        assert room.per_1000(room.sources) >= 4, name
    assert rooms["kernels"].per_1000(rooms["kernels"].trailing_shapes) >= 25
