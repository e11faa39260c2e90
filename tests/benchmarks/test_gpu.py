"""`make bench-gpu` is never green without a GPU."""

import pytest
import torch

from benchmarks.gpu import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, and the exit code shows it."""
    assert main() == 1
    assert "no CUDA device" in capsys.readouterr().err
