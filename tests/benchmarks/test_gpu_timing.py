"""How many copies of its data a timed call needs."""

from benchmarks.gpu_timing import num_copies


def test_no_call_finds_its_data_in_the_cache() -> None:
    """The data of all calls is four times the cache, with eight calls at least, 128 at most."""
    cache = 50 * 2**20
    assert num_copies(10 * 2**20, cache) == 20
    assert num_copies(2**30, cache) == 8
    assert num_copies(1000, cache) == 128
