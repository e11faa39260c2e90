"""Rows of a stream that overlap."""

import numpy as np
import pytest

from server.audio.rows import rows_of


def test_rows_overlap() -> None:
    """Each begins a step after the one before, and all lie in the same memory."""
    samples = np.arange(12, dtype=np.float32)
    rows = rows_of(samples, 1, 3, 3, 5)
    assert rows.tolist() == [[1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [7, 8, 9, 10, 11]]
    samples[4] = -1
    assert rows[0, 3] == rows[1, 0] == -1


def test_no_row_ends_after_the_samples() -> None:
    """Memory of others is never read."""
    samples = np.zeros(11, dtype=np.float64)
    assert rows_of(samples, 0, 2, 6, 5).shape == (2, 5)
    with pytest.raises(ValueError, match="strides"):
        rows_of(samples, 0, 2, 7, 5)
    with pytest.raises(ValueError, match=r"offset|buffer"):
        rows_of(samples, 12, 1, 1, 1)
