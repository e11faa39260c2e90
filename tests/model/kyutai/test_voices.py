"""Voices are converted once, all or none, and then fit the model they are for."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model.errors import WeightsError
from model.kyutai.check import check_directory
from model.kyutai.config import KyutaiConfig
from model.kyutai.voices import convert_voices, load_voice, voice_files
from tests.fakes.pickles import Calls, saved

DIM, STREAMS, COLUMNS = 16, 17, 4


@pytest.fixture
def config(golden: Path) -> KyutaiConfig:
    """Return the small PersonaPlex's."""
    return KyutaiConfig.from_dict(json.loads((golden / "personaplex.json").read_text()))


def voice(steps: int = 4, **changes: object) -> dict[str, Any]:
    """Return a voice as NVIDIA's program saves it."""
    cache = torch.full((1, STREAMS, COLUMNS), -2)
    cache[:, :, :2] = 3
    embeddings = torch.randn(steps, 1, 1, DIM).bfloat16()
    return {"embeddings": embeddings, "cache": cache} | changes


def pack(directory: Path, members: dict[str, bytes]) -> None:
    """Write `voices.tgz`."""
    with tarfile.open(directory / "voices.tgz", "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_converted_voices_say_what_was_saved(tmp_path: Path, config: KyutaiConfig) -> None:
    """Without the axes of a batch of one; other files in the archive are left there."""
    first, second = voice(4), voice(6)
    pack(
        tmp_path,
        {
            "voices/NATF0.pt": saved(first), "voices/VARM4.pt": saved(second),
            "voices/a.wav": b"RIFF", "voices/._NATF0.pt": b"a Mac's", "../../outside.txt": b"no",
        },
    )  # fmt: skip
    assert convert_voices(tmp_path) == ["NATF0", "VARM4"]
    files = voice_files(tmp_path)
    assert list(files) == ["NATF0", "VARM4"]
    loaded = load_voice(files["VARM4"], config)
    assert torch.equal(loaded.embeddings, second["embeddings"][:, 0, 0].float())
    assert torch.equal(loaded.cache, second["cache"][0])
    assert {path.name for path in tmp_path.iterdir()} == {"voices", "voices.tgz"}


def test_names_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Only the last part of a member's name counts, and links are no files."""
    with tarfile.open(tmp_path / "voices.tgz", "w:gz") as tar:
        link = tarfile.TarInfo("voices/L.pt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        data = saved(voice())
        info = tarfile.TarInfo("../../../evil.pt")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert convert_voices(tmp_path) == ["evil"]
    assert list(voice_files(tmp_path)) == ["evil"]


@pytest.mark.parametrize(
    ("members", "match"),
    [
        (
            {"A.pt": saved(voice()), "B.pt": saved({"a": Calls(eval, "1")})},
            r"B.pt: refused: __builtin__.eval is no tensor",
        ),
        ({"A.pt": saved({"embeddings": torch.ones(1)})}, "expected embeddings and cache, got"),
        (
            {"A.pt": saved(voice(embeddings=torch.ones(4, 1, DIM)))},
            r"embeddings: expected \[N, 1, 1, dim\], got \[4, 1, 16\] in float32",
        ),
        (
            {"A.pt": saved(voice(cache=torch.ones(1, STREAMS, COLUMNS)))},
            r"cache: expected .*, got \[1, 17, 4\] in float32",
        ),
        ({"A.pt": saved(voice(cache=torch.ones(2, 3, 4).long()))}, r"got \[2, 3, 4\] in int64"),
        ({"A.wav": b"RIFF"}, "no voices in it"),
    ],
    ids=["call", "keys", "axes", "type", "batch", "none"],
)
def test_all_or_none(tmp_path: Path, members: dict[str, bytes], match: str) -> None:
    """What is wrong with one voice leaves no folder, and nothing beside it."""
    pack(tmp_path, members)
    with pytest.raises(WeightsError, match=match):
        convert_voices(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["voices.tgz"]


def test_archives_that_are_none(tmp_path: Path) -> None:
    """Missing, something else, cut short."""
    archive = tmp_path / "voices.tgz"
    with pytest.raises(WeightsError, match=r"voices.tgz: cannot be read \(.*No such file"):
        convert_voices(tmp_path)
    for data in (b"no", gzip.compress(b"no")):
        archive.write_bytes(data)
        with pytest.raises(WeightsError, match=r"voices.tgz: cannot be read"):
            convert_voices(tmp_path)
    pack(tmp_path, {"A.pt": saved(voice(200))})
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=r"voices.tgz: "):
        convert_voices(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"embeddings": torch.ones(4, 15)}, r"embeddings: expected \[4, 16\]"),
        ({"embeddings": torch.ones(16)}, r"embeddings: expected \[16, 16\]"),
        ({"cache": torch.ones(17, 5).long()}, r"cache: expected \[17, 4\] in I64"),
        ({"cache": torch.ones(17, 4)}, r"cache: .*got \[17, 4\] in F32"),
        ({"more": torch.ones(1)}, "more: not part of a voice"),
        ({"cache": torch.full((17, 4), 99)}, "expected text of -2 to 30, got 99 to 99"),
        ({"cache": torch.full((17, 4), -3)}, "expected text of -2 to 30, got -3"),
    ],
)
def test_a_voice_for_another_model(
    tmp_path: Path, config: KyutaiConfig, changes: dict[str, torch.Tensor], match: str
) -> None:
    """Is refused with what was got and expected."""
    sound = {"embeddings": torch.ones(4, DIM), "cache": torch.full((17, 4), -2)}
    save_file(sound | changes, tmp_path / "V.safetensors")
    with pytest.raises(WeightsError, match=match):
        load_voice(tmp_path / "V.safetensors", config)


def test_a_checkpoint_says_that_voices_wait(make_directory: Callable[..., Path]) -> None:
    """Until they are converted; then they are part of it, and checked with it."""
    directory = make_directory("personaplex")
    pack(directory, {"voices/NATF0.pt": saved(voice())})
    (problem,) = check_directory(directory).problems
    assert "voices.tgz: not converted" in problem
    convert_voices(directory)
    found = check_directory(directory)
    assert found.problems == ()
    assert list(found.voices) == ["NATF0"]
    save_file({"embeddings": torch.ones(4, DIM)}, found.voices["NATF0"])
    assert "cache: missing" in check_directory(directory).problems[0]
