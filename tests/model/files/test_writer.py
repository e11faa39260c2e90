"""A file written tensor by tensor is what safetensors would have written of them all."""

from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from model.files.writer import TensorWriter

SPECS: dict[str, tuple[str, tuple[int, ...]]] = {
    "a": ("F32", (2, 3)), "empty": ("BF16", (0, 4)), "b": ("BF16", (5,)), "scalar": ("U8", ()),
    "n": ("I64", (2,)),
}  # fmt: skip


def test_safetensors_reads_it(tmp_path: Path) -> None:
    """Whatever the order of writing; numbers are converted to the type that was announced."""
    path = tmp_path / "a.safetensors"
    given = {
        "n": torch.tensor([1, -2]), "b": torch.arange(5).float(), "scalar": torch.tensor(7),
        "a": torch.randn(3, 2).T, "empty": torch.empty(0, 4),
    }  # fmt: skip
    with TensorWriter(path, SPECS, {"who": "me"}) as writer:
        for name, tensor in given.items():
            writer.write(name, tensor)
    read = load_file(path)
    assert read.keys() == SPECS.keys()
    for name, tensor in given.items():
        assert torch.equal(read[name], tensor.to(read[name].dtype))
    assert read["b"].dtype == torch.bfloat16
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"who": "me"}


def test_nothing_may_be_left_out(tmp_path: Path) -> None:
    """A file with holes is no success; an error on the way is not hidden by that."""
    with (
        pytest.raises(AssertionError, match="not written: "),
        TensorWriter(tmp_path / "a", SPECS, {}),
    ):
        pass
    with pytest.raises(KeyError), TensorWriter(tmp_path / "a", SPECS, {}):
        raise KeyError
    with pytest.raises(AssertionError, match="a"), TensorWriter(tmp_path / "a", SPECS, {}) as w:
        w.write("a", torch.ones(3, 2))
