"""What the commands for checkpoints print, and the codes they exit with."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.errors import ConfigError
from model.kyutai.catalogue import catalogue
from model.kyutai.cli import main_check, main_pull, main_quantize
from tests.fakes.pickles import saved

MakeDirectory = Callable[..., Path]


def run(main: Callable[..., int], *argv: object) -> tuple[int, str]:
    """Run a command and return its exit code and what it printed."""
    out = io.StringIO()
    return main([str(arg) for arg in argv], out), out.getvalue()


def test_a_sound_folder(make_directory: MakeDirectory) -> None:
    """Its family, layout and files, and memory for as many sessions as are usual."""
    code, text = run(main_check, make_directory())
    assert code == 0
    first, *_ = text.splitlines()
    assert first.endswith("moshi: moshi, layout: kyutai")
    for part in ("model.safetensors", "tokenizer-1.safetensors", "tokenizer_spm.model"):
        assert part in text
    assert "8 sessions" in text
    assert "64 sessions" in text
    assert "cannot" not in text


def test_numbers_that_are_asked_for(make_directory: MakeDirectory) -> None:
    """Sessions and a window of one's own; not less than one."""
    _, text = run(main_check, make_directory(), "--sessions", 5, "--window", 100)
    assert "keys and values of 100 steps (8 s)" in text
    assert "5 sessions" in text
    assert "64 sessions" not in text
    with pytest.raises(SystemExit):
        run(main_check, ".", "--sessions", 0)


def test_what_is_wrong_is_listed(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """A sentence each, and the exit code says so, too."""
    directory = make_directory()
    (directory / "tokenizer_spm.model").unlink()
    code, text = run(main_check, directory)
    assert code == 1
    assert "text pieces missing" in text
    assert "cannot be served:\n" in text
    code, text = run(main_check, tmp_path / "none")
    assert (code, text) == (1, f"cannot be served:\n  {tmp_path / 'none'}: not a directory\n")
    code, text = run(main_check, Path("model/starter"))
    assert code == 1
    assert "a starter, which configs/starter.yaml serves" in text


def test_a_model_that_nothing_serves(make_directory: MakeDirectory) -> None:
    """It is read and described all the same."""
    code, text = run(main_check, make_directory("stt"))
    assert code == 1
    assert "a model of the kind 'stt' can be loaded, but nothing here serves one" in text


def test_voices_can_be_converted_by_themselves(make_directory: MakeDirectory) -> None:
    """For a folder that was filled by hand."""
    directory = make_directory("personaplex")
    data = saved(
        {
            "embeddings": torch.ones(3, 1, 1, 16),
            "cache": torch.zeros((1, 17, 4), dtype=torch.int64),
        }
    )
    with tarfile.open(directory / "voices.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("voices/NATF0.pt")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert run(main_check, directory)[0] == 1
    code, text = run(main_check, directory, "--convert-voices")
    assert code == 0
    assert "1 voices converted" in text
    assert "voices      NATF0\n" in text
    (directory / "voices/NATF0.safetensors").write_bytes(b"")
    code, text = run(main_check, directory)
    assert code == 1
    assert "NATF0.safetensors: not a safetensors file" in text


def test_quantising(make_directory: MakeDirectory, tmp_path: Path) -> None:
    """Says what came out, which then can be checked like any other."""
    source, target = make_directory(), tmp_path / "nf4"
    code, text = run(main_quantize, source, target)
    assert code == 0
    assert text.startswith(f"{target}: ")
    code, text = run(main_check, target)
    assert code == 0
    assert "layout: nf4" in text
    assert "model.nf4.safetensors" in text


def test_known_checkpoints_are_listed() -> None:
    """With licences; those that must be accepted first are marked."""
    code, text = run(main_pull, "--list")
    assert code == 0
    for known in catalogue().values():
        assert known.name in text
        assert known.licence in text
    assert text.count("to be accepted on the hub first") == 1


def test_a_pull_needs_a_name_that_is_known() -> None:
    """Anything else is refused before the hub is asked."""
    with pytest.raises(ConfigError, match="expected the name of a checkpoint, or --list"):
        run(main_pull)
    with pytest.raises(ConfigError, match="did you mean moshika"):
        run(main_pull, "moshica")
